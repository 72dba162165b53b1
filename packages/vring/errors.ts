/**
 * The driver broke a rule of the ring. Thrown by `pop()` and `openQueue()`; the queue is unusable afterwards, and the
 * device behind it asks for a reset (DEVICE_NEEDS_RESET).
 */
export class VirtqueueError extends RangeError {
  override readonly name = "VirtqueueError";
  /** The clause of virtio 1.4 that was broken, such as "2.7.5.2". */
  readonly clause: string;

  /** Says what was wrong, and which clause forbids it. */
  constructor(clause: string, message: string) {
    super(`${message} (virtio 1.4, ${clause})`);
    this.clause = clause;
  }
}

/**
 * There is no virtio device that the driver can use. A device of another kind behind the registers is as likely as a broken
 * one: the caller decides whether it is worth a word.
 */
export class ProbeError extends Error {
  override readonly name = "ProbeError";
  /** The clause of virtio 1.4 that the device does not fit. */
  readonly clause: string;

  /** Says what was found, and which clause speaks of it. */
  constructor(clause: string, message: string) {
    super(`${message} (virtio 1.4, ${clause})`);
    this.clause = clause;
  }
}

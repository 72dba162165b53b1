/** When an interrupt reaches the driver of a loopback. */
export type Delivery = "microtask" | "sync";

/**
 * Interrupts of a loopback: a level and messages, handed to a driver's handler one at a time. A handler that kicks, so that
 * the device answers at once with another interrupt, is called again after it returned, never from inside itself.
 */
export class InterruptDelivery {
  /** Handles the level; false: nobody claimed it. */
  onLine: () => boolean = () => false;
  /** Handles a message. */
  onMessage: (data: number) => void = () => {};
  /** Interrupts so far: rising edges of the level, and messages. */
  count = 0;
  readonly #delivery: Delivery;
  readonly #messages = new Set<number>();
  #line = false;
  #scheduled = false;

  /** @param delivery Whether a handler runs inside the device's call, or from a microtask after it. */
  constructor(delivery: Delivery) {
    this.#delivery = delivery;
  }

  /** The level. */
  get line(): boolean {
    return this.#line;
  }

  /** Sets the level. */
  setLine(asserted: boolean): void {
    if (asserted && !this.#line) this.count++;
    this.#line = asserted;
    if (asserted) this.#schedule();
  }

  /** A message came. Equal ones that were not handled yet become one, as in an interrupt controller. */
  message(data: number): void {
    this.count++;
    this.#messages.add(data);
    this.#schedule();
  }

  #schedule(): void {
    if (this.#scheduled) return;
    this.#scheduled = true;
    if (this.#delivery === "sync") this.#run();
    else queueMicrotask(() => this.#run());
  }

  #run(): void {
    try {
      // A loop, since the handler's own kicks may interrupt again at once.
      while (this.#line || this.#messages.size > 0) {
        for (const data of this.#messages) {
          this.#messages.delete(data);
          this.onMessage(data);
        }
        if (this.#line && !this.onLine()) break;
      }
    } finally {
      this.#scheduled = false;
    }
  }
}

import type { TransmitQueue } from "./transmit_queue.ts";

/** Makes frames available: what was added in one turn of the event loop together, with one kick for each queue at most. */
export class TransmitPublisher {
  readonly #queues: readonly TransmitQueue[];
  /** By pair: 1 if frames were added that are not available yet. */
  readonly #waiting: Uint8Array;
  #scheduled = false;
  #stopped = false;
  readonly #run = (): void => {
    this.#scheduled = false;
    this.flush();
  };

  /** @param queues Transmit queues, by pair. */
  constructor(queues: readonly TransmitQueue[]) {
    this.#queues = queues;
    this.#waiting = new Uint8Array(queues.length);
  }

  /** A frame was added: publishes it at the end of this turn. */
  soon(pair: number): void {
    this.#waiting[pair] = 1;
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#run);
  }

  /** Publishes at once. */
  flush(): void {
    for (let pair = 0; pair < this.#waiting.length; pair++) {
      if (this.#waiting[pair] === 0) continue;
      this.#waiting[pair] = 0;
      // A kick may get the device given up.
      if (!this.#stopped) this.#queues[pair]!.publish();
    }
  }

  /** The device was given up: nothing is published any more. */
  stop(): void {
    this.#stopped = true;
  }
}

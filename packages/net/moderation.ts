import type { Activation, Interrupt, QueueCounters } from "@virtio/device";
import type { Coalescing } from "./control/coalescing.ts";

/**
 * Stands between a device's queues and the transport's interrupts, and holds used buffer notifications back as the driver
 * wants it (virtio 1.4, 5.1.9.5.10). Without such a wish everything passes at once.
 *
 * `Coalescing` counts and waits; this knows whether there is something to be notified of: a flush that the driver wanted to
 * know about. After the first such flush the ring's own suppression asks for nothing more, so packets are counted apart.
 */
export class Moderator {
  readonly #coalescing: Coalescing;
  readonly #counters: readonly QueueCounters[];
  #interrupt: Interrupt | null = null;
  /** Queues with a notification that was held back. */
  readonly #due: Uint8Array;
  /** Packets of each queue in this turn of the event loop. */
  readonly #packets: Uint32Array;
  #scheduled = false;
  readonly #publishedLater: () => void;

  /** @param counters Of each queue: a notification that is held back is not counted yet. */
  constructor(coalescing: Coalescing, counters: readonly QueueCounters[]) {
    this.#coalescing = coalescing;
    this.#counters = counters;
    this.#due = new Uint8Array(counters.length);
    this.#packets = new Uint32Array(counters.length);
    const published = () => this.#published();
    // Behind every flush of this turn, of which one may be a microtask that was asked for after this one.
    this.#publishedLater = () => queueMicrotask(published);
  }

  /** The same, with interrupts that come this way. */
  start(activation: Activation): Activation {
    const { memory, features, interrupt } = activation;
    this.#interrupt = interrupt;
    return {
      memory,
      features,
      interrupt: {
        queue: (queue) => this.#used(queue),
        config: () => interrupt.config(),
      },
      fail: (error) => activation.fail(error),
    };
  }

  /** Nothing is notified any more. */
  stop(): void {
    this.#interrupt = null;
    this.#due.fill(0);
    this.#packets.fill(0);
  }

  /** What a queue still has to say is said now: it is being stopped. */
  stopQueue(queue: number): void {
    this.#packets[queue] = 0;
    if (queue < this.#coalescing.queues) this.#coalescing.forget(queue);
    this.notify(queue);
  }

  /** A packet went through a queue; it is published in this turn of the event loop. */
  packet(queue: number): void {
    if (this.#coalescing.active) this.#count(queue);
  }

  #count(queue: number): void {
    if (!this.#isCoalesced(queue)) return;
    this.#packets[queue]!++;
    if (this.#scheduled) return;
    this.#scheduled = true;
    queueMicrotask(this.#publishedLater);
  }

  /** Sends what was held back, if anything was. */
  notify(queue: number): void {
    if (this.#due[queue] === 0) return;
    this.#due[queue] = 0;
    this.#counters[queue]!.interrupts++;
    this.#interrupt?.queue(queue);
  }

  #isCoalesced(queue: number): boolean {
    const coalescing = this.#coalescing;
    return queue < coalescing.queues && coalescing.maxPackets(queue) !== 0 &&
      coalescing.maxUsecs(queue) !== 0;
  }

  /** The driver wants to know of what a queue has just published. */
  #used(queue: number): void {
    // Its packets are still to be counted.
    if (this.#isCoalesced(queue) && this.#packets[queue] !== 0) {
      this.#due[queue] = 1;
      this.#counters[queue]!.interrupts--;
    } else {
      this.#due[queue] = 0;
      this.#interrupt?.queue(queue);
    }
  }

  #published(): void {
    this.#scheduled = false;
    for (let queue = 0; queue < this.#packets.length; queue++) {
      const packets = this.#packets[queue]!;
      if (packets === 0) continue;
      this.#packets[queue] = 0;
      if (this.#coalescing.count(queue, packets)) this.notify(queue);
    }
  }
}

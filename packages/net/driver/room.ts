import { DriverError } from "@virtio/device/driver";
import type { TransmitQueue } from "./transmit_queue.ts";

interface Waiter {
  readonly pair: number;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
}

/** Those who wait for room in transmit queues. Only while somebody does is the device asked for interrupts. */
export class RoomWaiters {
  /** While the device is suspended, it need not take anything. */
  paused = false;
  readonly #queues: readonly TransmitQueue[];
  readonly #timeout: number;
  readonly #giveUp: (reason: Error) => void;
  readonly #waiters: Waiter[] = [];
  #timer: ReturnType<typeof setTimeout> | null = null;
  #closed = false;

  /**
   * @param queues By pair.
   * @param timeout See `NetDriverOptions`.
   * @param giveUp Called if the device broke a rule, or takes nothing.
   */
  constructor(
    queues: readonly TransmitQueue[],
    timeout: number,
    giveUp: (reason: Error) => void,
  ) {
    this.#queues = queues;
    this.#timeout = timeout;
    this.#giveUp = giveUp;
  }

  /** Resolves when there is room for a frame of any length. */
  wait(pair: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.#waiters.push({ pair, resolve, reject });
      this.settle(pair);
      this.#watch();
    });
  }

  /** Takes back what was sent through a queue, and wakes those who wait for room in it. */
  settle(pair: number): void {
    const queue = this.#queues[pair];
    if (queue === undefined || this.#closed) return;
    try {
      queue.reclaim();
      while (this.#isAwaited(pair) && !queue.hasRoom()) {
        if (!queue.enableInterrupts()) return;
        queue.reclaim();
      }
      queue.disableInterrupts();
    } catch (error) {
      this.#giveUp(error as Error);
      return;
    }
    for (let i = this.#waiters.length - 1; i >= 0; i--) {
      if (this.#waiters[i]!.pair === pair) this.#waiters.splice(i, 1)[0]!.resolve();
    }
  }

  #isAwaited(pair: number): boolean {
    for (const waiter of this.#waiters) if (waiter.pair === pair) return true;
    return false;
  }

  /** A device that takes no frames must not hang those who wait for room. */
  #watch(): void {
    if (this.#timer !== null || this.#timeout === 0 || this.#waiters.length === 0) return;
    const before = this.#taken();
    this.#timer = setTimeout(() => {
      this.#timer = null;
      for (let pair = 0; pair < this.#queues.length; pair++) this.settle(pair);
      if (this.#waiters.length === 0) return;
      if (this.paused || this.#taken() !== before) this.#watch();
      else this.#giveUp(new DriverError(`The device took no frame for ${this.#timeout} ms`));
    }, this.#timeout);
  }

  #taken(): number {
    return this.#queues.reduce((sum, { counters }) => sum + counters.frames, 0);
  }

  /** Fails everybody, now and later. */
  abandon(reason: Error): void {
    this.#closed = true;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const waiter of this.#waiters.splice(0)) waiter.reject(reason);
  }
}

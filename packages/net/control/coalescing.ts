import { isCounts, malformed, record } from "./saved.ts";

/** Where coalescing gets its time from. */
export interface CoalescingClock {
  /** Calls `run` once, after about so many microseconds. Returns what `clear` takes, not null. */
  set(run: () => void, microseconds: number): unknown;
  /** `set` is not to be. */
  clear(timer: unknown): void;
}

/** The event loop's clock: whole milliseconds, which the standard leaves to the device (5.1.9.5.10.6). */
export const eventLoopClock: CoalescingClock = {
  set: (run, microseconds) => setTimeout(run, Math.ceil(microseconds / 1000)),
  clear: (timer) => clearTimeout(timer as number),
};

/** Parameters of coalescing as plain data: packets and microseconds, in turn, of every queue, then of TX_SET and of RX_SET. */
export interface SavedCoalescing {
  /** Two numbers a queue. */
  readonly queues: readonly number[];
  /** What TX_SET, then what RX_SET set. */
  readonly defaults: readonly number[];
}

const U32 = 0xffff_ffff;

/**
 * Notification coalescing (virtio 1.4, 5.1.9.5.10): the parameters of each queue, and when one is to be notified.
 *
 * The data path tells `count` what it did, and notifies if that says so; what is held back is notified through the callback:
 * when its time is over, or when other parameters make it due.
 *
 * Hot path: nothing is allocated for a queue without parameters.
 */
export class Coalescing {
  /** Queues: a receive queue, a transmit queue, and so on. */
  readonly queues: number;
  /** Whether any queue may have parameters: while none ever was told some, nobody need ask for them. */
  active = false;
  readonly #notify: (queue: number) => void;
  readonly #clock: CoalescingClock;
  /** Packets and microseconds of every queue. */
  readonly #parameters: Uint32Array;
  /** What the last TX_SET said, then what the last RX_SET said. */
  readonly #defaults: Uint32Array = new Uint32Array(4);
  /** Packets that the driver was not notified of. */
  readonly #waiting: Uint32Array;
  readonly #timers: unknown[];
  readonly #expired: (() => void)[];

  /**
   * @param queues How many, without the control queue.
   * @param notify Notifies a queue now, unless the driver suppressed that (5.1.9.5.10.6).
   * @param clock Where time comes from.
   */
  constructor(
    queues: number,
    notify: (queue: number) => void,
    clock: CoalescingClock = eventLoopClock,
  ) {
    this.queues = queues;
    this.#notify = notify;
    this.#clock = clock;
    this.#parameters = new Uint32Array(2 * queues);
    this.#waiting = new Uint32Array(queues);
    this.#timers = new Array<unknown>(queues).fill(null);
    this.#expired = Array.from({ length: queues }, (_, queue) => () => {
      this.#timers[queue] = null;
      this.#due(queue);
    });
  }

  /** `max_packets` of a queue. */
  maxPackets(queue: number): number {
    return this.#parameters[2 * queue]!;
  }

  /** `max_usecs` of a queue. */
  maxUsecs(queue: number): number {
    return this.#parameters[2 * queue + 1]!;
  }

  /** Packets of a queue that the driver was not notified of. */
  waiting(queue: number): number {
    return this.#waiting[queue]!;
  }

  /** All parameters are 0, and nothing waits. */
  reset(): void {
    for (let queue = 0; queue < this.queues; queue++) this.forget(queue);
    this.#parameters.fill(0);
    this.#defaults.fill(0);
    this.active = false;
  }

  /**
   * Packets were received or sent through a queue, and are published.
   *
   * @returns Whether to notify now; if not, the callback will.
   */
  count(queue: number, packets: number): boolean {
    const maxPackets = this.#parameters[2 * queue]!;
    const maxUsecs = this.#parameters[2 * queue + 1]!;
    if (maxPackets === 0 || maxUsecs === 0) return true;
    const waiting = this.#waiting[queue]! + packets;
    if (waiting >= maxPackets) {
      this.forget(queue);
      return true;
    }
    this.#waiting[queue] = waiting;
    if (waiting > 0 && this.#timers[queue] === null) this.#start(queue, maxUsecs);
    return false;
  }

  /** Nothing of a queue waits any more: it was notified for another reason, or stopped. @returns Whether something did. */
  forget(queue: number): boolean {
    const timer = this.#timers[queue];
    if (timer !== null) this.#clock.clear(timer);
    this.#timers[queue] = null;
    const waited = this.#waiting[queue]! > 0;
    this.#waiting[queue] = 0;
    return waited;
  }

  /** A queue was disabled, and is enabled again: its parameters are those of TX_SET or RX_SET (5.1.9.5.10.6). */
  reenable(queue: number): void {
    this.forget(queue);
    const from = defaultsOf(queue);
    this.#parameters[2 * queue] = this.#defaults[from]!;
    this.#parameters[2 * queue + 1] = this.#defaults[from + 1]!;
  }

  /** VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET. */
  set(queue: number, maxPackets: number, maxUsecs: number): void {
    this.active = true;
    this.#parameters[2 * queue] = maxPackets;
    this.#parameters[2 * queue + 1] = maxUsecs;
    if (this.#waiting[queue] === 0) return;
    const due = maxPackets === 0 || maxUsecs === 0 || this.#waiting[queue]! >= maxPackets;
    // The time that has passed is not known any more; a new delay from now on keeps to the new limit from now on.
    const timer = this.#timers[queue];
    if (timer !== null) this.#clock.clear(timer);
    this.#timers[queue] = null;
    if (due) this.#due(queue);
    else this.#start(queue, maxUsecs);
  }

  /** VIRTIO_NET_CTRL_NOTF_COAL_TX_SET or RX_SET: all transmit queues, or all receive queues, and those enabled later. */
  setAll(transmit: boolean, maxPackets: number, maxUsecs: number): void {
    const first = transmit ? 1 : 0;
    const from = defaultsOf(first);
    this.#defaults[from] = maxPackets;
    this.#defaults[from + 1] = maxUsecs;
    for (let queue = first; queue < this.queues; queue += 2) this.set(queue, maxPackets, maxUsecs);
  }

  /** What `restore` takes. What waited was notified when the queues were stopped. */
  save(): SavedCoalescing {
    return { queues: [...this.#parameters], defaults: [...this.#defaults] };
  }

  /** Checks what `save` gave. @throws {TypeError} If it is malformed. */
  check(saved: unknown): SavedCoalescing {
    const state = record<SavedCoalescing>(saved, "coalescing");
    if (
      !isCounts(state.queues, this.#parameters.length, U32) || !isCounts(state.defaults, 4, U32)
    ) throw malformed("coalescing");
    return state;
  }

  /** Takes over what `check` gave back; `reset` came before. */
  restore(state: SavedCoalescing): void {
    this.#parameters.set(state.queues);
    this.#defaults.set(state.defaults);
    this.active = true;
  }

  #start(queue: number, maxUsecs: number): void {
    this.#timers[queue] = this.#clock.set(this.#expired[queue]!, maxUsecs);
  }

  #due(queue: number): void {
    this.#waiting[queue] = 0;
    this.#notify(queue);
  }
}

/** Where the defaults of a queue are: transmit queues have odd indexes. */
function defaultsOf(queue: number): number {
  return (queue & 1) === 1 ? 0 : 2;
}

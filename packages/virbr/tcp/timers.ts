import { steady, type Timing } from "./timing.ts";

/** What `setTimeout` takes at most is 2^31 milliseconds. */
const LONGEST = 0x7000_0000;

/** Something that may be due at a time. Belongs to one `Timers`. */
export class Timer {
  /** Told when it is due. */
  readonly run: (now: number) => void;
  /** Its place in the heap; -1 if it is not set. For `Timers`. */
  slot = -1;

  /** Makes one that is not set. */
  constructor(run: (now: number) => void) {
    this.run = run;
  }

  /** Whether it is set. */
  get isSet(): boolean {
    return this.slot >= 0;
  }
}

/**
 * Any number of timers over one of the host's: a heap of what is due when. To set, move or clear one allocates nothing, but
 * where the heap grows or the host's timer must go off earlier.
 *
 * Timers that are due together run together; one that is set again while they run waits for the next time.
 */
export class Timers {
  /** Milliseconds, never backwards. */
  readonly now: () => number;
  readonly #timing: Timing;
  readonly #heap: Timer[] = [];
  #times = new Float64Array(64);
  readonly #armed = new Float64Array([Infinity]);
  #handle: unknown = null;
  readonly #fire = (): void => this.#run();
  #running = false;
  #closed = false;

  /** Makes an empty one. */
  constructor(timing: Timing) {
    this.#timing = timing;
    this.now = steady(() => timing.now());
  }

  /** Timers that are set. */
  get size(): number {
    return this.#heap.length;
  }

  /** When a timer is due; Infinity if it is not set. */
  due(timer: Timer): number {
    return timer.slot < 0 ? Infinity : this.#times[timer.slot]!;
  }

  /** Whether a time is before a timer's, which may not be set: a number in an array is not boxed. */
  isBefore(times: Float64Array, index: number, timer: Timer): boolean {
    return timer.slot < 0 || times[index]! < this.#times[timer.slot]!;
  }

  /** Sets or moves a timer. */
  set(timer: Timer, at: number): void {
    if (this.#closed) return;
    if (timer.slot < 0) {
      if (this.#heap.length === this.#times.length) {
        const times = new Float64Array(2 * this.#times.length);
        times.set(this.#times);
        this.#times = times;
      }
      timer.slot = this.#heap.length;
      this.#heap.push(timer);
      this.#times[timer.slot] = at;
      this.#up(timer.slot);
    } else {
      const before = this.#times[timer.slot]!;
      this.#times[timer.slot] = at;
      if (at < before) this.#up(timer.slot);
      else this.#down(timer.slot);
    }
    this.#arm();
  }

  /** Unsets a timer. */
  clear(timer: Timer): void {
    const { slot } = timer;
    if (slot < 0) return;
    const heap = this.#heap;
    const times = this.#times;
    const last = heap.length - 1;
    if (slot !== last) {
      this.#swap(slot, last);
      heap.length = last;
      if (slot > 0 && times[slot]! < times[(slot - 1) >> 1]!) this.#up(slot);
      else this.#down(slot);
    } else heap.length = last;
    timer.slot = -1;
    // Nothing keeps a program alive that waits for nothing.
    if (last === 0) this.#arm();
  }

  /** Unsets all, for good. */
  close(): void {
    this.#closed = true;
    for (const timer of this.#heap) timer.slot = -1;
    this.#heap.length = 0;
    this.#arm();
  }

  #run(): void {
    this.#handle = null;
    this.#armed[0] = Infinity;
    this.#running = true;
    const now = this.now();
    try {
      // What is set again for this very moment comes in the next turn: a timer cannot keep the event loop.
      for (let left = this.#heap.length; left > 0 && this.#heap.length > 0; left--) {
        if (this.#times[0]! > now) break;
        const timer = this.#heap[0]!;
        this.clear(timer);
        timer.run(now);
      }
    } finally {
      this.#running = false;
      this.#arm();
    }
  }

  #arm(): void {
    if (this.#running) return;
    const armed = this.#armed;
    if (this.#heap.length === 0) {
      if (this.#handle !== null) this.#timing.cancel(this.#handle);
      this.#handle = null;
      armed[0] = Infinity;
      return;
    }
    const next = this.#times[0]!;
    // One that goes off too early finds nothing to do, and is set again.
    if (next >= armed[0]!) return;
    if (this.#handle !== null) this.#timing.cancel(this.#handle);
    armed[0] = next;
    const wait = Math.min(LONGEST, Math.max(0, next - this.now()));
    this.#handle = this.#timing.after(wait, this.#fire);
  }

  #swap(a: number, b: number): void {
    const heap = this.#heap;
    const times = this.#times;
    const timer = heap[a]!;
    const time = times[a]!;
    heap[a] = heap[b]!;
    times[a] = times[b]!;
    heap[b] = timer;
    times[b] = time;
    heap[a]!.slot = a;
    timer.slot = b;
  }

  #up(from: number): void {
    let slot = from;
    while (slot > 0) {
      const parent = (slot - 1) >> 1;
      if (this.#times[parent]! <= this.#times[slot]!) return;
      this.#swap(slot, parent);
      slot = parent;
    }
  }

  #down(from: number): void {
    const times = this.#times;
    const { length } = this.#heap;
    let slot = from;
    for (;;) {
      let least = 2 * slot + 1;
      if (least >= length) return;
      if (least + 1 < length && times[least + 1]! < times[least]!) least++;
      if (times[slot]! <= times[least]!) return;
      this.#swap(slot, least);
      slot = least;
    }
  }
}

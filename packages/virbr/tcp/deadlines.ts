import { Timer, type Timers } from "./timers.ts";

/** When things are due, and were measured: places in `Deadlines.times`. */
export const At = {
  /** What is out is sent again. */
  repeat: 0,
  /** A guest that takes nothing is asked whether it does now. */
  persist: 1,
  /** What came is acknowledged. */
  acknowledge: 2,
  /** A silent guest is asked whether it is there; what is over is forgotten. */
  life: 3,
  /** When the segment that is timed was sent. */
  timed: 4,
  /** When the guest was last heard. */
  heard: 5,
  /** When a segment that made no sense was last answered. */
  challenged: 6,
} as const;
/** How many of them are due, rather than past. */
const DUE = 4;

/** The times of one connection, over one timer. In an array, so that no number is boxed. */
export class Deadlines {
  /** Milliseconds, by `At`; Infinity where nothing is due. */
  readonly times: Float64Array = new Float64Array([
    ...[Infinity, Infinity, Infinity, Infinity],
    ...[0, 0, -Infinity],
  ]);
  readonly #timers: Timers;
  readonly #timer: Timer;

  /** @param due Told when something is due, or was to be: look, then call `next`. */
  constructor(timers: Timers, due: (now: number) => void) {
    this.#timers = timers;
    this.#timer = new Timer(due);
  }

  /** Sets one. */
  set(which: number, at: number): void {
    this.times[which] = at;
    this.arm(which);
  }

  /** One was set in `times`. One that is later than before costs nothing: the timer goes off too early, and is set again. */
  arm(which: number): void {
    if (this.#timers.isBefore(this.times, which, this.#timer)) {
      this.#timers.set(this.#timer, this.times[which]!);
    }
  }

  /** Waits for what is due next. */
  next(): void {
    let next = Infinity;
    for (let i = 0; i < DUE; i++) if (this.times[i]! < next) next = this.times[i]!;
    if (next < Infinity) this.#timers.set(this.#timer, next);
  }

  /** Nothing is due any more. */
  clear(): void {
    this.times.fill(Infinity, 0, DUE);
    this.#timers.clear(this.#timer);
  }
}

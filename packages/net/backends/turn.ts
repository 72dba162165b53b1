import type { Frame } from "../frame.ts";
import { WaitingFrames } from "../waiting.ts";

/** Frames that wait, at most. */
const FRAMES = 256;
/** Bytes of them, at most. */
const BYTES = 1024 * 1024;
/** Frames that are handled behind the first before the event loop gets its turn. */
const BUDGET = 256;

/**
 * Handles frames one at a time. A frame that comes while another is handled, since whoever got that one answers at once,
 * waits until it is done: no recursion, and what is handled is never changed under the hands of the handler. A conversation
 * that never ends leaves the event loop its turns.
 *
 * Only frames that wait are copied.
 */
export class Turn {
  /** Frames that found no room. */
  dropped = 0;
  readonly #handle: (frame: Frame, number: number) => void;
  readonly #waiting: WaitingFrames = new WaitingFrames(FRAMES, BYTES);
  /** The numbers of those that wait: a ring. */
  readonly #numbers: Int32Array = new Int32Array(FRAMES);
  #first = 0;
  #busy = false;
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @param handle Handles a frame, and the number that was given with it. */
  constructor(handle: (frame: Frame, number: number) => void) {
    this.#handle = handle;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#waiting.count;
  }

  /** Has a frame handled, now or later. @returns Whether it will be; false if too many wait. */
  take(frame: Frame, number: number): boolean {
    if (this.#busy || this.#timer !== null) return this.#wait(frame, number);
    this.#busy = true;
    try {
      this.#handle(frame, number);
      if (this.#waiting.count > 0) this.#rest();
    } finally {
      this.#busy = false;
      if (this.#waiting.count > 0) this.#later();
    }
    return true;
  }

  #wait(frame: Frame, number: number): boolean {
    const { count } = this.#waiting;
    if (this.#waiting.push(frame)) {
      this.#numbers[(this.#first + count) % FRAMES] = number;
      return true;
    }
    this.dropped++;
    return false;
  }

  /** Forgets what waits. */
  clear(): void {
    this.#waiting.clear();
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #rest(): void {
    const waiting = this.#waiting;
    for (let left = BUDGET; left > 0; left--) {
      const frame = waiting.peek();
      if (frame === null) return;
      try {
        this.#handle(frame, this.#numbers[this.#first]!);
      } finally {
        waiting.shift();
        this.#first = (this.#first + 1) % FRAMES;
      }
    }
  }

  #later(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = null;
      this.#busy = true;
      try {
        this.#rest();
      } finally {
        this.#busy = false;
        if (this.#waiting.count > 0) this.#later();
      }
    }, 0);
  }
}

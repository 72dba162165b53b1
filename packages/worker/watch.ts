import { defer } from "@virtio/device";
import { Spin } from "./spin.ts";
import { type Bell, BellWord } from "./words.ts";

/** Times that something is passed on before the event loop gets its turn. */
const MOST_ROUNDS = 32;

/** Listens to the bell, in the event loop or asleep. */
export class Watch {
  readonly #words: Int32Array;
  readonly #look: () => boolean;
  /** What the bell's word was when it was looked at last. */
  #seen = 0;
  #rounds = 0;
  #closed = false;
  readonly #spin: Spin;

  /**
   * @param spin Microseconds to look again and again before going to sleep; see `Spin`.
   * @param look Passes on what there is. @returns Whether there was anything.
   */
  constructor(bell: Bell, spin: number, look: () => boolean) {
    this.#words = bell.words;
    this.#spin = new Spin(bell.words, BellWord.event, spin);
    this.#look = look;
  }

  /** Looks, if the bell rang. */
  poll(): boolean {
    return this.#see(Atomics.load(this.#words, BellWord.event));
  }

  #see(event: number): boolean {
    if (event === this.#seen) return false;
    this.#seen = event;
    return this.#look();
  }

  /** Sleeps until the bell rings, for so many milliseconds at most, and looks. */
  wait(milliseconds: number): boolean {
    const words = this.#words;
    const event = Atomics.load(words, BellWord.event);
    if (this.#see(event)) return true;
    const next = this.#spin.until(event);
    if (next !== event) return this.#see(next);
    Atomics.store(words, BellWord.asleep, 1);
    Atomics.wait(words, BellWord.event, event, milliseconds);
    return this.poll();
  }

  /** Looks, sleeps in the event loop, and again, until `close`. */
  run(): void {
    if (this.#closed) return;
    const words = this.#words;
    const seen = Atomics.load(words, BellWord.event);
    this.poll();
    Atomics.store(words, BellWord.asleep, 1);
    const waiting = Atomics.waitAsync(words, BellWord.event, seen);
    const again = (): void => {
      Atomics.store(words, BellWord.asleep, 0);
      this.run();
    };
    if (waiting.async) waiting.value.then(again);
    // Something came already. Under a load that never ends the event loop gets its turn all the same.
    else if (++this.#rounds % MOST_ROUNDS !== 0) queueMicrotask(again);
    else defer(again);
  }

  /** Ends `run`. */
  close(): void {
    this.#closed = true;
    Atomics.notify(this.#words, BellWord.event);
  }
}

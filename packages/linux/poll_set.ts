import { Errno, SystemError } from "./errno.ts";
import { errno, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  poll: { parameters: ["buffer", "usize", "i32"], result: "i32" },
  pollLater: {
    name: "poll",
    parameters: ["buffer", "usize", "i32"],
    result: "i32",
    nonblocking: true,
  },
} as const;

const ENTRY = 8;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** What to wait for, and what came; to be joined. */
export const PollEvent = {
  /** It can be read, or somebody wants to connect. */
  readable: 1,
  /** It can be written. */
  writable: 4,
  /** It failed. Always waited for, as the next two. */
  error: 8,
  /** The other side is gone. */
  hangUp: 16,
  /** It is not open. */
  invalid: 32,
} as const;

/** Descriptors that are waited for together. */
export class PollSet {
  #bytes: Uint8Array<ArrayBuffer> = fixedBytes(16 * ENTRY);
  #view: DataView = new DataView(this.#bytes.buffer);
  #count = 0;
  #waiting = false;

  /** How many there are. */
  get size(): number {
    return this.#count;
  }

  /**
   * Adds a descriptor.
   *
   * @param events Of `PollEvent`; to be read unless given.
   * @returns Its place, from 0 on; places of the others stay as they are.
   * @throws {TypeError} While `waitLater` waits: wake it up first.
   */
  add(descriptor: number, events: number = PollEvent.readable): number {
    this.#change();
    const at = this.#count * ENTRY;
    if (at === this.#bytes.length) {
      const longer = fixedBytes(2 * at);
      longer.set(this.#bytes);
      this.#bytes = longer;
      this.#view = new DataView(longer.buffer);
    }
    this.#view.setInt32(at, descriptor, true);
    this.#view.setInt16(at + 4, events, true);
    this.#view.setInt16(at + 6, 0, true);
    return this.#count++;
  }

  /** Forgets all. @throws {TypeError} While `waitLater` waits. */
  clear(): void {
    this.#change();
    this.#count = 0;
  }

  /** Puts another descriptor, or -1 for none, and other events into a place. @throws {TypeError} While `waitLater` waits. */
  set(place: number, descriptor: number, events: number = PollEvent.readable): void {
    this.#change();
    if (!(place >= 0 && place < this.#count)) throw new RangeError(`There is no place ${place}`);
    this.#view.setInt32(place * ENTRY, descriptor, true);
    this.#view.setInt16(place * ENTRY + 4, events, true);
    this.#view.setInt16(place * ENTRY + 6, 0, true);
  }

  /** What came to a place at the last wait, of `PollEvent`. */
  ready(place: number): number {
    return this.#view.getInt16(place * ENTRY + 6, true);
  }

  /**
   * Waits in this thread, which does nothing else: for workers.
   *
   * @param milliseconds At most; for ever if negative.
   * @returns How many places are ready; 0 also if a signal came.
   */
  wait(milliseconds: number): number {
    return this.#done(
      libc().poll(this.#bytes, this.#count as unknown as bigint, milliseconds),
    );
  }

  /**
   * Waits in another thread; the event loop goes on meanwhile. One at a time. To end it early, have an `EventFd` in the set.
   *
   * @returns As `wait`.
   */
  async waitLater(milliseconds: number): Promise<number> {
    this.#change();
    this.#waiting = true;
    try {
      const { pollLater } = libc();
      // What went wrong is told by the other thread's errno, which cannot be read here: it can only be a signal.
      return Math.max(0, await pollLater(this.#bytes, BigInt(this.#count), milliseconds));
    } finally {
      this.#waiting = false;
    }
  }

  #done(count: number): number {
    if (count >= 0) return count;
    const code = errno();
    if (code === Errno.EINTR) return 0;
    throw new SystemError("poll", code);
  }

  #change(): void {
    if (this.#waiting) {
      throw new TypeError("The set is in use: wake up whoever waits, then change it");
    }
  }
}

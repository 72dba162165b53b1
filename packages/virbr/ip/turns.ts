import type { Frame } from "@virtio/net";
import { WaitingFrames } from "@virtio/net/wire";
import type { Station } from "../wire/station.ts";

/** Frames that wait since somebody is busy, and bytes of them. */
const MOST_FRAMES = 256;
const MOST_BYTES = 1024 * 1024;
/** Waiting frames that are handled before the event loop gets its turn. */
const BUDGET = 256;

/** Frames that came in the midst of something: they are handled in their order, as soon as that is done. */
export class Turns {
  readonly #handle: (frame: Frame, from: Station) => void;
  readonly #frames: WaitingFrames = new WaitingFrames(MOST_FRAMES, MOST_BYTES);
  readonly #from: (Station | null)[] = [];
  #scheduled = false;
  #timer: ReturnType<typeof setTimeout> | null = null;

  /** @param handle Gets each frame in its turn, unless its sender is gone. */
  constructor(handle: (frame: Frame, from: Station) => void) {
    this.#handle = handle;
  }

  /** How many wait. */
  get count(): number {
    return this.#frames.count;
  }

  /** Keeps a frame. @returns False if there is no room. */
  add(frame: Frame, from: Station): boolean {
    const fits = this.#frames.push(frame);
    if (fits) this.#from.push(from);
    if (!this.#scheduled) {
      this.#scheduled = true;
      queueMicrotask(() => this.#drain());
    }
    return fits;
  }

  /** Forgets what waits. */
  close(): void {
    this.#frames.clear();
    this.#from.length = 0;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
  }

  #drain(): void {
    this.#scheduled = false;
    for (let left = BUDGET; left > 0; left--) {
      const frame = this.#frames.peek();
      if (frame === null) return;
      const from = this.#from.shift()!;
      try {
        if (from !== null && !from.gone) this.#handle(frame, from);
      } catch {
        // There is no sender to throw it at any more, and nobody wants to be told.
      }
      this.#frames.shift();
    }
    if (this.#frames.count > 0) this.#later();
  }

  /** A conversation that never ends leaves the event loop its turns. */
  #later(): void {
    this.#scheduled = true;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      this.#drain();
    }, 0);
  }
}

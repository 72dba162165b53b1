/** Waiting for many descriptors of this thread by one call in another: the event loop goes on meanwhile. */
import { EventFd, PollEvent, PollSet } from "@virtio/linux";

/** A descriptor that is waited for. */
export interface Watched {
  /** What to wait for, of `PollEvent`. */
  events: number;
  /** Ends it; nothing is told of it afterwards. The descriptor may be closed then. */
  end(): void;
}

interface Entry extends Watched {
  readonly descriptor: number;
  readonly ready: (events: number) => void;
}

/**
 * Descriptors, each with a function that is called when it is ready. All of a thread are waited for together: waiting takes a
 * thread of the runtime's, of which there are not many.
 */
export class DescriptorWatch {
  /** The one of this thread. */
  static readonly shared: DescriptorWatch = new DescriptorWatch();

  readonly #entries: Set<Entry> = new Set();
  #bell: EventFd | null = null;
  #running: Promise<void> | null = null;
  #changed = false;
  #waiting = false;

  /**
   * Waits for a descriptor, again and again, until `end`.
   *
   * @param ready Called with what came, of `PollEvent`. It must not throw, and sees to what is there: else it is called again.
   */
  add(descriptor: number, events: number, ready: (events: number) => void): Watched {
    // deno-lint-ignore no-this-alias
    const watch = this;
    let wanted = events;
    const entry: Entry = {
      descriptor,
      ready,
      get events(): number {
        return wanted;
      },
      set events(value: number) {
        if (value === wanted) return;
        wanted = value;
        watch.#change();
      },
      end: () => {
        if (this.#entries.delete(entry)) this.#change();
      },
    };
    this.#entries.add(entry);
    this.#change();
    this.#running ??= this.#run();
    return entry;
  }

  /** Resolves when nothing is waited for any more, if nobody adds anything. */
  async idle(): Promise<void> {
    while (this.#running !== null && this.#entries.size === 0) await this.#running;
  }

  #change(): void {
    this.#changed = true;
    if (this.#waiting) this.#bell?.signal();
  }

  async #run(): Promise<void> {
    const bell = this.#bell = EventFd.create();
    const set = new PollSet();
    let places: Entry[] = [];
    this.#changed = true;
    // Whoever adds the first may add more in the same turn.
    await Promise.resolve();
    while (this.#entries.size > 0) {
      if (this.#changed) {
        this.#changed = false;
        places = [...this.#entries];
        set.clear();
        set.add(bell.descriptor);
        for (const { descriptor, events } of places) set.add(descriptor, events);
      }
      this.#waiting = true;
      await set.waitLater(-1);
      this.#waiting = false;
      if (set.ready(0) !== 0) bell.take();
      for (let i = 0; i < places.length; i++) {
        const events = set.ready(i + 1);
        if (events !== 0 && this.#entries.has(places[i]!)) places[i]!.ready(events);
      }
    }
    bell.close();
    this.#bell = null;
    this.#running = null;
  }
}

/** Events that a socket ends with: not open, gone, or broken. */
export const BROKEN: number = PollEvent.error | PollEvent.hangUp | PollEvent.invalid;

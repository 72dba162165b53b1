/** Waits for descriptors. */
import { EventFd, PollEvent, PollSet } from "@virtio/linux";

/** A descriptor that is watched; `close` ends that. The descriptor stays open, and may be closed at once afterwards. */
export interface Watch {
  /** Forgets the descriptor. Its callback is not called any more. */
  close(): void;
}

/** Whoever waits for descriptors. */
export interface Watcher {
  /**
   * Calls back whenever events of a descriptor came, until the watch is closed.
   *
   * @param events Of `PollEvent`; to be read unless given.
   */
  watch(descriptor: number, ready: (events: number) => void, events?: number): Watch;
}

interface Watched {
  readonly descriptor: number;
  readonly ready: (events: number) => void;
  readonly events: number;
  open: boolean;
}

/**
 * Waits for all descriptors of a thread whose event loop turns, in one place and with one call under way. While nothing is
 * watched there is none, so that the program can end.
 */
export class Reactor implements Watcher {
  readonly #watched: Set<Watched> = new Set();
  readonly #set: PollSet = new PollSet();
  #wake: EventFd | null = null;
  #changed = true;
  #running = false;
  #ended: Promise<void> = Promise.resolve();

  /** Resolves when nothing is under way, if nothing is watched any more. */
  async idle(): Promise<void> {
    if (this.#watched.size === 0) await this.#ended;
  }

  /** See `Watcher.watch`. */
  watch(
    descriptor: number,
    ready: (events: number) => void,
    events: number = PollEvent.readable,
  ): Watch {
    const watched: Watched = { descriptor, ready, events, open: true };
    this.#watched.add(watched);
    this.#change();
    if (!this.#running) {
      this.#running = true;
      this.#ended = this.#run();
    }
    return {
      close: () => {
        if (!watched.open) return;
        watched.open = false;
        this.#watched.delete(watched);
        this.#change();
      },
    };
  }

  #change(): void {
    if (this.#changed) return;
    this.#changed = true;
    this.#wake?.signal();
  }

  async #run(): Promise<void> {
    const wake = this.#wake = EventFd.create();
    let places: Watched[] = [];
    const set = this.#set;
    // What is to be watched first is not yet there when the first watch begins.
    await null;
    while (this.#watched.size > 0) {
      if (this.#changed) {
        this.#changed = false;
        set.clear();
        set.add(wake.descriptor);
        places = [...this.#watched];
        for (const { descriptor, events } of places) set.add(descriptor, events);
      }
      await set.waitLater(-1);
      if (set.ready(0) !== 0) wake.take();
      for (let i = 0; i < places.length; i++) {
        const events = set.ready(i + 1);
        const place = places[i]!;
        if (events !== 0 && place.open) place.ready(events);
      }
    }
    this.#running = false;
    this.#wake = null;
    this.#changed = true;
    wake.close();
    // Whatever was watched while this ended.
    if (this.#watched.size > 0 && !this.#running) {
      this.#running = true;
      this.#ended = this.#run();
    }
  }
}

let shared: Reactor | null = null;

/** The one of this thread. */
export function reactor(): Reactor {
  return shared ??= new Reactor();
}

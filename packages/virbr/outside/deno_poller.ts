import { EventFd, PollSet } from "@virtio/linux";

/** Waits for any number of descriptors in one thread beside the event loop. It runs while there are some. */
export class Poller {
  readonly #watched: Map<number, () => void> = new Map();
  #wake: EventFd | null = null;
  #changed = true;
  #closing: (() => void)[] = [];

  /**
   * Has something called whenever a descriptor can be read, or has an error to tell.
   *
   * @throws {SystemError} If there are no more descriptors.
   */
  add(descriptor: number, run: () => void): void {
    if (this.#wake === null) {
      this.#wake = EventFd.create();
      this.#watched.set(descriptor, run);
      this.#changed = true;
      void this.#serve(this.#wake);
      return;
    }
    this.#watched.set(descriptor, run);
    this.#change();
  }

  /** Forgets a descriptor, and closes it: not before nobody waits for it any more. */
  remove(descriptor: number, close: () => void): void {
    this.#watched.delete(descriptor);
    this.#closing.push(close);
    this.#change();
  }

  #change(): void {
    this.#changed = true;
    this.#wake?.signal();
  }

  async #serve(wake: EventFd): Promise<void> {
    const set = new PollSet();
    let runs: (() => void)[] = [];
    while (this.#watched.size > 0) {
      if (this.#changed) {
        this.#changed = false;
        set.clear();
        set.add(wake.descriptor);
        runs = [];
        for (const [descriptor, run] of this.#watched) {
          set.add(descriptor);
          runs.push(run);
        }
        this.#close();
      }
      await set.waitLater(-1);
      if (set.ready(0) !== 0) wake.take();
      for (let i = 0; i < runs.length; i++) if (set.ready(i + 1) !== 0) runs[i]!();
    }
    this.#wake = null;
    this.#close();
    wake.close();
  }

  #close(): void {
    for (const close of this.#closing) close();
    this.#closing = [];
  }
}

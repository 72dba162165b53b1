import type { Queue } from "@virtio/vring";

/** A queue that is being stopped. */
interface Drain {
  readonly life: number;
  readonly resolve: (queue: Queue) => void;
  readonly reject: (error: Error) => void;
}

/** Queues that are being stopped, and who waits for them. */
export class Drains {
  readonly #drains: Map<number, Drain> = new Map();

  /** The queue, once it is drained. */
  wait(index: number, life: number): Promise<Queue> {
    return new Promise((resolve, reject) => this.#drains.set(index, { life, resolve, reject }));
  }

  /** Takes one out; undefined if nobody waits for it, or not in this life. */
  take(index: number, life: number): Drain | undefined {
    const drain = this.#drains.get(index);
    if (drain?.life !== life) return undefined;
    this.#drains.delete(index);
    return drain;
  }

  /** These will not drain. */
  reject(error: Error, which: (index: number) => boolean = () => true): void {
    for (const [index, { reject }] of this.#drains) {
      if (!which(index)) continue;
      this.#drains.delete(index);
      reject(error);
    }
  }
}

/** A block device in memory over a prepared ring: 4 KiB reads, with the serve loop, the checks and the copy. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { allocateBytes, GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { DATA_SIZE, Place, Prepared, type World } from "./work.ts";

/** The work of `blk`. */
export class BlkWorld implements Pick<World, "refill" | "blk"> {
  readonly #prepared: Prepared;
  readonly #device: BlkDevice;
  readonly #batch: number;
  #interrupts = 0;

  /** @param shared Whether guest memory, and the disk, are shared with other threads: copies to and from it cost more. */
  constructor(format: "split" | "packed", size: number, batch: number, shared = true) {
    this.#batch = batch;
    this.#prepared = new Prepared({
      format,
      shape: "blk3",
      size,
      batch,
      memory: new GuestMemory([{ base: 0, buffer: allocateBytes(Place.end, shared).buffer }]),
    });
    const { memory, config, features } = this.#prepared;
    this.#device = new BlkDevice({
      backend: new MemoryBackend(allocateBytes(64 * DATA_SIZE, shared)),
    });
    this.#device.start({
      memory,
      features,
      interrupt: { queue: () => this.#interrupts++, config: () => {} },
      fail: (error) => {
        throw error;
      },
    });
    this.#device.startQueue(0, openQueue(memory, config, features));
  }

  refill(batches: number): void {
    for (let n = 0; n < batches; n++) this.#prepared.refill();
  }

  blk(batches: number): number {
    const before = this.#device.stats.reads;
    for (let n = 0; n < batches; n++) {
      this.#prepared.refill();
      this.#device.notify(0);
    }
    const done = this.#device.stats.reads - before;
    if (done !== batches * this.#batch) throw new Error("A request was not answered");
    return done;
  }
}

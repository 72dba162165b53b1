/** A block device in memory over a prepared ring: 4 KiB reads, with the serve loop, the checks and the copy. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { openQueue } from "@virtio/vring";
import { DATA_SIZE, Prepared, type World } from "./work.ts";

/** The work of `blk`. */
export class BlkWorld implements Pick<World, "refill" | "blk"> {
  readonly #prepared: Prepared;
  readonly #device: BlkDevice;
  readonly #batch: number;
  #interrupts = 0;

  constructor(format: "split" | "packed", size: number, batch: number) {
    this.#batch = batch;
    this.#prepared = new Prepared({ format, shape: "blk3", size, batch });
    const { memory, config, features } = this.#prepared;
    this.#device = new BlkDevice({
      backend: new MemoryBackend(new Uint8Array(new SharedArrayBuffer(64 * DATA_SIZE))),
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

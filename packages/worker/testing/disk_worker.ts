/** A block device in a worker, for tests: in memory of its own, or of the test's, at once or later. */
import { type BackendResult, type BlkBackend, BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { LaterBackend } from "../../blk/backends/later_testing.ts";
import { serveDevice } from "@virtio/worker/serve";

/** What the test says. */
export interface DiskData {
  /** The disk. */
  readonly bytes: SharedArrayBuffer;
  /** Whether the back end answers later. */
  readonly later?: boolean;
  /** Number of queues. */
  readonly queues?: number;
  /** Throws instead of making a device. */
  readonly refuse?: string;
  /** Ends itself with an uncaught error after so many milliseconds. */
  readonly dies?: number;
  /** Ends itself with an uncaught error at every so many-th request of the worker. */
  readonly diesAt?: number;
  /** Whether requests are done in another order than they came in. */
  readonly shuffled?: boolean;
}

/** A disk whose requests take different times, and one of which is the last. */
class DyingBackend implements BlkBackend {
  readonly readonly = false;
  readonly asynchronous: boolean;
  onChange: (() => void) | null = null;
  readonly #disk: MemoryBackend;
  readonly #data: DiskData;
  #left: number;

  constructor(disk: MemoryBackend, data: DiskData) {
    this.#disk = disk;
    this.#data = data;
    this.#left = data.diesAt ?? Infinity;
    this.asynchronous = data.shuffled ?? false;
  }

  get capacity(): number {
    return this.#disk.capacity;
  }

  read(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult {
    return this.#then(() => this.#disk.read(position, bytes, offset, length));
  }

  write(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult {
    return this.#then(() => this.#disk.write(position, bytes, offset, length));
  }

  flush(): BackendResult {
    return this.#then(() => {});
  }

  #then(work: () => void): BackendResult {
    if (--this.#left === 0) {
      queueMicrotask(() => {
        throw new Error("planted");
      });
    }
    if (!this.#data.shuffled) return work();
    return new Promise((resolve) =>
      setTimeout(() => {
        work();
        resolve();
      }, Math.random() * 4)
    );
  }
}

const events = !new URL(import.meta.url).searchParams.has("sleep");

serveDevice((data: DiskData) => {
  if (data.refuse !== undefined) throw new RangeError(data.refuse);
  if (data.dies !== undefined) {
    setTimeout(() => {
      throw new Error("planted");
    }, data.dies);
  }
  const memory = new MemoryBackend(new Uint8Array(data.bytes));
  const dying = data.diesAt !== undefined || data.shuffled === true;
  return new BlkDevice({
    backend: dying
      ? new DyingBackend(memory, data)
      : data.later
      ? new LaterBackend(memory)
      : memory,
    id: "worker",
    queues: data.queues ?? 1,
  });
}, { events, repeatable: !new URL(import.meta.url).searchParams.has("once") });

import type { DriverSession } from "@virtio/device/driver";
import type { MemoryRegion } from "@virtio/memory";
import { BufferList } from "@virtio/vring/driver";

/** Bytes on their way to the device. */
interface Sending {
  readonly bytes: Uint8Array;
  /** Bytes that buffers took. */
  at: number;
  /** Buffers that the device has not used. */
  inFlight: number;
  readonly done: () => void;
  readonly failed: (reason: Error) => void;
}

/** A queue that the device reads from: bytes are copied into buffers, in order, as buffers become free. */
export class TransmitQueue {
  /** Index of the queue. */
  readonly index: number;
  readonly #session: DriverSession;
  readonly #size: number;
  readonly #count: number;
  readonly #list = new BufferList();
  readonly #free: number[] = [];
  readonly #owners: (Sending | null)[];
  #waiting: Sending[] = [];
  #address = -1;
  #region: MemoryRegion | null = null;

  /**
   * @param count Buffers; fewer if the queue is shorter.
   * @param size Bytes of each.
   */
  constructor(session: DriverSession, index: number, count: number, size: number) {
    this.index = index;
    this.#session = session;
    this.#size = size;
    this.#count = Math.min(count, session.queue(index).size);
    this.#owners = new Array<Sending | null>(this.#count).fill(null);
  }

  /** Whether a message of one buffer would go out at once. */
  get ready(): boolean {
    return this.#free.length > 0 && this.#waiting.length === 0;
  }

  /** Takes memory; once. @throws {RangeError} If there is none. */
  start(): void {
    if (this.#address >= 0) return;
    const bytes = this.#count * this.#size;
    this.#address = this.#session.dma.allocate(bytes);
    this.#region = this.#session.dma.memory.find(this.#address, bytes);
    for (let slot = this.#count - 1; slot >= 0; slot--) this.#free.push(slot);
    this.#session.queue(this.index).enableInterrupts();
  }

  /** Sends bytes; resolves when the device has used all of them. */
  send(bytes: Uint8Array): Promise<void> {
    if (bytes.length === 0) return Promise.resolve();
    return new Promise((done, failed) => {
      this.#waiting.push({ bytes, at: 0, inFlight: 0, done, failed });
      this.#pump();
    });
  }

  /**
   * Takes back what the device used, and sends on.
   *
   * @throws {VirtqueueError} If the device broke a rule.
   */
  collect(): void {
    if (this.#address < 0) return;
    const queue = this.#session.queue(this.index);
    do {
      for (let slot = queue.take(); slot >= 0; slot = queue.take()) {
        const owner = this.#owners[slot]!;
        this.#owners[slot] = null;
        this.#free.push(slot);
        if (owner !== null && --owner.inFlight === 0 && owner.at === owner.bytes.length) {
          owner.done();
        }
      }
    } while (queue.enableInterrupts());
    this.#pump();
  }

  #pump(): void {
    const region = this.#region!;
    let added = false;
    while (this.#waiting.length > 0 && this.#free.length > 0) {
      const first = this.#waiting[0]!;
      const slot = this.#free.pop()!;
      const length = Math.min(this.#size, first.bytes.length - first.at);
      const at = this.#address + slot * this.#size;
      region.bytes.set(first.bytes.subarray(first.at, first.at + length), at - region.base);
      // 5.3.6.1: nothing that the device may write.
      this.#list.clear().readable(at, length);
      this.#session.queue(this.index).add(this.#list, slot);
      first.at += length;
      first.inFlight++;
      this.#owners[slot] = first;
      if (first.at === first.bytes.length) this.#waiting.shift();
      added = true;
    }
    if (added) this.#session.publish(this.index);
  }

  /** Fails what the device has not used. Buffers in flight stay taken until the device uses them. */
  abandon(reason: Error): void {
    const lost = new Set([...this.#owners, ...this.#waiting]);
    this.#owners.fill(null);
    this.#waiting = [];
    for (const sending of lost) sending?.failed(reason);
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    if (this.#address >= 0) this.#session.dma.free(this.#address);
    this.#address = -1;
  }
}

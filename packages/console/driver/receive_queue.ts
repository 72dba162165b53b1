import type { DriverSession } from "@virtio/device/driver";
import type { MemoryRegion } from "@virtio/memory";
import { BufferList } from "@virtio/vring/driver";

/** A queue that the device writes to: buffers are posted, taken, and posted again. */
export class ReceiveQueue {
  /** Index of the queue. */
  readonly index: number;
  readonly #session: DriverSession;
  readonly #size: number;
  readonly #count: number;
  readonly #list = new BufferList();
  readonly #again: Uint16Array;
  #address = -1;
  #region: MemoryRegion | null = null;
  #collecting = false;
  #scheduled = false;

  /**
   * @param count Buffers; fewer if the queue is shorter.
   * @param size Bytes of each.
   */
  constructor(session: DriverSession, index: number, count: number, size: number) {
    this.index = index;
    this.#session = session;
    this.#size = size;
    this.#count = Math.min(count, session.queue(index).size);
    this.#again = new Uint16Array(this.#count);
  }

  /** Takes memory and posts all buffers; once. @throws {RangeError} If there is no memory for them. */
  start(): void {
    if (this.#address >= 0) return;
    const bytes = this.#count * this.#size;
    this.#address = this.#session.dma.allocate(bytes);
    this.#region = this.#session.dma.memory.find(this.#address, bytes);
    for (let slot = 0; slot < this.#count; slot++) this.#post(slot);
    this.#session.publish(this.index);
    this.#session.queue(this.index).enableInterrupts();
  }

  #post(slot: number): void {
    // 5.3.6.1: nothing that the device may read.
    this.#list.clear().writable(this.#address + slot * this.#size, this.#size);
    this.#session.queue(this.index).add(this.#list, slot);
  }

  /**
   * Takes what came, a copy of each buffer's bytes. Buffers are posted again when all were taken, so that a device which is
   * faster than us does not keep us here.
   *
   * @param take Must not throw. Whether to go on.
   * @param later Called in a later turn if there is more.
   * @throws {VirtqueueError} If the device broke a rule.
   */
  collect(take: (bytes: Uint8Array) => boolean, later: () => void): void {
    if (this.#address < 0 || this.#collecting) return;
    const queue = this.#session.queue(this.index);
    let count = 0;
    let goOn = true;
    this.#collecting = true;
    try {
      while (goOn) {
        const slot = queue.take();
        if (slot < 0) break;
        this.#again[count++] = slot;
        const region = this.#region!;
        const at = this.#address - region.base + slot * this.#size;
        // A copy: the device could change its mind about what it wrote.
        goOn = take(region.bytes.slice(at, at + queue.usedLength));
      }
    } finally {
      this.#collecting = false;
    }
    // The reader may have closed the driver.
    if (this.#address < 0) return;
    for (let i = 0; i < count; i++) this.#post(this.#again[i]!);
    if (count > 0) this.#session.publish(this.index);
    if (!goOn || !queue.enableInterrupts() || this.#scheduled) return;
    this.#scheduled = true;
    setTimeout(() => {
      this.#scheduled = false;
      later();
    }, 0);
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    if (this.#address >= 0) this.#session.dma.free(this.#address);
    this.#address = -1;
  }
}

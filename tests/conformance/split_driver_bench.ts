/** A driver of a split queue, and a device that is written by hand. */
import { assert } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { type QueueConfig, VIRTQ_DESC_F_NEXT } from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";

/** Where the queue lies. */
export const CONFIG = { descriptorArea: 0x1000, driverArea: 0x2000, deviceArea: 0x3000 };

/** A descriptor as it stands in memory. */
export interface Descriptor {
  readonly address: number;
  readonly length: number;
  readonly flags: number;
  readonly next: number;
}

/** A driver's queue, and a device that is written by hand. */
export class Bench {
  readonly memory = GuestMemory.allocate(0x10000);
  readonly config: QueueConfig;
  readonly queue: DriverQueue;
  /** Where the device is in the available ring. */
  #seen = 0;

  constructor(features = 0n, size = 8) {
    this.config = { size, ...CONFIG };
    this.queue = openDriverQueue(this.memory, this.config, features);
  }

  descriptor(index: number, table: number = this.config.descriptorArea): Descriptor {
    const at = table + 16 * index;
    return {
      address: this.memory.readU64(at),
      length: this.memory.readU32(at + 8),
      flags: this.memory.readU16(at + 12),
      next: this.memory.readU16(at + 14),
    };
  }

  /** The chain from a head on, as a device would walk it, but at most a ring of it. */
  chain(head: number, table?: number): Descriptor[] {
    const chain: Descriptor[] = [];
    for (let index = head; chain.length <= this.config.size;) {
      const descriptor = this.descriptor(index, table);
      chain.push(descriptor);
      if ((descriptor.flags & VIRTQ_DESC_F_NEXT) === 0) break;
      index = descriptor.next;
    }
    return chain;
  }

  get availFlags(): number {
    return this.memory.readU16(this.config.driverArea);
  }

  get availIdx(): number {
    return this.memory.readU16(this.config.driverArea + 2);
  }

  get usedEvent(): number {
    return this.memory.readU16(this.config.driverArea + 4 + 2 * this.config.size);
  }

  set usedFlags(value: number) {
    this.memory.writeU16(this.config.deviceArea, value);
  }

  get usedFlags(): number {
    return this.memory.readU16(this.config.deviceArea);
  }

  get usedIdx(): number {
    return this.memory.readU16(this.config.deviceArea + 2);
  }

  set availEvent(value: number) {
    this.memory.writeU16(this.config.deviceArea + 4 + 8 * this.config.size, value & 0xffff);
  }

  /** Heads that were made available since. */
  heads(): number[] {
    const heads: number[] = [];
    for (; this.#seen !== this.availIdx; this.#seen = (this.#seen + 1) & 0xffff) {
      heads.push(
        this.memory.readU16(this.config.driverArea + 4 + 2 * (this.#seen % this.config.size)),
      );
    }
    return heads;
  }

  /** Uses a chain. */
  use(head: number, length = 0): void {
    const at = this.config.deviceArea + 4 + 8 * (this.usedIdx % this.config.size);
    this.memory.writeU32(at, head);
    this.memory.writeU32(at + 4, length);
    this.memory.writeU16(this.config.deviceArea + 2, (this.usedIdx + 1) & 0xffff);
  }

  /** Adds a buffer of one element and publishes. @returns Whether a kick is wanted. */
  send(token = 0): boolean {
    assert(this.queue.add(new BufferList().writable(0x8000, 4), token));
    return this.queue.publish();
  }

  /** Sends `count` buffers at once, uses and takes them. @returns Whether a kick was wanted. */
  batch(count: number): boolean {
    for (let i = 0; i < count; i++) this.queue.add(new BufferList().writable(0x8000, 4), i);
    const kick = this.queue.publish();
    for (const head of this.heads()) this.use(head);
    while (this.queue.take() >= 0);
    return kick;
  }
}

/** A buffer of so many elements. */
export function elements(readable: number, writable: number, length = 16): BufferList {
  const list = new BufferList();
  for (let i = 0; i < readable; i++) list.readable(0x8000 + 0x100 * i, length);
  for (let i = 0; i < writable; i++) list.writable(0xa000 + 0x100 * i, length);
  return list;
}

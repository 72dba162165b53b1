/**
 * A driver that writes rings by hand and believes in no rule: what tests use to play a broken or hostile one. Beside the real
 * driver queues on purpose, which refuse to break rules.
 */
import type { GuestMemory } from "@virtio/memory";
import {
  type QueueConfig,
  ringLayout,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_INDIRECT,
  VIRTQ_DESC_F_NEXT,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
} from "@virtio/vring";

/** The two ring formats: a name for tests, and the feature bit. */
export const FORMATS = [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const;

/** One descriptor, as wrong as it may be. */
export interface RawDescriptor {
  /** Guest-physical address. */
  readonly address: number;
  /** Bytes. */
  readonly length: number;
  /** VIRTQ_DESC_F_WRITE. */
  readonly write?: boolean;
  /** VIRTQ_DESC_F_INDIRECT. */
  readonly indirect?: boolean;
  /** VIRTQ_DESC_F_NEXT; set on all but the last of a chain unless given. */
  readonly more?: boolean;
  /** Split: the next field; the following descriptor unless given. */
  readonly next?: number;
  /** Flags to add. */
  readonly flags?: number;
}

/** A used buffer as the device published it. */
export interface RawUsed {
  /** Head index or buffer id. */
  readonly id: number;
  /** Bytes that the device says it wrote. */
  readonly length: number;
}

/** A ring written by hand. It keeps no record of what is free: descriptors are taken in a circle. */
export abstract class RawDriver {
  /** Where everything is. */
  readonly memory: GuestMemory;
  /** Where the queue is. */
  readonly config: QueueConfig;
  /** Next descriptor to write. */
  next = 0;

  constructor(memory: GuestMemory, config: QueueConfig) {
    this.memory = memory;
    this.config = config;
  }

  /** Entries. */
  get size(): number {
    return this.config.size;
  }

  /** Guest-physical address of a descriptor. */
  descriptorAddress(index: number): number {
    return this.config.descriptorArea + 16 * index;
  }

  /**
   * Writes a chain and makes it available.
   *
   * @returns Its head index or buffer id.
   */
  abstract send(descriptors: readonly RawDescriptor[], id?: number): number;

  /** What the device used since the last call. */
  abstract takeUsed(): RawUsed[];

  /** Asks for interrupts always or never, by flags. */
  abstract interrupts(on: boolean): void;

  /** Writes an indirect table of this format. */
  table(address: number, descriptors: readonly RawDescriptor[]): void {
    descriptors.forEach((descriptor, i) => {
      const last = i + 1 === descriptors.length;
      const more = descriptor.more ?? (!last && this.linked);
      this.#write(
        address + 16 * i,
        descriptor,
        this.linked ? { low: flagsOf(descriptor, more), high: descriptor.next ?? i + 1 } : {
          low: 0,
          high: flagsOf(descriptor, descriptor.more ?? false),
        },
      );
    });
  }

  /** Whether descriptors have a next field (split). */
  protected abstract readonly linked: boolean;

  /** Writes a descriptor but for its last four bytes. */
  protected writeBuffer(at: number, descriptor: RawDescriptor): void {
    this.memory.writeU32(at, descriptor.address % 2 ** 32);
    this.memory.writeU32(at + 4, Math.floor(descriptor.address / 2 ** 32));
    this.memory.writeU32(at + 8, descriptor.length);
  }

  #write(at: number, descriptor: RawDescriptor, words: { low: number; high: number }): void {
    this.writeBuffer(at, descriptor);
    this.memory.writeU16(at + 12, words.low);
    this.memory.writeU16(at + 14, words.high);
  }
}

/** The flags of a descriptor, but for those that mark it available. */
export function flagsOf(descriptor: RawDescriptor, more: boolean): number {
  return (more ? VIRTQ_DESC_F_NEXT : 0) | (descriptor.write ? VIRTQ_DESC_F_WRITE : 0) |
    (descriptor.indirect ? VIRTQ_DESC_F_INDIRECT : 0) | (descriptor.flags ?? 0);
}

/** The split format by hand. */
export class RawSplitDriver extends RawDriver {
  protected override readonly linked = true;
  /** The available index. */
  availIdx = 0;
  #usedIdx = 0;

  send(descriptors: readonly RawDescriptor[]): number {
    const head = this.next;
    descriptors.forEach((descriptor, i) => {
      const index = this.next;
      this.next = (index + 1) % this.size;
      const at = this.descriptorAddress(index);
      this.writeBuffer(at, descriptor);
      const more = descriptor.more ?? i + 1 < descriptors.length;
      this.memory.writeU16(at + 12, flagsOf(descriptor, more));
      this.memory.writeU16(at + 14, descriptor.next ?? this.next);
    });
    this.offer(head);
    return head;
  }

  /** Puts any head into the available ring. */
  offer(head: number): void {
    const slot = this.availIdx % this.size;
    this.memory.writeU16(this.config.driverArea + 4 + 2 * slot, head);
    this.setAvailIdx(this.availIdx + 1);
  }

  /** Moves the available index to any value. */
  setAvailIdx(value: number): void {
    this.availIdx = value & 0xffff;
    this.memory.writeU16(this.config.driverArea + 2, this.availIdx);
  }

  /** Goes on from a saved position. */
  seek(availIdx: number, usedIdx: number): void {
    this.availIdx = availIdx;
    this.#usedIdx = usedIdx;
    this.memory.writeU16(this.config.driverArea + 2, availIdx);
    this.memory.writeU16(this.config.deviceArea + 2, usedIdx);
  }

  takeUsed(): RawUsed[] {
    const used: RawUsed[] = [];
    const end = this.memory.readU16(this.config.deviceArea + 2);
    while (this.#usedIdx !== end && used.length < 0x10000) {
      const at = this.config.deviceArea + 4 + 8 * (this.#usedIdx % this.size);
      used.push({ id: this.memory.readU32(at), length: this.memory.readU32(at + 4) });
      this.#usedIdx = (this.#usedIdx + 1) & 0xffff;
    }
    return used;
  }

  interrupts(on: boolean): void {
    this.memory.writeU16(this.config.driverArea, on ? 0 : 1);
  }
}

/** The packed format by hand. */
export class RawPackedDriver extends RawDriver {
  protected override readonly linked = false;
  /** Wrap counter of `next`. */
  wrap = 1;
  #nextUsed = 0;
  #usedWrap = 1;
  #nextId = 0;
  readonly #slots = new Map<number, number>();

  send(descriptors: readonly RawDescriptor[], id?: number): number {
    if (id === undefined) {
      id = this.#nextId;
      this.#nextId = (id + 1) % 0x10000;
    }
    const head = this.descriptorAddress(this.next);
    let headFlags = 0;
    descriptors.forEach((descriptor, i) => {
      const at = this.descriptorAddress(this.next);
      this.writeBuffer(at, descriptor);
      this.memory.writeU16(at + 12, id);
      const more = descriptor.more ?? i + 1 < descriptors.length;
      const flags = flagsOf(descriptor, more) |
        (this.wrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED);
      if (i === 0) headFlags = flags;
      else this.memory.writeU16(at + 14, flags);
      if (++this.next === this.size) {
        this.next = 0;
        this.wrap ^= 1;
      }
    });
    this.memory.writeU16(head + 14, headFlags);
    this.#slots.set(id, descriptors.length);
    return id;
  }

  /** Goes on from a saved position. */
  seek(slot: number, wrap: number): void {
    this.next = this.#nextUsed = slot;
    this.wrap = this.#usedWrap = wrap;
  }

  takeUsed(): RawUsed[] {
    const used: RawUsed[] = [];
    for (;;) {
      const at = this.descriptorAddress(this.#nextUsed);
      const flags = this.memory.readU16(at + 14);
      const avail = (flags & VIRTQ_DESC_F_AVAIL) !== 0;
      if (avail !== ((flags & VIRTQ_DESC_F_USED) !== 0) || avail !== (this.#usedWrap === 1)) {
        return used;
      }
      const id = this.memory.readU16(at + 12);
      const wrote = (flags & VIRTQ_DESC_F_WRITE) !== 0;
      used.push({ id, length: wrote ? this.memory.readU32(at + 8) : 0 });
      this.#nextUsed += this.#slots.get(id) ?? 1;
      if (this.#nextUsed >= this.size) {
        this.#nextUsed -= this.size;
        this.#usedWrap ^= 1;
      }
      if (used.length > 2 * this.size) return used;
    }
  }

  interrupts(on: boolean): void {
    this.memory.writeU16(this.config.driverArea + 2, on ? 0 : 1);
  }
}

/** A ring by hand, in the format that the features say. Sets the areas to zero. */
export function rawDriver(
  memory: GuestMemory,
  config: QueueConfig,
  features: bigint,
): RawSplitDriver | RawPackedDriver {
  const packed = (features & VIRTIO_F_RING_PACKED) !== 0n;
  const layout = ringLayout(packed ? "packed" : "split", config.size);
  memory.fill(config.descriptorArea, layout.descriptorArea.size);
  memory.fill(config.driverArea, layout.driverArea.size);
  memory.fill(config.deviceArea, layout.deviceArea.size);
  return packed ? new RawPackedDriver(memory, config) : new RawSplitDriver(memory, config);
}

/** A queue's areas one after another from `base` on. */
export function placeQueue(size: number, base: number, format: "split" | "packed"): QueueConfig {
  const layout = ringLayout(format, size);
  const descriptorArea = base;
  const driverArea = Math.ceil((descriptorArea + layout.descriptorArea.size) / 64) * 64;
  const deviceArea = Math.ceil((driverArea + layout.driverArea.size) / 64) * 64;
  return { size, descriptorArea, driverArea, deviceArea };
}

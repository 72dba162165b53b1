/** What a front end said of one ring. */
import { closeDescriptor, EventSignal } from "@virtio/linux";
import type { GuestMemory } from "@virtio/memory";
import { type QueueConfig, type QueuePosition, VIRTQ_DESC_F_USED } from "@virtio/vring";
import { ProtocolError } from "../protocol/errors.ts";
import type { VringAddress } from "../protocol/payloads.ts";
import type { MemoryTable } from "./memory_table.ts";

/** Bit 15 of an index of a packed ring: its wrap counter. */
const WRAP = 0x8000;

/** The state of a ring, unchecked as far as only the ring itself can be wrong: `openQueue` checks that. */
export class Vring {
  /** Largest size. */
  readonly maxSize: number;
  /** Entries that the front end chose. */
  size: number;
  /** Where it is; null before SET_VRING_ADDR. */
  address: VringAddress | null = null;
  /** What SET_VRING_BASE said, until the ring goes live; null if nothing. */
  base: number | null = null;
  /** Where it is to go on after it was live. */
  position: QueuePosition | null = null;
  /** SET_VRING_KICK came, or a kick in band. */
  started = false;
  /** SET_VRING_ENABLE. */
  enabled = false;
  /** The device has it. */
  live = false;
  /** There are no kicks. */
  polled = false;
  #kick = -1;
  #call = -1;
  #error = -1;

  /** @param maxSize Largest number of entries. */
  constructor(maxSize: number) {
    this.maxSize = maxSize;
    this.size = maxSize;
  }

  /** Descriptor of kicks, or -1. Set, it is the ring's own, and the one before is closed. */
  get kick(): number {
    return this.#kick;
  }

  set kick(descriptor: number) {
    if (this.#kick >= 0) closeDescriptor(this.#kick);
    this.#kick = descriptor;
  }

  /** Descriptor of interrupts, or -1, likewise. */
  get call(): number {
    return this.#call;
  }

  set call(descriptor: number) {
    if (this.#call >= 0) closeDescriptor(this.#call);
    this.#call = descriptor;
  }

  /** Descriptor of errors, or -1, likewise. */
  get error(): number {
    return this.#error;
  }

  set error(descriptor: number) {
    if (this.#error >= 0) closeDescriptor(this.#error);
    this.#error = descriptor;
  }

  /** Tells the front end of an error. @returns Whether there is a descriptor for it. */
  signalError(): boolean {
    if (this.#error < 0) return false;
    const signal = new EventSignal(this.#error);
    signal.signal();
    signal.close();
    return true;
  }

  /** Closes the descriptors. */
  close(): void {
    this.kick = -1;
    this.call = -1;
    this.error = -1;
  }

  /** As it was at first, but for the descriptors of interrupts and errors. */
  reset(): void {
    this.size = this.maxSize;
    this.address = null;
    this.base = null;
    this.position = null;
    this.started = false;
    this.enabled = false;
    this.polled = false;
    this.kick = -1;
  }

  /**
   * What `openQueue` takes.
   *
   * @throws {ProtocolError} If an address is not in guest memory.
   */
  config(table: MemoryTable, packed: boolean): QueueConfig {
    const { descriptors, available, used } = this.address!;
    const config = {
      size: this.size,
      descriptorArea: translate(table, descriptors, "descriptors"),
      driverArea: translate(table, available, "available ring"),
      deviceArea: translate(table, used, "used ring"),
    };
    const position = this.position ?? positionOf(this.base, table.memory!, config, packed);
    return { ...config, position };
  }

  /** What GET_VRING_BASE answers. */
  baseNow(packed: boolean): number {
    const { position } = this;
    if (position === null) return this.base ?? (packed ? WRAP | WRAP << 16 : 0) >>> 0;
    if (!packed) return position.nextAvail;
    const avail = position.nextAvail | (position.availWrap * WRAP);
    const used = position.nextUsed | (position.usedWrap * WRAP);
    return (avail | used << 16) >>> 0;
  }
}

function translate(table: MemoryTable, address: bigint, name: string): number {
  const guest = table.translate(address);
  if (guest < 0) {
    throw new ProtocolError(
      `The ${name} of a ring at 0x${address.toString(16)} are not in the guest's memory`,
    );
  }
  return guest;
}

/** Where a ring begins that was given an index. */
function positionOf(
  base: number | null,
  memory: GuestMemory,
  { descriptorArea, deviceArea }: QueueConfig,
  packed: boolean,
): QueuePosition {
  if (!packed) {
    // Above what the ring has, the device would be refused by `openQueue`; the used index is where the driver saw it last.
    const region = memory.lookup(deviceArea, 4);
    const nextUsed = region === null ? 0 : memory.readU16(deviceArea + 2);
    return { nextAvail: (base ?? 0) & 0xffff, nextUsed, availWrap: 0, usedWrap: 0 };
  }
  let avail = base === null ? WRAP : base & 0xffff;
  // User Mode Linux says 0 for a new ring, which is slot 0 in the second round and every other one from there: but then the
  // slot was used in the round before, or is available in this one.
  if (base === 0 && !wasUsed(memory, descriptorArea)) avail = WRAP;
  // Some front ends give one half only.
  const used = base === null || base >>> 16 === 0 ? avail : base >>> 16;
  return {
    nextAvail: avail & ~WRAP,
    nextUsed: used & ~WRAP,
    availWrap: avail >>> 15,
    usedWrap: used >>> 15,
  };
}

function wasUsed(memory: GuestMemory, descriptorArea: number): boolean {
  if (memory.lookup(descriptorArea, 16) === null) return false;
  return (memory.readU16(descriptorArea + 14) & VIRTQ_DESC_F_USED) !== 0;
}

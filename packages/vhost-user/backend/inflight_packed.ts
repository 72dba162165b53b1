/**
 * Notes of requests in flight of a packed ring: copies of their descriptors, since used ones are written over available ones
 * (virtio 1.4, 2.8), in a table with a list of free entries, and how far the ring was before and after what was published last.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import {
  type Chain,
  type Queue,
  type QueueConfig,
  type QueuePosition,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
} from "@virtio/vring";
import { ProtocolError } from "../protocol/errors.ts";
import type { Inflight, InflightPlace } from "./inflight.ts";

/** Offsets of the header, then of an entry. */
const At = {
  version: 8,
  entries: 10,
  freeHead: 12,
  oldFreeHead: 14,
  usedIdx: 16,
  oldUsedIdx: 18,
  usedWrap: 20,
  oldUsedWrap: 21,
  first: 32,
} as const;
const Entry = { next: 2, last: 4, num: 6, counter: 8, id: 16, flags: 18, length: 20, address: 24 };
const ENTRY_SIZE = 32;
const VERSION = 1;
const HIGH = 0x1_0000_0000;
const STATE = VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED;

/** Flags of a descriptor that is available. */
const availableBy = (wrap: number): number => wrap !== 0 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED;

/** See `Inflight`. */
export class PackedInflight implements Inflight {
  readonly #entries: number;
  readonly #u8: Uint8Array;
  readonly #view: DataView;
  #counter = 1;
  /** The ring, and where the next chain lies. */
  #ring: MemoryRegion | null = null;
  #ringAt = 0;
  #size = 0;
  #slot = 0;
  /** First entries of those that were in flight when the process before was killed, in their order, and how many came again. */
  #recovered: readonly number[] = [];
  #again = 0;
  /** Entries of chains that were used and not published, and the slots that they took. */
  readonly #batch: Uint16Array;
  #count = 0;
  #slots = 0;

  /** @param place Its notes may be of anybody. */
  constructor({ buffer, offset, entries }: InflightPlace) {
    const length = At.first + ENTRY_SIZE * entries;
    this.#entries = entries;
    this.#u8 = new Uint8Array(buffer, offset, length);
    this.#view = new DataView(buffer, offset, length);
    this.#batch = new Uint16Array(entries);
  }

  #open(memory: GuestMemory, { size, descriptorArea }: QueueConfig): boolean {
    if (size > this.#entries) {
      throw new ProtocolError(`A queue of ${size} has notes for ${this.#entries} entries`);
    }
    this.#size = size;
    this.#ring = memory.lookupSegment(descriptorArea, 16 * size);
    if (this.#ring === null) return false;
    this.#ringAt = descriptorArea - this.#ring.base;
    return true;
  }

  #get(at: number): number {
    return this.#view.getUint16(at, true);
  }

  #set(at: number, value: number): void {
    this.#view.setUint16(at, value, true);
  }

  /** See `Inflight.recover`. */
  recover(memory: GuestMemory, config: QueueConfig): QueuePosition | null {
    if (!this.#open(memory, config) || this.#get(At.version) !== VERSION) return null;
    const slot = this.#get(At.oldUsedIdx);
    if (slot >= config.size) throw new ProtocolError(`The notes of a queue say slot ${slot}`);
    this.#settle();
    const chains = this.#outstanding();
    const position = this.#get(At.usedIdx);
    if (position >= config.size) {
      throw new ProtocolError(`The notes of a queue say slot ${position}`);
    }
    const wrap = this.#u8[At.usedWrap]! & 1;
    this.#restore(memory, config, chains, position, wrap);
    this.#recovered = chains.map(([head]) => head!);
    this.#slot = position;
    return { nextAvail: position, nextUsed: position, availWrap: wrap, usedWrap: wrap };
  }

  /** Completes what was being published, or takes it back: the driver sees all of a batch with its first descriptor. */
  #settle(): void {
    const before = this.#get(At.oldUsedIdx);
    const wrap = this.#u8[At.oldUsedWrap]! & 1;
    const begun = before !== this.#get(At.usedIdx) || wrap !== (this.#u8[At.usedWrap]! & 1);
    const flags = this.#ring!.view.getUint16(this.#ringAt + 16 * before + 14, true) & STATE;
    if (begun && flags !== availableBy(wrap)) {
      this.#set(At.oldFreeHead, this.#get(At.freeHead));
      this.#set(At.oldUsedIdx, this.#get(At.usedIdx));
      this.#u8[At.oldUsedWrap] = this.#u8[At.usedWrap]!;
    }
    this.#set(At.freeHead, this.#get(At.oldFreeHead));
    this.#set(At.usedIdx, this.#get(At.oldUsedIdx));
    this.#u8[At.usedWrap] = this.#u8[At.oldUsedWrap]!;
    let free = this.#get(At.freeHead);
    for (let i = 0; i < this.#entries && free < this.#entries; i++) {
      const at = At.first + ENTRY_SIZE * free;
      this.#u8[at] = 0;
      free = this.#get(at + Entry.next);
    }
  }

  /** Entries of the chains in flight, in the order in which they came. */
  #outstanding(): number[][] {
    const heads: { head: number; counter: number }[] = [];
    for (let head = 0; head < this.#entries; head++) {
      const at = At.first + ENTRY_SIZE * head;
      if (this.#u8[at] !== 1) continue;
      const counter = this.#view.getUint32(at + Entry.counter, true) +
        this.#view.getUint32(at + Entry.counter + 4, true) * HIGH;
      heads.push({ head, counter });
      this.#counter = Math.max(this.#counter, counter + 1);
    }
    heads.sort((a, b) => a.counter - b.counter);
    let total = 0;
    return heads.map(({ head }) => {
      const count = this.#get(At.first + ENTRY_SIZE * head + Entry.num);
      total += count;
      if (count === 0 || total > this.#size) {
        throw new ProtocolError(`${total} descriptors are noted as in flight, of ${this.#size}`);
      }
      const entries: number[] = [];
      for (let entry = head; entries.length < count;) {
        if (entry >= this.#entries) throw new ProtocolError("The notes of a chain are broken off");
        entries.push(entry);
        entry = this.#get(At.first + ENTRY_SIZE * entry + Entry.next);
      }
      return entries;
    });
  }

  #restore(
    memory: GuestMemory,
    { descriptorArea, size }: QueueConfig,
    chains: readonly number[][],
    slot: number,
    wrap: number,
  ): void {
    const view = this.#view;
    for (const entry of chains.flat()) {
      const from = At.first + ENTRY_SIZE * entry;
      const to = descriptorArea + 16 * slot;
      memory.writeU32(to, view.getUint32(from + Entry.address, true));
      memory.writeU32(to + 4, view.getUint32(from + Entry.address + 4, true));
      memory.writeU32(to + 8, view.getUint32(from + Entry.length, true));
      const flags = (this.#get(from + Entry.flags) & ~STATE) | availableBy(wrap);
      memory.writeU32(to + 12, (this.#get(from + Entry.id) | flags << 16) >>> 0);
      if (++slot === size) {
        slot = 0;
        wrap ^= 1;
      }
    }
  }

  /** See `Inflight.begin`. */
  begin(memory: GuestMemory, config: QueueConfig): void {
    this.#open(memory, config);
    this.#u8.fill(0);
    for (let i = 0; i < this.#entries; i++) {
      this.#set(At.first + ENTRY_SIZE * i + Entry.next, i + 1);
    }
    const { nextUsed, usedWrap } = config.position!;
    this.#set(At.entries, this.#entries);
    this.#set(At.usedIdx, nextUsed);
    this.#set(At.oldUsedIdx, nextUsed);
    this.#u8[At.usedWrap] = usedWrap;
    this.#u8[At.oldUsedWrap] = usedWrap;
    this.#slot = config.position!.nextAvail;
    Atomics.store(this.#u8, At.version, VERSION);
  }

  /** See `Inflight.popped`. */
  popped(chain: Chain): void {
    const { slots } = chain;
    if (this.#again < this.#recovered.length) {
      // It is noted already: it was just read from there.
      chain.held = this.#recovered[this.#again++]!;
    } else {
      this.#note(chain, slots);
    }
    this.#slot += slots;
    if (this.#slot >= this.#size) this.#slot -= this.#size;
  }

  #note(chain: Chain, slots: number): void {
    const view = this.#view;
    const ring = this.#ring!.view;
    const head = this.#get(At.freeHead);
    let free = head;
    let last = head;
    for (let i = 0; i < slots; i++) {
      const slot = this.#slot + i;
      const from = this.#ringAt + 16 * (slot < this.#size ? slot : slot - this.#size);
      const to = At.first + ENTRY_SIZE * free;
      view.setUint32(to + Entry.address, ring.getUint32(from, true), true);
      view.setUint32(to + Entry.address + 4, ring.getUint32(from + 4, true), true);
      view.setUint32(to + Entry.length, ring.getUint32(from + 8, true), true);
      view.setUint32(to + Entry.id, ring.getUint32(from + 12, true), true);
      last = free;
      free = this.#get(to + Entry.next);
    }
    const at = At.first + ENTRY_SIZE * head;
    const counter = this.#counter++;
    this.#set(at + Entry.last, last);
    this.#set(at + Entry.num, slots);
    view.setUint32(at + Entry.counter, counter >>> 0, true);
    view.setUint32(at + Entry.counter + 4, counter / HIGH, true);
    // First in flight, then not free any more: the list is walked only from its head, so in between both is true of it, and
    // the chain, still available in the ring, is taken again.
    Atomics.store(this.#u8, at, 1);
    this.#set(At.freeHead, free);
    this.#set(At.oldFreeHead, free);
    // Nobody else uses that field: it is for IN_ORDER, with which there are no notes.
    chain.held = head;
  }

  /** See `Inflight.undone`. */
  undone(chain: Chain): void {
    const head = chain.held;
    this.#slot -= chain.slots;
    if (this.#slot < 0) this.#slot += this.#size;
    if (this.#again > 0 && this.#recovered[this.#again - 1] === head) {
      this.#again--;
      return;
    }
    const at = At.first + ENTRY_SIZE * head;
    Atomics.store(this.#u8, at, 0);
    this.#set(At.freeHead, head);
    this.#set(At.oldFreeHead, head);
  }

  /** See `Inflight.push`. */
  push(queue: Queue, chain: Chain, written: number): void {
    const { slots, held } = chain;
    queue.push(chain, written);
    this.#batch[this.#count++] = held;
    this.#slots += slots;
  }

  /** See `Inflight.flush`. */
  flush(queue: Queue): boolean {
    const count = this.#count;
    if (count === 0) return queue.flush();
    // Entries are freed only here: one that was free earlier could be overwritten before its chain was published.
    let free = this.#get(At.freeHead);
    for (let i = 0; i < count; i++) {
      const head = this.#batch[i]!;
      const last = this.#get(At.first + ENTRY_SIZE * head + Entry.last);
      this.#set(At.first + ENTRY_SIZE * last + Entry.next, free);
      free = head;
    }
    this.#set(At.freeHead, free);
    let used = this.#get(At.usedIdx) + this.#slots;
    if (used >= this.#size) {
      used -= this.#size;
      this.#u8[At.usedWrap] = this.#u8[At.usedWrap]! ^ 1;
    }
    this.#set(At.usedIdx, used);
    this.#count = 0;
    this.#slots = 0;
    const interrupt = queue.flush();
    for (let i = 0; i < count; i++) {
      Atomics.store(this.#u8, At.first + ENTRY_SIZE * this.#batch[i]!, 0);
    }
    this.#set(At.oldFreeHead, free);
    this.#set(At.oldUsedIdx, used);
    this.#u8[At.oldUsedWrap] = this.#u8[At.usedWrap]!;
    return interrupt;
  }

  /** See `Inflight.end`. */
  end(): void {
    Atomics.store(this.#u8, At.version, 0);
  }
}

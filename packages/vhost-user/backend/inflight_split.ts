/** Notes of requests in flight of a split ring: a flag and a number for each head, and a list of the last that were used. */
import type { GuestMemory } from "@virtio/memory";
import type { Chain, Queue, QueueConfig, QueuePosition } from "@virtio/vring";
import { ProtocolError } from "../protocol/errors.ts";
import type { Inflight, InflightPlace } from "./inflight.ts";

/** Offsets of the header, then of an entry. */
const At = { features: 0, version: 8, entries: 10, lastBatch: 12, usedIdx: 14, first: 16 } as const;
const Entry = { inflight: 0, next: 6, counter: 8, size: 16 } as const;
const VERSION = 1;
const HIGH = 0x1_0000_0000;

/** See `Inflight`. */
export class SplitInflight implements Inflight {
  readonly #entries: number;
  readonly #u8: Uint8Array;
  readonly #u16: Uint16Array;
  readonly #view: DataView;
  /** Counts chains, so that they are done again in their order. */
  #counter = 1;
  #usedIdx = 0;
  /** How many chains were in flight when the process before was killed, and how many were taken since; see `undone`. */
  #recovered = 0;
  #taken = 0;
  /** Heads that were used and not published. */
  readonly #batch: Uint16Array;
  #count = 0;

  /** @param place Its notes may be of anybody. */
  constructor({ buffer, offset, entries }: InflightPlace) {
    const length = At.first + Entry.size * entries;
    this.#entries = entries;
    this.#u8 = new Uint8Array(buffer, offset, length);
    this.#u16 = new Uint16Array(buffer, offset, length / 2);
    this.#view = new DataView(buffer, offset, length);
    this.#batch = new Uint16Array(entries);
  }

  #checkSize({ size }: QueueConfig): void {
    if (size > this.#entries) {
      throw new ProtocolError(`A queue of ${size} has notes for ${this.#entries} entries`);
    }
  }

  /** See `Inflight.recover`. */
  recover(memory: GuestMemory, config: QueueConfig): QueuePosition | null {
    this.#checkSize(config);
    const view = this.#view;
    if (view.getUint16(At.version, true) !== VERSION) return null;
    // Looked up with every check when the queue is opened: until then only what is really there is touched.
    if (memory.lookup(config.deviceArea, 4) === null) return null;
    const { size } = config;
    const used = memory.readU16(config.deviceArea + 2);
    this.#forgetPublished(used);
    const heads: { head: number; counter: number }[] = [];
    for (let head = 0; head < size; head++) {
      const at = At.first + Entry.size * head;
      if (this.#u8[at] !== 1) continue;
      const counter = view.getUint32(at + Entry.counter, true) +
        view.getUint32(at + Entry.counter + 4, true) * HIGH;
      heads.push({ head, counter });
      this.#counter = Math.max(this.#counter, counter + 1);
    }
    heads.sort((a, b) => a.counter - b.counter);
    const driverArea = memory.lookup(config.driverArea, 4 + 2 * size);
    const available = driverArea === null ? 0 : memory.readU16(config.driverArea + 2);
    const outstanding = (available - used) & 0xffff;
    if (outstanding > size || heads.length > outstanding) {
      throw new ProtocolError(
        `${heads.length} chains are noted as in flight, but ${outstanding} are outstanding`,
      );
    }
    heads.forEach(({ head }, i) => {
      memory.writeU16(config.driverArea + 4 + 2 * ((used + i) & (size - 1)), head);
    });
    this.#usedIdx = used;
    this.#recovered = heads.length;
    return { nextAvail: used, nextUsed: used, availWrap: 0, usedWrap: 0 };
  }

  /** What was published last may still be noted. */
  #forgetPublished(used: number): void {
    const view = this.#view;
    const published = (used - view.getUint16(At.usedIdx, true)) & 0xffff;
    let head = view.getUint16(At.lastBatch, true);
    for (let i = 0; i < published && i < this.#entries && head < this.#entries; i++) {
      const at = At.first + Entry.size * head;
      this.#u8[at] = 0;
      head = view.getUint16(at + Entry.next, true);
    }
    Atomics.store(this.#u16, At.usedIdx / 2, used);
  }

  /** See `Inflight.begin`. */
  begin(memory: GuestMemory, config: QueueConfig): void {
    this.#checkSize(config);
    this.#u8.fill(0);
    this.#usedIdx = memory.readU16(config.deviceArea + 2);
    this.#view.setUint16(At.entries, this.#entries, true);
    this.#view.setUint16(At.usedIdx, this.#usedIdx, true);
    Atomics.store(this.#u16, At.version / 2, VERSION);
  }

  /** See `Inflight.popped`. */
  popped(chain: Chain): void {
    // It is noted already, with its place among those of the earlier process.
    if (++this.#taken <= this.#recovered) return;
    const at = At.first + Entry.size * chain.id;
    const counter = this.#counter++;
    this.#view.setUint32(at + Entry.counter, counter >>> 0, true);
    this.#view.setUint32(at + Entry.counter + 4, counter / HIGH, true);
    Atomics.store(this.#u8, at, 1);
  }

  /** See `Inflight.undone`. */
  undone(chain: Chain): void {
    // What is in flight from an earlier process stays so: only the notes tell where in the ring new chains begin.
    if (this.#taken-- <= this.#recovered) return;
    Atomics.store(this.#u8, At.first + Entry.size * chain.id, 0);
  }

  /** See `Inflight.push`. */
  push(queue: Queue, chain: Chain, written: number): void {
    const head = chain.id;
    queue.push(chain, written);
    const view = this.#view;
    view.setUint16(
      At.first + Entry.size * head + Entry.next,
      view.getUint16(At.lastBatch, true),
      true,
    );
    Atomics.store(this.#u16, At.lastBatch / 2, head);
    this.#batch[this.#count++] = head;
  }

  /** See `Inflight.flush`. */
  flush(queue: Queue): boolean {
    const count = this.#count;
    const interrupt = queue.flush();
    if (count === 0) return interrupt;
    this.#count = 0;
    for (let i = 0; i < count; i++) this.#u8[At.first + Entry.size * this.#batch[i]!] = 0;
    this.#usedIdx = (this.#usedIdx + count) & 0xffff;
    Atomics.store(this.#u16, At.usedIdx / 2, this.#usedIdx);
    return interrupt;
  }

  /** See `Inflight.end`. */
  end(): void {
    Atomics.store(this.#u16, At.version / 2, 0);
  }
}

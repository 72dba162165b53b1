import { GuestMemory, type MemoryRegion } from "@virtio/memory";
import { Frame } from "./frame.ts";

/** Bytes before each frame: its length, and what a header says about it. */
const RECORD_SIZE = 16;

/**
 * Frames that wait for a driver's buffers, in their order, in a ring of bytes. The memory is taken when the first frame waits;
 * after that nothing is allocated.
 */
export class WaitingFrames {
  /** How many wait. */
  count = 0;
  /** Bytes that they take. */
  bytes = 0;
  readonly #maxFrames: number;
  readonly #maxBytes: number;
  #ring: MemoryRegion | null = null;
  /** Where the oldest starts. */
  #start = 0;
  #oldest: Frame | null = null;
  /** Whether `#oldest` holds the oldest. */
  #loaded = false;
  readonly #record: Uint8Array = new Uint8Array(RECORD_SIZE);
  readonly #view: DataView = new DataView(this.#record.buffer);

  /** @param maxBytes Bytes at most, with 16 for each frame. */
  constructor(maxFrames: number, maxBytes: number) {
    this.#maxFrames = maxFrames;
    this.#maxBytes = maxBytes;
  }

  /**
   * Adds a copy of a frame.
   *
   * @returns False if there is no room.
   */
  push(frame: Frame): boolean {
    const { length } = frame;
    const size = RECORD_SIZE + length;
    if (this.count >= this.#maxFrames || this.bytes + size > this.#maxBytes) return false;
    this.#ring ??= GuestMemory.allocate(Math.ceil(this.#maxBytes / 8) * 8).regions[0]!;
    frame.hold();
    const view = this.#view;
    view.setUint32(0, length);
    view.setUint8(4, frame.flags);
    view.setUint8(5, frame.gsoType);
    view.setUint16(6, frame.headerLength);
    view.setUint16(8, frame.gsoSize);
    view.setUint16(10, frame.csumStart);
    view.setUint16(12, frame.csumOffset);
    const at = this.#start + this.bytes;
    this.#write(this.#ring, at, this.#record, RECORD_SIZE);
    this.#write(this.#ring, at + RECORD_SIZE, frame.buffer, length);
    this.bytes += size;
    this.count++;
    return true;
  }

  /** The oldest; valid until `shift`. Null if none waits. */
  peek(): Frame | null {
    if (this.count === 0) return null;
    const frame = this.#oldest ??= new Frame();
    if (this.#loaded) return frame;
    const ring = this.#ring!;
    const view = this.#view;
    this.#read(ring, this.#start, this.#record, RECORD_SIZE);
    const length = view.getUint32(0);
    this.#read(ring, this.#start + RECORD_SIZE, frame.buffer, length);
    frame.setLength(length);
    frame.flags = view.getUint8(4);
    frame.gsoType = view.getUint8(5);
    frame.headerLength = view.getUint16(6);
    frame.gsoSize = view.getUint16(8);
    frame.csumStart = view.getUint16(10);
    frame.csumOffset = view.getUint16(12);
    this.#loaded = true;
    return frame;
  }

  /** Forgets the oldest, which `peek` gave. */
  shift(): void {
    if (!this.#loaded) return;
    const size = RECORD_SIZE + this.#oldest!.length;
    this.#loaded = false;
    this.count--;
    this.bytes -= size;
    this.#start = (this.#start + size) % this.#maxBytes;
  }

  /** Forgets all. @returns How many. */
  clear(): number {
    const { count } = this;
    this.count = 0;
    this.bytes = 0;
    this.#start = 0;
    this.#loaded = false;
    return count;
  }

  #write(ring: MemoryRegion, place: number, from: Uint8Array, length: number): void {
    const at = place % this.#maxBytes;
    const first = Math.min(length, this.#maxBytes - at);
    ring.copyFrom(at, from, 0, first);
    if (first < length) ring.copyFrom(0, from, first, length - first);
  }

  #read(ring: MemoryRegion, place: number, into: Uint8Array, length: number): void {
    const at = place % this.#maxBytes;
    const first = Math.min(length, this.#maxBytes - at);
    ring.copyTo(at, into, 0, first);
    if (first < length) ring.copyTo(0, into, first, length - first);
  }
}

/**
 * Frames in a stream of bytes as QEMU's `-netdev stream` has them: four bytes, big endian, with the length, then the frame.
 * No sockets here.
 *
 * This module is browser compatible.
 */
import { allocateBytes, GuestMemory, type MemoryRegion } from "@virtio/memory";
import { ETHERNET_HEADER_SIZE, MAX_FRAME_SIZE } from "../constants.ts";
import { Frame } from "../frame.ts";

/** Bytes of a length. */
export const LENGTH_SIZE = 4;

/** Cuts a stream into frames, however it arrives. */
export class StreamSplitter {
  /** Frames that were found. */
  frames = 0;
  /** Bytes of those. */
  bytes = 0;
  /** Frames that were passed over, because they are shorter than an Ethernet header. */
  short = 0;
  readonly #frame: Frame = new Frame();
  readonly #onFrame: (frame: Frame) => void;
  /** Bytes of the length that were read, and what they say until now. */
  #lengthRead = 0;
  #length = 0;
  /** Bytes of the frame that were read. */
  #read = 0;

  /** @param onFrame Gets each frame; it is valid during the call. */
  constructor(onFrame: (frame: Frame) => void) {
    this.#onFrame = onFrame;
  }

  /** Whether the stream may end here: not within a frame. */
  get complete(): boolean {
    return this.#lengthRead === 0;
  }

  /**
   * Takes the next bytes of the stream.
   *
   * @param chunk Where they are.
   * @param count How many, from the first of `chunk` on.
   * @returns Null, or a length that no frame has: nothing behind it can be understood.
   */
  push(chunk: Uint8Array, count: number): number | null {
    let at = 0;
    while (at < count) {
      if (this.#lengthRead < LENGTH_SIZE) {
        this.#length = this.#length * 256 + chunk[at++]!;
        if (++this.#lengthRead < LENGTH_SIZE) continue;
        if (this.#length > MAX_FRAME_SIZE) return this.#length;
      }
      const take = Math.min(this.#length - this.#read, count - at);
      if (take > 0) this.#frame.buffer.set(chunk.subarray(at, at + take), this.#read);
      at += take;
      this.#read += take;
      if (this.#read === this.#length) this.#finish();
    }
    return null;
  }

  #finish(): void {
    const length = this.#length;
    this.#lengthRead = 0;
    this.#length = 0;
    this.#read = 0;
    if (length < ETHERNET_HEADER_SIZE) {
      this.short++;
      return;
    }
    this.frames++;
    this.bytes += length;
    this.#frame.plain();
    this.#frame.setLength(length);
    this.#onFrame(this.#frame);
  }
}

/** Collects frames with their lengths, up to a bound, to be written together. Nothing is allocated for a frame. */
export class StreamJoiner {
  /** Bytes that were collected. */
  length = 0;
  readonly #region: MemoryRegion;
  readonly #size: number;

  /** @param size Bytes at most. */
  constructor(size: number) {
    this.#size = size;
    this.#region = new GuestMemory([{ base: 0, buffer: allocateBytes(size).buffer }]).regions[0]!;
  }

  /** What was collected: a view of it. */
  get bytes(): Uint8Array {
    return this.#region.bytes.subarray(0, this.length);
  }

  /** Adds a frame, which needs nothing done. @returns Whether there was room. */
  push(frame: Frame): boolean {
    const { length } = frame;
    const at = this.length;
    if (at + LENGTH_SIZE + length > this.#size) return false;
    frame.hold();
    this.#region.view.setUint32(at, length);
    this.#region.copyFrom(at + LENGTH_SIZE, frame.buffer, 0, length);
    this.length = at + LENGTH_SIZE + length;
    return true;
  }
}

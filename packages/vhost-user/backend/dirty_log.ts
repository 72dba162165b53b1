/** The log of what a device writes, for a guest that moves to another machine while it runs. */
import { MemoryFile, SharedMapping } from "@virtio/linux";
import { DirtyBitmap, type WriteTracker } from "@virtio/memory";
import { ProtocolError } from "../protocol/errors.ts";
import type { LogArea } from "../protocol/payloads.ts";

/** Bytes of a log at most: what stands for 64 TiB of guest memory. */
const MOST_BYTES = 2 ** 31;
const PAGE = 4096;

/** A used ring that counts as another place in the log. */
export interface LogShift {
  /** Guest-physical address of the used ring. */
  readonly from: number;
  /** Its length. */
  readonly length: number;
  /** What its first byte counts as. */
  readonly to: number;
}

/** A log as it crosses to another thread. */
export interface DirtyLogPlace {
  /** The log. */
  readonly buffer: SharedArrayBuffer;
  /** Its bytes; what lies behind is of no meaning. */
  readonly size: number;
  /** Rings that are logged elsewhere. */
  readonly shifts: readonly LogShift[];
}

/**
 * Maps a log that a front end gave.
 *
 * @throws {ProtocolError} If it is not in its file, or cannot be one.
 */
export function mapLog({ size, offset }: LogArea, descriptor: number): SharedMapping {
  const bytes = Number(size);
  const start = Number(offset);
  if (!(bytes > 0 && bytes <= MOST_BYTES) || !(Number.isSafeInteger(start + bytes))) {
    throw new ProtocolError(`A log cannot have ${size} bytes from ${offset} on`);
  }
  if (start % PAGE !== 0) throw new ProtocolError(`A log cannot begin at ${offset}: it is no page`);
  const file = new MemoryFile(descriptor);
  if (!(file.size >= start + bytes)) {
    throw new ProtocolError(`A log of ${size} bytes is not in a file of ${file.size}`);
  }
  try {
    const mapping = new SharedMapping(descriptor, start, bytes);
    if (mapping.byteOffset === 0) return mapping;
    mapping.unmap();
    throw new Error("its pages are huge ones");
  } catch (error) {
    throw new ProtocolError(`A log cannot be mapped: ${(error as Error).message}`);
  }
}

/** Marks pages in a log. What it has no bit for, by mistake or by malice of the front end, is left out. */
export class DirtyLog implements WriteTracker {
  readonly #bitmap: DirtyBitmap;
  /** Bytes of guest memory that it has bits for. */
  readonly #end: number;
  readonly #shifts: readonly LogShift[];

  /** @param place Mapped. */
  constructor({ buffer, size, shifts }: DirtyLogPlace) {
    this.#bitmap = new DirtyBitmap(buffer);
    this.#end = size * 8 * PAGE;
    this.#shifts = shifts;
  }

  /** See `WriteTracker.mark`. */
  mark(address: number, length: number): void {
    for (let i = 0; i < this.#shifts.length; i++) {
      const { from, length: size, to } = this.#shifts[i]!;
      if (address >= from && address < from + size) address += to - from;
    }
    const room = this.#end - address;
    if (address >= 0 && room > 0) this.#bitmap.mark(address, length < room ? length : room);
  }
}

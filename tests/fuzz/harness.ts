/** What fuzz targets share: guarded memory, and what a target is. */
import { assert } from "@std/assert";
import type fc from "fast-check";
import { GuestMemory, type RegionSource } from "@virtio/memory";

/** Something to fuzz. A case is plain JSON, so that it can be written to a file and read back. */
export interface Target<T> {
  /** Its name on the command line. */
  readonly name: string;
  /** Makes cases: mostly valid, with rare broken rules. */
  readonly cases: fc.Arbitrary<T>;
  /**
   * Runs one case.
   *
   * @throws If something that must hold does not.
   */
  run(test: T): void | Promise<void>;
}

const GUARD = 64;
const GUARD_BYTE = 0x6b;

/** Guest memory whose regions lie between guards, so that a write beside them is seen. */
export class GuardedMemory {
  /** The memory. */
  readonly memory: GuestMemory;
  readonly #buffers: Uint8Array[];
  #before: Uint8Array[] = [];

  /** @param regions Base and size of each. */
  constructor(regions: readonly (readonly [number, number])[]) {
    this.#buffers = regions.map(([, size]) => {
      const bytes = new Uint8Array(new SharedArrayBuffer(size + 2 * GUARD));
      bytes.fill(GUARD_BYTE, 0, GUARD);
      bytes.fill(GUARD_BYTE, GUARD + size);
      return bytes;
    });
    const sources: RegionSource[] = regions.map(([base, size], i) => ({
      base,
      size,
      buffer: this.#buffers[i]!.buffer,
      byteOffset: GUARD,
    }));
    this.memory = new GuestMemory(sources);
  }

  /** Remembers what memory holds. */
  remember(): void {
    this.#before = this.memory.regions.map(({ bytes }) => bytes.slice());
  }

  /** Throws if a byte has changed since `remember`, but for those in these ranges of address and length. */
  checkUnchanged(except: readonly (readonly [number, number])[]): void {
    this.memory.regions.forEach(({ bytes, i32, base }, i) => {
      const old = this.#before[i]!;
      const oldWords = new Int32Array(old.buffer);
      for (let at = 0; at < bytes.length; at++) {
        // Four at a time, mostly.
        while (at % 4 === 0 && at < bytes.length && i32[at / 4] === oldWords[at / 4]) at += 4;
        if (at >= bytes.length || bytes[at] === old[at]) continue;
        const address = base + at;
        const fine = except.some(([from, length]) => address >= from && address < from + length);
        assert(fine, `the byte at 0x${address.toString(16)} was changed`);
      }
    });
  }

  /** Throws if a guard was touched. */
  checkGuards(): void {
    for (const bytes of this.#buffers) {
      for (let i = 0; i < GUARD; i++) {
        assert(
          bytes[i] === GUARD_BYTE && bytes[bytes.length - 1 - i] === GUARD_BYTE,
          "memory outside of guest memory was changed",
        );
      }
    }
  }
}

/** Turns of the event loop, the quick way. */
export async function turns(count: number): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise<void>((resolve) => setImmediate(resolve));
}

declare function setImmediate(run: () => void): void;

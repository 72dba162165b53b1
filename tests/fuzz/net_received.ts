/** What a driver of a network device that is fuzzed finds in its receive buffers. */
import { assert, assertEquals } from "@std/assert";
import type { GuestMemory } from "@virtio/memory";
import type { RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import type { NetCase } from "./net_cases.ts";
import { KNOWN } from "./net_network.ts";

/** A buffer that the driver waits for. */
export interface Waiting {
  readonly place: number;
  readonly room: number;
  readonly writable: readonly RawDescriptor[];
}

/** One that the device used, with the length that it said. */
export type UsedBuffer = Waiting & { readonly used: number };

/** Bytes of the header before each frame. */
export function headerSize({ hashed }: NetCase): number {
  return hashed ? 20 : 12;
}

/** Frames that came in, against those that were given. */
export class ReceivedFrames {
  readonly #test: NetCase;
  readonly #memory: GuestMemory;
  readonly #known: ReadonlyMap<number, Uint8Array>;
  /** The last number that each pair gave. */
  readonly #last: Map<number, number> = new Map();

  /** @param known Frames that are known, by number. */
  constructor(test: NetCase, memory: GuestMemory, known: ReadonlyMap<number, Uint8Array>) {
    this.#test = test;
    this.#memory = memory;
    this.#known = known;
  }

  /** The device was reset. */
  reset(): void {
    this.#last.clear();
  }

  /** The last number that a pair gave; 0 if none. */
  last(pair: number): number {
    return this.#last.get(pair) ?? 0;
  }

  /** Throws unless these buffers of a pair, in their order, hold frames as they were given. */
  check(pair: number, used: UsedBuffer[]): void {
    const size = headerSize(this.#test);
    while (used.length > 0) {
      const first = used.shift()!;
      let bytes = this.#contents(first);
      assert(first.used >= size, "the header is there");
      const view = new DataView(bytes.buffer);
      const [flags, gsoType, count] = [bytes[0]!, bytes[1]!, view.getUint16(10, true)];
      assert(this.#test.mergeable ? count >= 1 : count === 1, `num_buffers is ${count}`);
      if (!this.#test.offloads) assertEquals([flags, gsoType], [0, 0]);
      let full = first.used === first.room;
      for (let i = 1; i < count; i++) {
        assert(full, "all buffers but the last are full");
        const next = used.shift();
        assert(next !== undefined, "all buffers of a frame are used together");
        const more = this.#contents(next!);
        const both = new Uint8Array(bytes.length + more.length);
        both.set(bytes);
        both.set(more, bytes.length);
        bytes = both;
        full = next!.used === next!.room;
      }
      const frame = bytes.subarray(size);
      assert(frame.length >= 14, "a frame has a header");
      if (frame.length < 18 || (frame[12]! << 8 | frame[13]!) !== KNOWN) continue;
      const number = new DataView(frame.buffer, frame.byteOffset).getUint32(14);
      assertEquals(frame, this.#known.get(number), "a frame arrives as it was given");
      // Echoes are numbered where they were sent.
      if (!this.#test.steps.some((step) => step.do === "echo") && !this.#test.mq) {
        assert(number > this.last(pair), "frames arrive in their order");
      }
      this.#last.set(pair, number);
    }
  }

  /** The bytes that the device wrote into a buffer. */
  #contents({ writable, used }: UsedBuffer): Uint8Array {
    const bytes = new Uint8Array(used);
    let done = 0;
    for (const { address, length } of writable) {
      for (let i = 0; i < length && done < used; i++) {
        bytes[done++] = this.#memory.readU8(Number(address) + i);
      }
    }
    return bytes;
  }
}

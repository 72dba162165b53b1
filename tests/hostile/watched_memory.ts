/** Guest memory that tells of each access, so that a test can change what was read. */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";

/** Called for each plain access: what is there, and what shall be read instead. */
export type OnAccess = (address: number, size: number, write: boolean, value: number) => number;

/** Plain accesses through a view are seen, and may read something else. */
class WatchedView extends DataView<ArrayBufferLike> {
  readonly #base: number;
  readonly #on: OnAccess;
  constructor(view: DataView<ArrayBufferLike>, base: number, on: OnAccess) {
    super(view.buffer, view.byteOffset, view.byteLength);
    this.#base = base;
    this.#on = on;
  }
  override getUint8(at: number): number {
    return this.#on(this.#base + at, 1, false, super.getUint8(at));
  }
  override getUint16(at: number, little?: boolean): number {
    return this.#on(this.#base + at, 2, false, super.getUint16(at, little));
  }
  override getUint32(at: number, little?: boolean): number {
    return this.#on(this.#base + at, 4, false, super.getUint32(at, little));
  }
  override setUint8(at: number, value: number): void {
    this.#on(this.#base + at, 1, true, value);
    super.setUint8(at, value);
  }
  override setUint16(at: number, value: number, little?: boolean): void {
    this.#on(this.#base + at, 2, true, value);
    super.setUint16(at, value, little);
  }
  override setUint32(at: number, value: number, little?: boolean): void {
    this.#on(this.#base + at, 4, true, value);
    super.setUint32(at, value, little);
  }
}

/** Bytes read one by one, or as a part, are seen too. */
function watchedBytes(bytes: Uint8Array, base: number, on: OnAccess): Uint8Array {
  return new Proxy(bytes, {
    get(target, name) {
      if (typeof name === "string" && /^\d+$/.test(name)) {
        return on(base + Number(name), 1, false, target[Number(name)]!);
      }
      if (name === "subarray") {
        return (from: number, to: number) => {
          for (let at = from; at < to; at++) on(base + at, 1, false, target[at]!);
          return target.subarray(from, to);
        };
      }
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(target, name, value) {
      on(base + Number(name), 1, true, value);
      target[Number(name)] = value;
      return true;
    },
  });
}

/** Plain accesses to words by their index are seen, and may read something else. */
function watchedWords<T extends Uint16Array | Int32Array>(
  words: T,
  base: number,
  on: OnAccess,
  plain: WeakMap<object, unknown>,
): T {
  const size = words.BYTES_PER_ELEMENT;
  const unsigned = size === 2 ? 0xffff : 0xffff_ffff;
  const seen = new Proxy(words, {
    get(target, name) {
      if (typeof name === "string" && /^\d+$/.test(name)) {
        const value = (target[Number(name)]! & unsigned) >>> 0;
        const read = on(base + size * Number(name), size, false, value);
        return target instanceof Int32Array ? read | 0 : read;
      }
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(target, name, value) {
      on(base + size * Number(name), size, true, (value & unsigned) >>> 0);
      target[Number(name)] = value;
      return true;
    },
  });
  plain.set(seen, words);
  return seen;
}

/** Lets `on` see plain accesses to all memory until the result is called. Atomic ones go past it. */
export function watchMemory(memory: GuestMemory, on: OnAccess): () => void {
  const before = memory.regions.map(({ view, bytes, u16, i32 }) => ({ view, bytes, u16, i32 }));
  const plain = new WeakMap<object, unknown>();
  memory.regions.forEach((region: MemoryRegion) => {
    region.view = new WatchedView(region.view, region.base, on);
    region.bytes = watchedBytes(region.bytes, region.base, on);
    region.u16 = watchedWords(region.u16, region.base, on, plain);
    region.i32 = watchedWords(region.i32, region.base, on, plain);
  });
  const { load, store } = Atomics;
  const bare = (words: object): never => (plain.get(words) ?? words) as never;
  Object.assign(Atomics, {
    load: (words: object, index: number) => load(bare(words), index),
    store: (words: object, index: number, value: number) => store(bare(words), index, value),
  });
  return () => {
    Object.assign(Atomics, { load, store });
    memory.regions.forEach((region, i) => Object.assign(region, before[i]));
  };
}

/** Every byte reads rightly the first time, and as something else ever after. */
export function once(lie: (right: number) => number): OnAccess {
  const seen = new Set<number>();
  return (address, size, write, value) => {
    if (write) {
      for (let i = 0; i < size; i++) seen.delete(address + i);
      return value;
    }
    let result = 0;
    for (let i = size - 1; i >= 0; i--) {
      const right = Math.floor(value / 2 ** (8 * i)) & 0xff;
      result = result * 256 + (seen.has(address + i) ? lie(right) & 0xff : right);
      seen.add(address + i);
    }
    return result;
  };
}

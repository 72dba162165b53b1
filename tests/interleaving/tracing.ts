/** Makes views of memory whose accesses, plain and atomic, are somebody else's to answer. */

/** Answers accesses. */
export interface Tracer {
  /** A load of `size` bytes; the value as an unsigned number. */
  load(at: number, size: number, atomic: boolean): number;
  /** A store. */
  store(at: number, size: number, value: number, atomic: boolean): void;
}

/** Plain accesses to fields are traced. */
export class TracedView extends DataView<ArrayBuffer> {
  readonly #tracer: Tracer;
  constructor(tracer: Tracer, buffer: ArrayBuffer) {
    super(buffer);
    this.#tracer = tracer;
  }
  override getUint8(at: number): number {
    return this.#tracer.load(at, 1, false);
  }
  override getUint16(at: number, _little?: boolean): number {
    return this.#tracer.load(at, 2, false);
  }
  override getUint32(at: number, _little?: boolean): number {
    return this.#tracer.load(at, 4, false);
  }
  override setUint8(at: number, value: number): void {
    this.#tracer.store(at, 1, value & 0xff, false);
  }
  override setUint16(at: number, value: number, _little?: boolean): void {
    this.#tracer.store(at, 2, value & 0xffff, false);
  }
  override setUint32(at: number, value: number, _little?: boolean): void {
    this.#tracer.store(at, 4, value >>> 0, false);
  }
}

type Words = Uint8Array | Uint16Array | Int32Array;

/** Which array stands behind a traced one. */
const traces = new WeakMap<object, { tracer: Tracer; words: Words }>();

/** Plain accesses by index are traced; `Atomics` finds the way back. */
export function tracedWords<T extends Words>(tracer: Tracer, words: T): T {
  const size = words.BYTES_PER_ELEMENT;
  const signed = words instanceof Int32Array;
  const traced = new Proxy(words, {
    get(target, name) {
      if (typeof name === "string" && name.charCodeAt(0) <= 0x39 && name.charCodeAt(0) >= 0x30) {
        const value = tracer.load(size * Number(name), size, false);
        return signed ? value | 0 : value;
      }
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(_target, name, value) {
      const mask = size === 4 ? 0xffff_ffff : size === 2 ? 0xffff : 0xff;
      tracer.store(size * Number(name), size, (value & mask) >>> 0, false);
      return true;
    },
  });
  traces.set(traced, { tracer, words });
  return traced;
}

type Patched = {
  load: (array: Int32Array, index: number) => number;
  store: (array: Int32Array, index: number, value: number) => number;
};

/** Lets `Atomics` be traced while `body` runs. */
export function traced<T>(body: () => T): T {
  const atomics = Atomics as unknown as Patched;
  const { load, store } = atomics;
  atomics.load = (array, index) => {
    const trace = traces.get(array);
    if (trace === undefined) return load.call(Atomics, array, index);
    const size = trace.words.BYTES_PER_ELEMENT;
    const value = trace.tracer.load(index * size, size, true);
    return size === 4 ? value | 0 : value;
  };
  atomics.store = (array, index, value) => {
    const trace = traces.get(array);
    if (trace === undefined) return store.call(Atomics, array, index, value);
    const size = trace.words.BYTES_PER_ELEMENT;
    trace.tracer.store(index * size, size, size === 4 ? value >>> 0 : value & 0xffff, true);
    return value;
  };
  try {
    return body();
  } finally {
    atomics.load = load;
    atomics.store = store;
  }
}

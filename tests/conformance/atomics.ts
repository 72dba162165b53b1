/** Atomic accesses as they happen: what was in memory at that very moment is what the other side may rely on. */

/** One `Atomics.load` or `Atomics.store`. */
export interface AtomicAccess {
  readonly kind: "load" | "store";
  /** Offset of the accessed bytes in their buffer. */
  readonly byte: number;
  /** Bytes. */
  readonly size: number;
  /** What is about to be stored, or was loaded. */
  readonly value: number;
}

type IntArray = Uint16Array | Int32Array;

/**
 * Runs something, and shows every atomic access of it: a store before it is made, a load after it. Restored at the end.
 */
export function watchAtomics(watch: (access: AtomicAccess) => void, run: () => void): void {
  const { load, store } = Atomics;
  const show = (kind: "load" | "store", array: IntArray, index: number, value: number): void =>
    watch({
      kind,
      byte: array.byteOffset + index * array.BYTES_PER_ELEMENT,
      size: array.BYTES_PER_ELEMENT,
      value,
    });
  const patched = Atomics as unknown as Record<"load" | "store", unknown>;
  patched.load = (array: IntArray, index: number): number => {
    const value = load(array, index);
    show("load", array, index, value);
    return value;
  };
  patched.store = (array: IntArray, index: number, value: number): number => {
    show("store", array, index, value);
    return store(array, index, value);
  };
  try {
    run();
  } finally {
    patched.load = load;
    patched.store = store;
  }
}

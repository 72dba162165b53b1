/**
 * Counts bytes that the host's process copies, by what does it in JavaScript: `set`, `copyWithin` and `slice` of typed
 * arrays, and synchronous reads and writes of files, where the kernel copies between its page cache and the buffer given.
 * v86 and this project's back ends have no other way to move a disk's data; what WebAssembly copies inside of the guest is
 * not counted. Patches prototypes meanwhile, so count after everything was timed.
 */

// deno-lint-ignore no-explicit-any -- methods of any signature are wrapped
type Method = (this: any, ...args: any[]) => any;

interface Patched {
  readonly owner: object;
  readonly name: string;
  readonly original: Method;
}

/** Runs something and tells how many bytes were copied meanwhile. */
export async function countCopies(work: () => Promise<void>): Promise<number> {
  let bytes = 0;
  const patched: Patched[] = [];
  const patch = (
    owner: object,
    name: string,
    count: (result: unknown, args: unknown[]) => number,
  ) => {
    const methods = owner as Record<string, Method>;
    const original = methods[name]!;
    patched.push({ owner, name, original });
    methods[name] = function (...args) {
      const result = original.apply(this, args);
      bytes += count(result, args);
      return result;
    };
  };
  const arrays = Object.getPrototypeOf(Uint8Array.prototype) as Uint8Array;
  patch(arrays, "set", (_, [source]) => ArrayBuffer.isView(source) ? source.byteLength : 0);
  patch(arrays, "slice", (result) => (result as Uint8Array).byteLength);
  patch(arrays, "copyWithin", (result, [_, start, end]) => {
    const array = result as Uint8Array;
    const from = Number(start ?? 0);
    return Math.max(0, Number(end ?? array.length) - from) * array.BYTES_PER_ELEMENT;
  });
  patch(Deno.FsFile.prototype, "readSync", (result) => Number(result ?? 0));
  patch(Deno.FsFile.prototype, "writeSync", (result) => Number(result));
  try {
    await work();
  } finally {
    for (const { owner, name, original } of patched) {
      (owner as Record<string, Method>)[name] = original;
    }
  }
  return bytes;
}

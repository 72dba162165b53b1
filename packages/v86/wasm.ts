/** Finds and compiles v86's WebAssembly module. */

/** Where v86's WebAssembly module comes from: an address to load, the bytes, or a compiled module. */
export type V86Wasm = string | URL | Uint8Array | WebAssembly.Module;

/** What is used of the module `node:fs/promises`. */
interface FileSystem {
  readFile(url: URL): Promise<Uint8Array>;
}

async function compile(source: V86Wasm | undefined): Promise<WebAssembly.Module> {
  if (source instanceof WebAssembly.Module) return source;
  if (source instanceof Uint8Array) {
    return await WebAssembly.compile(source as Uint8Array<ArrayBuffer>);
  }
  const url = new URL(source ?? import.meta.resolve("v86/build/v86.wasm"), import.meta.url);
  if (url.protocol !== "file:") {
    const response = await fetch(url);
    if (!response.ok) throw new Error(`Cannot load v86's WebAssembly module from ${url}`);
    return await WebAssembly.compile(await response.arrayBuffer());
  }
  // Deno and Node both have this; a browser never comes here, and its bundler need not know of the module.
  const { process } = globalThis as { process?: { getBuiltinModule?(name: string): FileSystem } };
  const files = process?.getBuiltinModule?.("node:fs/promises");
  if (files === undefined) throw new Error(`Cannot read ${url}: pass v86's module as option wasm`);
  return await WebAssembly.compile(new Uint8Array(await files.readFile(url)));
}

const compiled = new Map<string, Promise<WebAssembly.Module>>();

/** The module from `source`, by default from the `v86` package. Compiles once per address: tests start many machines. */
export function loadWasm(source: V86Wasm | undefined): Promise<WebAssembly.Module> {
  if (source !== undefined && typeof source !== "string") return compile(source);
  const key = source ?? "";
  let promise = compiled.get(key);
  if (promise === undefined) {
    promise = compile(source);
    compiled.set(key, promise);
    promise.catch(() => compiled.delete(key));
  }
  return promise;
}

import { SystemError } from "./errno.ts";

/** What `Deno.dlopen` makes of a table of symbols. */
type Symbols<S extends Deno.ForeignLibraryInterface> = Deno.DynamicLibrary<S>["symbols"];

/** Where this thread's `errno` is. */
let location: Deno.UnsafePointerView | null = null;

/**
 * Opens the C library with the functions that a module needs. It stays open: the calls outlive whoever asked first.
 *
 * @throws {TypeError} Where there is none: another system or runtime, or no permission for foreign functions.
 */
export function loadLibc<const S extends Deno.ForeignLibraryInterface>(symbols: S): Symbols<S> {
  if (typeof Deno === "undefined" || Deno.build.os !== "linux") {
    throw new TypeError("This needs Deno on Linux");
  }
  try {
    if (location === null) {
      // Before the first call: opening the library later would change what errno says.
      const { symbols } = Deno.dlopen("libc.so.6", {
        __errno_location: { parameters: [], result: "pointer" },
      });
      location = new Deno.UnsafePointerView(symbols.__errno_location()!);
    }
    return Deno.dlopen("libc.so.6", symbols).symbols;
  } catch (cause) {
    if (cause instanceof Deno.errors.NotCapable) {
      throw new TypeError("This needs the permission for foreign functions: --allow-ffi", {
        cause,
      });
    }
    throw new TypeError("This needs the GNU C library: there is no libc.so.6", { cause });
  }
}

/** The number of the error of the call just made in this thread, of `Errno`; 0 before the first `loadLibc`. */
export function errno(): number {
  return location?.getInt32() ?? 0;
}

/**
 * Passes a call's result on.
 *
 * @param result What the call returned, negative if it failed.
 * @param call The call's name.
 * @param what What it was for, for the message.
 * @throws {SystemError} If it failed.
 */
export function check(result: number, call: string, what = ""): number {
  if (result < 0) throw new SystemError(call, errno(), what);
  return result;
}

/** A text as C has it. */
export function cString(text: string): Uint8Array<ArrayBuffer> {
  const bytes = new TextEncoder().encode(`${text}\0`);
  if (bytes.indexOf(0) !== bytes.length - 1) {
    throw new TypeError(`A text for the system must not contain NUL: ${JSON.stringify(text)}`);
  }
  return bytes;
}

/**
 * Bytes whose address is fixed. Small typed arrays lie in the engine's heap and move unless they are made over a buffer.
 *
 * @param length How many.
 */
export function fixedBytes(length: number): Uint8Array<ArrayBuffer> {
  return new Uint8Array(new ArrayBuffer(length));
}

/** The address of bytes that do not move, as a bigint. */
export function addressOf(bytes: Uint8Array): bigint {
  // Shared buffers are taken too, though the types do not say so.
  const pointer = Deno.UnsafePointer.of(bytes as Uint8Array<ArrayBuffer>);
  return pointer === null ? 0n : BigInt(Deno.UnsafePointer.value(pointer));
}

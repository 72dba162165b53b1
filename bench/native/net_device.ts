/** Calls bench/native/net_device.c in this process, one call for a block of batches. */
import type { NetShape } from "../net_world.ts";
import { compile } from "./compile.ts";

const SYMBOLS = {
  net_open: { parameters: ["u32", "u32", "u32"], result: "pointer" },
  net_run: { parameters: ["pointer", "u32"], result: "u32" },
  net_check: { parameters: ["pointer"], result: "i32" },
  net_close: { parameters: ["pointer"], result: "void" },
} as const;

/** The same work as a `NetWorld`, in C. */
export interface NativeNet {
  /** Sends batches. @returns Frames that were received. */
  run(batches: number): number;
  /** Whether the last frame of a batch arrived as it was sent. */
  check(): boolean;
}

/** The compiled reference; null where there is no compiler. */
export async function openNativeNet(): Promise<((shape: NetShape) => NativeNet) | null> {
  const compiled = await compile("net_device.c");
  if (compiled === null) return null;
  const { symbols } = Deno.dlopen(compiled.library, SYMBOLS);
  return ({ frame, batch, buffer }) => {
    const handle = symbols.net_open(frame, batch, buffer);
    if (handle === null) throw new Error("The C reference got no memory");
    return {
      run: (batches) => {
        const done = symbols.net_run(handle, batches);
        if (done !== batches * batch) throw new Error("The C reference lost a frame");
        return done;
      },
      check: () => symbols.net_check(handle) === 1,
    };
  };
}

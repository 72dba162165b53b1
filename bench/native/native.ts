/** Compiles bench/native/reference.c at run time and calls it in this process, one call for a block of batches. */
import type { RequestShape, World } from "../work.ts";
import { compile } from "./compile.ts";

const SYMBOLS = {
  world_open: { parameters: ["i32", "i32", "u32", "u32", "i32"], result: "pointer" },
  world_close: { parameters: ["pointer"], result: "void" },
  world_refill: { parameters: ["pointer", "u32"], result: "u32" },
  world_device: { parameters: ["pointer", "u32"], result: "u32" },
  world_blk: { parameters: ["pointer", "u32"], result: "u32" },
  world_round: { parameters: ["pointer", "u32"], result: "u32" },
} as const;

const SHAPES: Record<RequestShape, number> = { single: 0, blk3: 1, ind3: 2 };

/** The compiled reference. */
export class Native {
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;
  /** The compiler and its version. */
  readonly compiler: string;

  private constructor(library: Deno.DynamicLibrary<typeof SYMBOLS>, compiler: string) {
    this.#library = library;
    this.compiler = compiler;
  }

  /** Compiles the reference if there is a compiler. @returns Null where there is none. */
  static async open(): Promise<Native | null> {
    const compiled = await compile("reference.c");
    if (compiled === null) return null;
    const { library, compiler } = compiled;
    return new Native(Deno.dlopen(library, SYMBOLS), compiler);
  }

  /** Guest memory and queues of its own. `fresh`: empty rings, for the full round. */
  world(
    format: "split" | "packed",
    shape: RequestShape,
    size: number,
    batch: number,
    fresh: boolean,
  ): World {
    const { symbols } = this.#library;
    const handle = symbols.world_open(
      format === "split" ? 0 : 1,
      SHAPES[shape],
      size,
      batch,
      fresh ? 1 : 0,
    );
    if (handle === null) throw new Error("The C reference got no memory");
    return {
      refill: (batches) => void symbols.world_refill(handle, batches),
      device: (batches) => symbols.world_device(handle, batches),
      blk: (batches) => symbols.world_blk(handle, batches),
      round: (batches) => symbols.world_round(handle, batches),
    };
  }
}

/** Compiles bench/native/net_switch.c at run time: frames through two devices and a switch, in C. */
import { compile } from "./compile.ts";

const SYMBOLS = {
  net_open: { parameters: ["i32", "u32", "u32"], result: "pointer" },
  net_close: { parameters: ["pointer"], result: "void" },
  net_run: { parameters: ["pointer", "u32"], result: "u32" },
  net_check: { parameters: ["pointer"], result: "i32" },
} as const;

/** The compiled loop. */
export class NativeNet {
  readonly #library: Deno.DynamicLibrary<typeof SYMBOLS>;
  /** The compiler and its version. */
  readonly compiler: string;

  private constructor(library: Deno.DynamicLibrary<typeof SYMBOLS>, compiler: string) {
    this.#library = library;
    this.compiler = compiler;
  }

  /** Compiles the loop if there is a compiler. @returns Null where there is none. */
  static async open(): Promise<NativeNet | null> {
    const built = await compile("net_switch.c");
    if (built === null) return null;
    return new NativeNet(Deno.dlopen(built.library, SYMBOLS), built.compiler);
  }

  /**
   * Two guests, two devices, a switch.
   *
   * @param length Bytes of each frame.
   * @param batch Frames that are sent together.
   */
  world(format: "split" | "packed", length: number, batch: number): NativeNetWorld {
    const { symbols } = this.#library;
    const handle = symbols.net_open(format === "split" ? 0 : 1, length, batch);
    if (handle === null) throw new Error("The C loop got no memory");
    return {
      run(batches) {
        const got = symbols.net_run(handle, batches);
        if (got !== batches * batch) throw new Error(`Of ${batches} batches came ${got} frames`);
      },
      isWhole: () => symbols.net_check(handle) === 1,
      [Symbol.dispose]: () => symbols.net_close(handle),
    };
  }
}

/** Two guests on a switch. */
export interface NativeNetWorld extends Disposable {
  /** Sends batches of frames, and receives them. @throws {Error} If one is lost. */
  run(batches: number): void;
  /** Whether the last frame came as it was sent. */
  isWhole(): boolean;
}

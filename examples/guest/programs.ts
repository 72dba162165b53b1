/** Programs of the host's for a guest of the same processor: with the libraries that they are linked to. */
import { FetchError } from "./apt.ts";

/** Files for `buildInitrd`. */
export type HostProgramFiles = readonly {
  readonly path: string;
  readonly bytes: Uint8Array;
  readonly mode: number;
}[];

async function output(program: string, ...args: string[]): Promise<string> {
  try {
    const { stdout } = await new Deno.Command(program, { args, stdin: "null", stderr: "null" })
      .output();
    return new TextDecoder().decode(stdout);
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new FetchError(`There is no ${program} on this machine`);
  }
}

/**
 * Reads programs and what they need to run.
 *
 * @param paths Absolute paths of programs; they have the same in the guest.
 * @throws {FetchError} If one is not there.
 */
export async function hostPrograms(paths: readonly string[]): Promise<HostProgramFiles> {
  const files = new Set<string>();
  for (const path of paths) {
    files.add(path);
    // A line is `name => path (address)`, or the path of the loader alone.
    const text = await output("ldd", path);
    for (const [, library] of text.matchAll(/^\s+(?:\S+ => )?(\/\S+) \(0x/gm)) files.add(library!);
  }
  return await Promise.all([...files].map(async (path) => {
    try {
      return { path, bytes: await Deno.readFile(path), mode: 0o755 };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
      throw new FetchError(`There is no ${path} on this machine`);
    }
  }));
}

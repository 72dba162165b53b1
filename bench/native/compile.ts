/** Compiles the C references at run time, into .cache/: they are yardsticks, not parts of the packages. */

/** A compiled reference. */
export interface Compiled {
  /** The library, or the program. */
  readonly library: URL;
  /** The compiler and its version. */
  readonly compiler: string;
}

/**
 * Compiles a C file of this folder with -O2, unless that was done before.
 *
 * @param kind What it becomes; a library unless given.
 * @returns Null where there is no compiler.
 */
export async function compile(
  file: string,
  kind: "library" | "program" = "library",
): Promise<Compiled | null> {
  const compiler = await findCompiler();
  if (compiler === null) return null;
  const source = new URL(file, import.meta.url);
  const cache = new URL("../../.cache/bench/", import.meta.url);
  await Deno.mkdir(cache, { recursive: true });
  const text = new TextEncoder().encode(await withIncluded(source));
  const digest = new Uint8Array(await crypto.subtle.digest("SHA-256", text));
  const name = Array.from(digest.subarray(0, 8), (byte) => byte.toString(16).padStart(2, "0"));
  const suffix = kind === "library" ? ".so" : "";
  const library = new URL(`${file.replace(/\.c$/, "")}-${name.join("")}${suffix}`, cache);
  try {
    await Deno.stat(library);
  } catch {
    const temporary = `${library.pathname}.${Deno.pid}`;
    const { success, stderr } = await new Deno.Command(compiler.command, {
      args: [
        "-O2",
        ...(kind === "library" ? ["-shared", "-fPIC", "-fvisibility=hidden"] : ["-pthread"]),
        ...["-o", temporary, source.pathname],
      ],
    }).output();
    if (!success) {
      throw new Error(`The C reference does not compile: ${new TextDecoder().decode(stderr)}`);
    }
    await Deno.rename(temporary, library);
  }
  return { library, compiler: compiler.version };
}

/** A file and what it includes of this folder: what decides whether a library is still that of the source. */
async function withIncluded(source: URL): Promise<string> {
  const text = await Deno.readTextFile(source);
  const included = [...text.matchAll(/^#include "(.+)"$/gm)].map(([, name]) =>
    withIncluded(new URL(name!, source))
  );
  return [text, ...await Promise.all(included)].join("\n");
}

async function findCompiler(): Promise<{ command: string; version: string } | null> {
  for (const command of ["gcc", "cc", "clang"]) {
    try {
      const { success, stdout } = await new Deno.Command(command, { args: ["--version"] }).output();
      if (!success) continue;
      return { command, version: new TextDecoder().decode(stdout).split("\n")[0]! };
    } catch (error) {
      if (!(error instanceof Deno.errors.NotFound)) throw error;
    }
  }
  return null;
}

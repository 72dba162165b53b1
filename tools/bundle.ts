/**
 * Bundles programs of this repository for browsers and Node with esbuild: names of packages become files by what their
 * deno.json exports, npm packages come from Deno's cache.
 */
import { build, type BuildOptions, type Plugin, stop } from "esbuild";
import { createRequire } from "node:module";

const root = new URL("..", import.meta.url);

/** The file behind `@virtio/NAME` or `@virtio/NAME/PART`, from the root. */
export async function packageFile(specifier: string): Promise<string> {
  const [, name, part] = /^@virtio\/([^/]+)(\/.+)?$/.exec(specifier) ?? [];
  if (name === undefined) throw new TypeError(`${specifier} is no package of this repository`);
  const folder = `packages/${name}/`;
  const { exports } = JSON.parse(await Deno.readTextFile(new URL(`${folder}deno.json`, root)));
  const file = typeof exports === "string"
    ? exports
    : exports[part === undefined ? "." : `.${part}`];
  if (typeof file !== "string") throw new TypeError(`${specifier} is not among the exports`);
  return `${folder}${file.replace(/^\.\//, "")}`;
}

const resolveNames: Plugin = {
  name: "packages of this repository",
  setup(build) {
    build.onResolve({ filter: /^@virtio\// }, async ({ path }) => ({
      path: new URL(await packageFile(path), root).pathname,
    }));
    // Bare names: what deno.json maps, where Deno put it; else what an npm package itself depends on.
    build.onResolve({ filter: /^[a-z@][^:]*$/ }, ({ path, kind, importer }) => {
      if (kind === "entry-point") return undefined;
      let resolved: string;
      try {
        resolved = import.meta.resolve(path);
      } catch {
        return { path: createRequire(importer).resolve(path) };
      }
      return resolved.startsWith("file:") ? { path: new URL(resolved).pathname } : undefined;
    });
  },
};

/** How a bundle is made. */
export interface BundleOptions {
  /** Where it runs; `"browser"` unless given. */
  readonly platform?: "browser" | "node";
  /** Without spaces and long names. */
  readonly minify?: boolean;
  /** Modules that stay outside. */
  readonly external?: readonly string[];
}

/**
 * One file of JavaScript from a module and all that it imports.
 *
 * @param entry From the root of the repository.
 * @throws {Error} If something cannot be found, or is no valid program.
 */
export async function bundle(entry: string, options: BundleOptions = {}): Promise<Uint8Array> {
  const settings: BuildOptions = {
    entryPoints: [new URL(entry, root).pathname],
    bundle: true,
    write: false,
    format: "esm",
    target: "es2024",
    platform: options.platform ?? "browser",
    minify: options.minify ?? false,
    // v86 asks which of them are there before it uses them.
    external: [...options.external ?? [], "node:*", "crypto", "fs", "perf_hooks"],
    plugins: [resolveNames],
    logLevel: "silent",
  };
  const { outputFiles } = await build(settings);
  return outputFiles![0]!.contents;
}

/** Bytes of a package's main entry, minified and gzipped; other packages of this repository count where it imports them. */
export async function bundleSize(
  specifier: string,
): Promise<{ minified: number; gzipped: number }> {
  const bytes = await bundle(await packageFile(specifier), {
    minify: true,
    external: ["v86"],
  });
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  const gzipped = (await new Response(stream).arrayBuffer()).byteLength;
  return { minified: bytes.length, gzipped };
}

/** Ends the process in which esbuild works. */
export async function endBundling(): Promise<void> {
  await stop();
}

/** Where a file of an npm package lies. */
export function npmFile(specifier: string): string {
  return createRequire(import.meta.url).resolve(specifier);
}

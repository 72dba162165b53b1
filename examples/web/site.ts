/** The page as files: what a static host serves, and example:web itself. */
import { bundle, endBundling, npmFile } from "../../tools/bundle.ts";
import { bootFiles } from "../shared/boot_files.ts";
import type { Progress } from "../shared/run.ts";
import { webSystem } from "./system.ts";

/** Files by name. */
export type Site = Map<string, Uint8Array<ArrayBuffer>>;

const SCRIPTS = ["page", "machine_worker", "disk_worker"];

async function gzip(bytes: Uint8Array): Promise<Uint8Array<ArrayBuffer>> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

/** The page's type for a file. */
export function typeOf(name: string): string {
  const types: Record<string, string> = {
    html: "text/html; charset=utf-8",
    js: "text/javascript",
    css: "text/css",
    wasm: "application/wasm",
  };
  // Compressed files are data to the page: it unpacks them itself, whatever a host thinks of .gz.
  return types[name.split(".").pop()!] ?? "application/octet-stream";
}

/**
 * Builds all files: scripts bundled, the guest's kernel and RAM disk from the cache.
 *
 * @throws {FetchError} Where no kernel is to be had.
 */
export async function buildSite(progress: Progress): Promise<Site> {
  const folder = new URL("page/", import.meta.url);
  const site: Site = new Map();
  for (const name of ["index.html", "page.css"]) {
    site.set(name, await Deno.readFile(new URL(name, folder)));
  }
  site.set("xterm.css", await Deno.readFile(npmFile("@xterm/xterm/css/xterm.css")));
  site.set("v86.wasm", await Deno.readFile(npmFile("v86/build/v86.wasm")));
  for (const name of SCRIPTS) {
    const script = await bundle(`examples/web/page/${name}.ts`, { minify: true });
    site.set(`${name}.js`, script as Uint8Array<ArrayBuffer>);
  }
  await endBundling();
  const { kernel, initrd } = await bootFiles(progress, null, webSystem());
  progress.detail("packing kernel and RAM disk");
  site.set("kernel.gz", await gzip(kernel));
  site.set("initrd.gz", await gzip(initrd));
  return site;
}

/** Serves the files on loopback. */
export function serveSite(site: Site, port: number): Deno.HttpServer<Deno.NetAddr> {
  return Deno.serve({ hostname: "127.0.0.1", port, onListen: () => {} }, (request) => {
    const path = new URL(request.url).pathname.slice(1) || "index.html";
    const body = site.get(path);
    if (body === undefined) return new Response("There is no such file\n", { status: 404 });
    return new Response(body, {
      headers: {
        "content-type": typeOf(path),
        "cache-control": "no-cache",
        // What shared memory needs; this page does without, but what is tried out beside it may not.
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
      },
    });
  });
}

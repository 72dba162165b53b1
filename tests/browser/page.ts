/** A page in Chromium over a server of its own on loopback, for tests. */
import { type BrowserContext, chromium, type Page } from "playwright-core";
import { chromiumPath } from "../../tools/chromium.ts";

/** Where Chromium is; null where it cannot be had. */
export const executable: string | null = await chromiumPath();

/** What a server has, by path. */
export type Files = Record<string, Uint8Array | string>;

/** A page, and what it complained about. */
export interface TestPage {
  /** The page. */
  readonly page: Page;
  /** Its context: for more tabs that share its storage. */
  readonly context: BrowserContext;
  /** The server's address, without a slash at the end. */
  readonly origin: string;
  /** Lines of the console, uncaught errors, and requests to anybody else. */
  readonly complaints: string[];
}

const TYPES: Record<string, string> = {
  html: "text/html",
  js: "text/javascript",
  css: "text/css",
  wasm: "application/wasm",
  json: "application/json",
};

/** Without an icon of its own a page would be asked for one. */
const EMPTY = "<!doctype html><title>test</title><link rel=icon href=data:,>";

/** Serves files with the headers that shared memory needs, opens a page, runs, and takes everything down. */
export async function withPage(
  files: Files,
  run: (test: TestPage) => Promise<void>,
): Promise<void> {
  const all: Files = { "/": EMPTY, ...files };
  const server = Deno.serve({ hostname: "127.0.0.1", port: 0, onListen: () => {} }, (request) => {
    const path = new URL(request.url).pathname;
    const body = all[path];
    if (body === undefined) return new Response(null, { status: 404 });
    const type = TYPES[path === "/" ? "html" : path.split(".").pop()!] ??
      "application/octet-stream";
    return new Response(body as string | Uint8Array<ArrayBuffer>, {
      headers: {
        "content-type": type,
        "cross-origin-opener-policy": "same-origin",
        "cross-origin-embedder-policy": "require-corp",
      },
    });
  });
  const origin = `http://127.0.0.1:${server.addr.port}`;
  // A profile as users have it: in a private window storage is memory, and small.
  const profile = await Deno.makeTempDir();
  const context = await chromium.launchPersistentContext(profile, {
    executablePath: executable!,
    // WebAssembly compiled by the base line compiler only: a guest boots in half the time.
    args: ["--no-sandbox", "--js-flags=--liftoff-only"],
  });
  try {
    const complaints: string[] = [];
    context.on("console", (message) => complaints.push(message.text()));
    context.on("weberror", (error) => complaints.push(String(error.error())));
    context.on("request", (request) => {
      const url = request.url();
      if (!url.startsWith(origin) && !/^(data|blob):/.test(url)) complaints.push(`asks for ${url}`);
    });
    const page = context.pages()[0] ?? await context.newPage();
    await page.goto(`${origin}/`);
    await run({ page, context, origin, complaints });
  } finally {
    await context.close();
    await server.shutdown();
    await Deno.remove(profile, { recursive: true });
  }
}

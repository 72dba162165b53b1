/** Linux in a browser tab on our devices: `deno task example:web`; `--help` tells more. */
import { parseArgs } from "@std/cli/parse-args";
import { FetchError } from "./guest/fetch.ts";
import { RunError } from "./shared/run.ts";
import { terminalProgress } from "./shared/program.ts";
import { buildSite, serveSite } from "./web/site.ts";

const HELP =
  `Serves a page in which a stock Linux boots in v86, on a disk, a console and a network of this project's packages.

The disk is in the browser's own storage and is there again after a reload. Every tab is a guest of its own; all of
them are on one network. The page is served to this machine only. Stop it with Ctrl-C.

Usage: deno task example:web [options]

  --port N     port on loopback, 0 to 65535; 0 takes a free one (default 8420)
  --help       this text
`;

function usage(message: string): never {
  console.error(`${message}: see --help`);
  Deno.exit(2);
}

const args = parseArgs(Deno.args, {
  string: ["port"],
  boolean: ["help"],
  unknown: (argument: string) => usage(`There is no argument ${JSON.stringify(argument)}`),
});
if (args.help) {
  console.log(HELP);
  Deno.exit(0);
}
const port = args.port ?? "8420";
if (!/^\d{1,5}$/.test(port) || Number(port) > 65535) {
  usage(`--port is a number from 0 to 65535, not ${port}`);
}

const progress = terminalProgress();
try {
  progress.step("bundling the page");
  const site = await buildSite(progress);
  let server: Deno.HttpServer<Deno.NetAddr>;
  try {
    server = serveSite(site, Number(port));
  } catch (error) {
    if (!(error instanceof Deno.errors.AddrInUse)) throw error;
    throw new RunError(`Port ${port} is taken: choose another with --port`);
  }
  const bytes = [...site.values()].reduce((sum, file) => sum + file.length, 0);
  progress.step(`${site.size} files, ${(bytes / 2 ** 20).toFixed(1)} MiB`);
  progress.step(`open http://127.0.0.1:${server.addr.port}/ in a browser; Ctrl-C ends this`);
  await server.finished;
} catch (error) {
  if (!(error instanceof RunError || error instanceof FetchError)) throw error;
  progress.step(error.message);
  Deno.exit(1);
}

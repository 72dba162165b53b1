/** serve:virbr: a network for guests of other programs, at a socket. `--help` says what it can do. */
import { StreamError } from "@virtio/net/stream";
import { TapError } from "@virtio/net/tap";
import { OutsideError } from "@virtio/virbr";
import { serveVirbr } from "./serve/virbr.ts";
import { readVirbrOptions, VIRBR_HELP } from "./serve/virbr_options.ts";
import { UsageError } from "./shared/arguments.ts";
import { terminalProgress } from "./shared/program.ts";

/** Errors whose message is a sentence for the user. */
const KNOWN = [UsageError, StreamError, TapError, OutsideError, TypeError, RangeError, SyntaxError];

const json = Deno.args.includes("--json");
let status = 0;
try {
  const options = readVirbrOptions(Deno.args);
  if (options === null) console.log(VIRBR_HELP);
  else {
    const ended = new Promise<string>((resolve) => {
      for (const signal of ["SIGINT", "SIGTERM"] as const) {
        Deno.addSignalListener(signal, () => resolve(signal));
      }
    });
    await serveVirbr(options, terminalProgress(), ended);
  }
} catch (error) {
  const known = KNOWN.some((kind) => error instanceof kind);
  console.error(known ? `serve:virbr: ${(error as Error).message}` : error);
  if (json) {
    const message = error instanceof Error ? error.message : String(error);
    console.log(JSON.stringify({ event: "ended", ok: false, error: message }));
  }
  status = error instanceof UsageError ? 2 : 1;
}
Deno.exit(status);

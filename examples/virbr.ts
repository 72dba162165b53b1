/** example:virbr: two guests on a network that gives them addresses, names and the way out. `--help` says what it can do. */
import { orOwnDriver, runProgram } from "./shared/program.ts";
import { figureTable } from "./virbr/figures.ts";
import { runLinux } from "./virbr/linux_guest.ts";
import { HELP, readOptions } from "./virbr/options.ts";
import { runTs } from "./virbr/ts_guest.ts";

const status = await runProgram({
  name: "example:virbr",
  help: HELP,
  readOptions,
  async run(options, progress, judge) {
    const ts = async (): Promise<boolean> => judge(await runTs(options, progress));
    if (options.guest === "ts") return await ts();
    const linux = async (): Promise<boolean> => judge(await runLinux(options, progress));
    return await orOwnDriver(progress, linux, ts);
  },
  table: figureTable,
  verdict: ({ guest }) =>
    `The network works: ${
      guest === "linux" ? "two Linux guests" : "two of our own drivers"
    } have addresses, names and a way out, and the host reaches what they serve.`,
  failure: "The network does NOT work: see above.",
});
Deno.exit(status);

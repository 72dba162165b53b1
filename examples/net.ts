/** example:net: two stock Linux guests and this program on one switch. `--help` says what it can do. */
import { figureTable } from "./net/figures.ts";
import { runLinux } from "./net/linux_guest.ts";
import { HELP, readOptions } from "./net/options.ts";
import { runTs } from "./net/ts_guest.ts";
import { orOwnDriver, runProgram } from "./shared/program.ts";

const status = await runProgram({
  name: "example:net",
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
    } and the host understand each other.`,
  failure: "The network does NOT work: see above.",
});
Deno.exit(status);

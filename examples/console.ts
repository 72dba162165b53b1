/** example:console: a stock Linux whose only console is a virtio console of this project's. `--help` says what it can do. */
import { figureTable } from "./console/figures.ts";
import { runLinux } from "./console/linux_guest.ts";
import { HELP, readOptions } from "./console/options.ts";
import { runTs } from "./console/ts_guest.ts";
import { orOwnDriver, runProgram } from "./shared/program.ts";

const terminal = Deno.stdin.isTerminal() && Deno.stdout.isTerminal();
const status = await runProgram({
  name: "example:console",
  help: HELP,
  readOptions: (args) => readOptions(args, terminal),
  async run(options, progress, judge) {
    const ts = async (): Promise<boolean> => judge(await runTs(options, progress));
    if (options.guest === "ts") return await ts();
    const linux = (): Promise<boolean> => runLinux(options, progress, judge);
    return await orOwnDriver(progress, linux, options.interactive ? null : ts);
  },
  table: figureTable,
  verdict: ({ guest }) =>
    `The console works: ${
      guest === "linux" ? "Linux" : "our own driver"
    } and the host understand each other.`,
  failure: "The console does NOT work: see above.",
  good: ({ ignored }) => ignored === 0,
});
Deno.exit(status);

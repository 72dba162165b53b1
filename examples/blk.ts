/** example:blk: a stock Linux on a virtio disk made of this project's packages. `--help` says what it can do. */
import { ImageError } from "@virtio/blk/file";
import { figureTable } from "./blk/figures.ts";
import { openImage } from "./blk/image.ts";
import { runLinux } from "./blk/linux_guest.ts";
import { HELP, readOptions } from "./blk/options.ts";
import { runTs, runTsInWorker } from "./blk/ts_guest.ts";
import { orOwnDriver, runProgram } from "./shared/program.ts";

const status = await runProgram({
  name: "example:blk",
  help: HELP,
  readOptions,
  async run(options, progress, judge) {
    using image = openImage(options);
    const ts = async (): Promise<boolean> =>
      judge(await (options.in === "process" ? runTs : runTsInWorker)(options, image, progress));
    if (options.guest === "ts") return await ts();
    const linux = (): Promise<boolean> => runLinux(options, image, progress, judge);
    return await orOwnDriver(progress, linux, options.shell ? null : ts);
  },
  table: figureTable,
  verdict: ({ guest }) =>
    `The disk works: ${
      guest === "linux" ? "Linux" : "our own driver"
    } and the host agree on what is on it.`,
  failure: "The disk does NOT work: see above.",
  good: ({ errors }) => errors === 0,
  errors: [ImageError],
});
Deno.exit(status);

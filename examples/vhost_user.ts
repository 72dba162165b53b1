/** example:vhost-user: a stock Linux in a virtual machine of another program, on devices served by this one. */
import { ImageError } from "@virtio/blk/linux";
import { runProgram } from "./shared/program.ts";
import { HELP, readOptions } from "./vhost_user/options.ts";
import { figureTable, run } from "./vhost_user/run.ts";

const status = await runProgram({
  name: "example:vhost-user",
  help: HELP,
  readOptions,
  run: async (options, progress, judge) => judge(await run(options, progress)),
  table: figureTable,
  verdict: () => "The devices work: Linux in another program and the host agree on all of it.",
  failure: "The devices do NOT work: see above.",
  errors: [ImageError],
});
Deno.exit(status);

/** Builds the page of example:web as a folder of static files: `deno task build:web`. */
import { parseArgs } from "@std/cli/parse-args";
import { FetchError } from "../examples/guest/fetch.ts";
import { terminalProgress } from "../examples/shared/program.ts";
import { buildSite } from "../examples/web/site.ts";

const HELP = `deno task build:web [options]

Builds the page of example:web as a folder of static files that any host serves.

  --out FOLDER  where they go (dist/web)
  --help        this text`;

const args = parseArgs(Deno.args, {
  string: ["out"],
  boolean: ["help"],
  default: { out: new URL("../dist/web", import.meta.url).pathname },
  unknown: (argument: string) => {
    console.error(`There is no argument ${argument}; --help tells more`);
    Deno.exit(2);
  },
});
if (args.help) {
  console.log(HELP);
  Deno.exit(0);
}
const progress = terminalProgress();
try {
  const site = await buildSite(progress);
  await Deno.mkdir(args.out, { recursive: true });
  for (const [name, bytes] of site) {
    await Deno.writeFile(`${args.out}/${name}`, bytes);
    console.log(`${(bytes.length / 1024).toFixed(0).padStart(8)} KiB  ${name}`);
  }
  console.log(`${args.out} can be served by any host of static files`);
} catch (error) {
  if (!(error instanceof FetchError)) throw error;
  console.error(error.message);
  Deno.exit(1);
}

/**
 * Builds the page of example:web as a folder of static files that any host serves: `deno task build:web [--out FOLDER]`,
 * `dist/web` unless given.
 */
import { parseArgs } from "@std/cli/parse-args";
import { FetchError } from "../examples/guest/fetch.ts";
import { terminalProgress } from "../examples/shared/program.ts";
import { buildSite } from "../examples/web/site.ts";

const args = parseArgs(Deno.args, {
  string: ["out"],
  default: { out: new URL("../dist/web", import.meta.url).pathname },
  unknown: (argument: string) => {
    console.error(`There is no argument ${argument}; see the top of tools/build_web.ts`);
    Deno.exit(2);
  },
});
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

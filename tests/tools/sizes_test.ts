/** What README says that the packages weigh in a browser is what they weigh. */
import { assert, assertEquals } from "@std/assert";
import { bundleSize, endBundling } from "../../tools/bundle.ts";
import { ENTRIES } from "../../tools/sizes.ts";

/** How far README may be behind. */
const TOLERANCE = 0.1;
/** A promise: the rings alone, in KiB. */
const MOST_VRING = 8;

Deno.test("README says what each package weighs in a browser", async () => {
  const readme = await Deno.readTextFile(new URL("../../README.md", import.meta.url));
  const paragraph = readme.split("\n\n").find((text) => text.includes("`deno task sizes`):"))!;
  const said = [...paragraph.matchAll(/`([\w/]+)`\s+([\d.]+)/g)];
  assertEquals(said.map(([, entry]) => entry), ENTRIES);
  const wrong: string[] = [];
  try {
    for (const [, entry, says] of said) {
      const kib = (await bundleSize(`@virtio/${entry}`)).gzipped / 1024;
      if (Math.abs(kib / Number(says) - 1) > TOLERANCE) {
        wrong.push(`${entry}: README says ${says}, it is ${kib.toFixed(1)}`);
      }
      if (entry === "vring") assert(kib <= MOST_VRING, `vring has ${kib} KiB`);
    }
  } finally {
    await endBundling();
  }
  assertEquals(wrong, []);
});

/** A disk in the browser's own storage: there again after a reload, and for one tab at a time. */
import { assertEquals } from "@std/assert";
import { bundle, endBundling } from "../../tools/bundle.ts";
import { executable, withPage } from "./page.ts";

Deno.test({
  name: "a disk of 2 GiB in the browser's own storage is there after a reload",
  ignore: executable === null,
  fn: async () => {
    const files = {
      "/program.js": await bundle("tests/browser/opfs_program.ts"),
      "/opfs_worker.js": await bundle("packages/blk/backends/opfs_worker.ts"),
    };
    await endBundling();
    await withPage(files, async ({ page, complaints }) => {
      const call = (text: string) =>
        page.evaluate(`(async () => (await import("/program.js")).${text})()`);
      assertEquals(await call('write("vm/disk.raw")'), 2 ** 31);
      assertEquals(await call('check("vm/disk.raw")'), []);
      await page.reload();
      assertEquals(await call('check("vm/disk.raw")'), []);
      assertEquals(await call("errors()"), [
        "missing",
        "locked",
        `No 512 bytes at ${4 << 20}: the back end has ${4 << 20} bytes`,
        `No 512 bytes at ${2 << 20}: the back end has ${2 << 20} bytes`,
        "failed",
      ]);
      assertEquals(complaints, []);
    });
  },
});

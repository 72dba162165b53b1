/** The packages run unchanged in Deno, Node 20 and 22, and Chromium: a request through each, in each. */
import { assertEquals } from "@std/assert";
import { bundle, endBundling, npmFile } from "../../tools/bundle.ts";
import { executable, withPage } from "../browser/page.ts";
import { everything } from "./everything.ts";

const EXPECTED = {
  "disk, mmio": "everywhere",
  "console, mmio": "a line",
  "disk, pci": "everywhere",
  "console, pci": "a line",
  virbr: "192.168.122.1",
  v86: "poweroff, 4 bytes",
};
const wasm = npmFile("v86/build/v86.wasm");

Deno.test("the packages run in Deno", async () => {
  assertEquals(await everything(await Deno.readFile(wasm)), EXPECTED);
});

for (const version of [20, 22]) {
  Deno.test(`the packages run in Node ${version}`, async () => {
    const folder = await Deno.makeTempDir();
    try {
      await Deno.writeFile(
        `${folder}/everything.mjs`,
        await bundle("tests/runtimes/everything.ts", { platform: "node" }),
      );
      await Deno.writeTextFile(
        `${folder}/run.mjs`,
        `import { readFileSync } from "node:fs";
        import { everything } from "./everything.mjs";
        console.log(JSON.stringify([process.version, await everything(readFileSync(process.argv[2]))]));`,
      );
      const { success, stdout, stderr } = await new Deno.Command("npx", {
        args: ["-y", `node@${version}`, `${folder}/run.mjs`, wasm],
        stdin: "null",
        stdout: "piped",
        stderr: "piped",
      }).output();
      const text = new TextDecoder().decode(stdout);
      assertEquals(success, true, new TextDecoder().decode(stderr) + text);
      const [name, report] = JSON.parse(text);
      assertEquals(name.split(".")[0], `v${version}`);
      assertEquals(report, EXPECTED);
    } finally {
      await Deno.remove(folder, { recursive: true });
      await endBundling();
    }
  });
}

Deno.test({
  name: "the packages run in Chromium",
  ignore: executable === null,
  fn: async () => {
    const script = await bundle("tests/runtimes/everything.ts");
    await endBundling();
    const files = { "/everything.js": script, "/v86.wasm": await Deno.readFile(wasm) };
    await withPage(files, async ({ page, complaints }) => {
      const report = await page.evaluate(`(async () => {
        const { everything } = await import("/everything.js");
        const wasm = new Uint8Array(await (await fetch("/v86.wasm")).arrayBuffer());
        return await everything(wasm);
      })()`);
      assertEquals(report, EXPECTED);
      assertEquals(complaints, []);
    });
  },
});

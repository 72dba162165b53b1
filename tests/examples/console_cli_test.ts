/** example:console as its user meets it: what it prints, and its exit status. On a terminal: terminal_cli_test.ts. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import {
  assertOneSentence,
  lastLine,
  runExample,
  testHelp,
  testRefused,
  testWithoutKernel,
} from "./testing.ts";

testHelp("console", ["--transport", "--ring", "--port NAME=unix:PATH", "Ctrl-A x", "--escape"]);

testRefused("console", [
  [["--frobnicate"], "--frobnicate"],
  [["--transport", "usb"], "pci or mmio"],
  [["--port", "log"], "NAME=FILE"],
  [["--port", "agent=unix:"], "NAME=unix:PATH"],
  [["--port", "a/b=file"], "letters, digits"],
  [["--port", "a=1", "--port", "a=2"], "already a port named a"],
  [["--port", "example.data=x"], "already a port named example.data"],
  [["--escape", "m"], "--escape"],
  [["--escape", "ab"], "--escape"],
  [["--megabytes", "0"], "1 to 256"],
  [["--ring", "split", "--ring", "packed"], "once"],
  [["--guest", "ts", "--kernel", "x"], "--guest linux"],
]);

Deno.test("example:console says that the end of a port cannot be opened", async () => {
  for (const end of ["/nowhere/log", "unix:/nowhere/socket"]) {
    const { code, err } = await runExample("console", ["--guest", "ts", "--port", `one=${end}`]);
    assertEquals(code, 1);
    assertOneSentence("console", err);
    assertStringIncludes(err, "/nowhere/");
  }
});

for (const transport of ["pci", "mmio"]) {
  for (const ring of ["split", "packed"]) {
    Deno.test(`example:console --guest ts over ${transport}, ${ring} ring: ports at a file and a socket`, async () => {
      const folder = await Deno.makeTempDir();
      try {
        await Deno.writeTextFile(`${folder}/log`, "before\n");
        const { code, out, err } = await runExample("console", [
          ...["--guest", "ts", "--json", "--transport", transport, "--ring", ring],
          ...["--port", `log=${folder}/log`, "--port", `agent=unix:${folder}/agent`],
        ]);
        assertEquals([code, err], [0, ""]);
        const { ok, figures } = lastLine<{ outputBytes: number; inputBytes: number }>(out);
        assertEquals(ok, true);
        assert(figures.outputBytes > 2 ** 20 && figures.inputBytes > 2 ** 20);
        const log = await Deno.readTextFile(`${folder}/log`);
        assert(log.startsWith("before\nwritten by our driver, "), log);
        // The socket went with the program.
        assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["log"]);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    });
  }
}

testWithoutKernel("console");

const ignore = await guestFiles() === null;

Deno.test({
  name: "example:console without a terminal logs in to Linux and checks what it says",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const { code, out, err } = await runExample("console", [
        ...["--json", "--port", `log=${folder}/log`, "--port", `agent=unix:${folder}/agent`],
      ]);
      assertEquals([code, err], [0, ""]);
      assertEquals(lastLine(out).ok, true);
      assertStringIncludes(await Deno.readTextFile(`${folder}/log`), "written by Linux");
      assertStringIncludes(out, "The console works: Linux and the host understand each other.");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** example:blk as its user meets it: what it prints, its exit status, and what it leaves alone. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import {
  assertOneSentence,
  type Ended,
  lastLine,
  runExample,
  type RunOptions,
  testHelp,
  testRefused,
  testWithoutKernel,
} from "./testing.ts";

const example = (args: string[], options: RunOptions = {}): Promise<Ended> =>
  runExample("blk", args, options);

/** A temporary image with some contents, checked to be untouched afterwards. */
async function untouched(size: number, work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".raw" });
  try {
    const bytes = new Uint8Array(size).map((_, i) => i * 31);
    await Deno.writeFile(path, bytes);
    await work(path);
    assertEquals(await Deno.readFile(path), bytes);
  } finally {
    await Deno.remove(path);
  }
}

const isOneSentence = (text: string): void => assertOneSentence("blk", text);

testHelp("blk", ["--transport", "--ring", "--queues", "--image", "--format", "--readonly"]);

testRefused("blk", [
  [["--frobnicate"], "--frobnicate"],
  [["disk.raw"], "disk.raw"],
  [["--transport", "usb"], "pci or mmio"],
  [["--ring=round"], "split or packed"],
  [["--queues", "0"], "1 to 16"],
  [["--queues", "many"], "1 to 16"],
  [["--readonly"], "--image"],
  [["--format"], "--image"],
  [["--guest", "ts", "--shell"], "--guest linux"],
  [["--transport", "mmio", "--interrupt", "intx"], "--transport pci"],
  [["--initrd", "x"], "--shell"],
  [["--image"], "needs a value"],
  [["--vhost-user", "x"], "--image"],
  [["--vhost-user", "x", "--image", "y", "--guest", "ts"], "--guest ts"],
]);

Deno.test("example:blk says that an image is missing", async () => {
  const { code, err } = await example(["--guest", "ts", "--image", "/nowhere/disk.raw"]);
  assertEquals(code, 1);
  isOneSentence(err);
  assertStringIncludes(err, "/nowhere/disk.raw");
});

Deno.test("example:blk refuses an image of an odd size, and leaves it as it is", () =>
  untouched(1000, async (path) => {
    const { code, err } = await example(["--guest", "ts", "--image", path]);
    assertEquals(code, 1);
    isOneSentence(err);
    assertStringIncludes(err, "512");
  }));

Deno.test("example:blk refuses a directory and an empty image", async () => {
  const folder = await Deno.makeTempDir();
  try {
    for (const path of [folder, `${folder}/empty.raw`]) {
      if (path !== folder) await Deno.writeFile(path, new Uint8Array(0));
      const { code, err } = await example(["--guest", "ts", "--image", path]);
      assertEquals(code, 1);
      isOneSentence(err);
    }
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
});

Deno.test("example:blk refuses an image that another program has locked", () =>
  untouched(512 * 64, async (path) => {
    using file = await Deno.open(path, { read: true, write: true });
    await file.lock(true);
    const { code, err } = await example(["--guest", "ts", "--image", path]);
    assertEquals(code, 1);
    isOneSentence(err);
    assertStringIncludes(err, "locked");
  }));

Deno.test("example:blk --guest ts leaves an image without --format as it is", () =>
  untouched(2 ** 20, async (path) => {
    const { code, out, err } = await example(["--guest", "ts", "--image", path]);
    assertEquals([code, err], [0, ""]);
    assertStringIncludes(out, "The disk works");
  }));

Deno.test("example:blk --guest ts --readonly reads an image and is refused to write", () =>
  untouched(2 ** 20, async (path) => {
    const { code, out } = await example(["--guest", "ts", "--image", path, "--readonly"]);
    assertEquals(code, 0);
    assertStringIncludes(out, "a write is refused");
  }));

for (const transport of ["pci", "mmio"]) {
  for (const ring of ["split", "packed"]) {
    Deno.test(`example:blk --guest ts over ${transport}, ${ring} ring: figures as JSON`, async () => {
      const { code, out, err } = await example(
        ["--guest", "ts", "--json", "--transport", transport, "--ring", ring, "--queues", "2"],
      );
      assertEquals([code, err], [0, ""]);
      const result = lastLine<{ requests: number; bytesWritten: number }>(out);
      assertEquals(result.ok, true);
      assert(result.figures.requests > 100);
      assertEquals(result.figures.bytesWritten, 8 * 2 ** 20);
    });
  }
}

Deno.test("example:blk --json tells of an error in its last line too", async () => {
  const { code, out } = await example(["--json", "--guest", "ts", "--image", "/nowhere/disk.raw"]);
  assertEquals(code, 1);
  assertEquals(lastLine(out).ok, false);
});

testWithoutKernel("blk");

const ignore = await guestFiles() === null;

Deno.test({
  name: "example:blk boots Linux, on an image of the user's that it leaves as it found it",
  ignore,
  fn: async () => {
    const path = await Deno.makeTempFile({ suffix: ".raw" });
    try {
      await Deno.truncate(path, 32 * 2 ** 20);
      const blank = await example(["--image", path, "--megabytes", "1"]);
      assertEquals(blank.code, 1);
      isOneSentence(blank.err);
      assertStringIncludes(blank.err, "--format");
      assertEquals((await Deno.readFile(path)).findIndex((byte) => byte !== 0), -1);

      const formatted = await example(["--image", path, "--format", "--megabytes", "1", "--json"]);
      assertEquals([formatted.code, formatted.err], [0, ""]);
      const result = JSON.parse(formatted.out.trimEnd().split("\n").at(-1)!);
      assertEquals([result.ok, result.guest], [true, "linux"]);
      assert(result.figures.requests > 10);

      const readonly = await example(["--image", path, "--readonly"]);
      assertEquals([readonly.code, readonly.err], [0, ""]);
      assertStringIncludes(readonly.out, "a write is refused");

      await Deno.truncate(path, 16 * 2 ** 20);
      const before = await Deno.readFile(path);
      const truncated = await example(["--image", path, "--megabytes", "1"]);
      assertEquals(truncated.code, 1);
      isOneSentence(truncated.err);
      assertEquals(await Deno.readFile(path), before);
    } finally {
      await Deno.remove(path);
    }
  },
});

Deno.test({
  name: "example:blk --shell lends the guest's shell to what comes in",
  ignore,
  fn: async () => {
    const { code, out, err } = await example(["--megabytes", "1", "--shell"], {
      stdin: "echo the answer is $((6*7)); ls /dev/vda; exit\n",
    });
    assertEquals([code, err], [0, ""]);
    assertStringIncludes(out, "the answer is 42");
    assertStringIncludes(out, "The disk works");
  },
});

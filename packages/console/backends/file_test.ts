import { assertEquals, assertThrows } from "@std/assert";
import { ConsoleDevice } from "../mod.ts";
import { RawConsoleDriver, turns } from "../testing.ts";
import { FileConsole } from "./file.ts";

Deno.test("file console: output is appended, or replaces what was there, and ends at the bound", async () => {
  const path = await Deno.makeTempFile();
  try {
    const write = async (text: string, options = {}): Promise<FileConsole> => {
      const log = FileConsole.open(path, options);
      const device = new ConsoleDevice({ ports: [{ backend: log }] });
      const driver = await RawConsoleDriver.open(device);
      driver.output(0, text, [1]);
      await turns();
      assertEquals(driver.used[1], 1);
      log.close();
      return log;
    };
    await write("one\n");
    await write("two\n");
    assertEquals(await Deno.readTextFile(path), "one\ntwo\n");
    const bounded = await write("three\n", { append: false, maxBytes: 4 });
    assertEquals([await Deno.readTextFile(path), bounded.dropped], ["thre", 2]);
    const long = "x".repeat(200_001);
    await write(long, { append: false });
    assertEquals((await Deno.readTextFile(path)) === long, true);
  } finally {
    await Deno.remove(path);
  }
  assertThrows(() => FileConsole.open(path, { maxBytes: -1 }), RangeError);
  assertThrows(() => FileConsole.open(`${path}/no/such`));
});

Deno.test({
  name: "file console: a file that takes no more closes the port, and the guest goes on",
  ignore: Deno.build.os !== "linux",
  fn: async () => {
    const errors: unknown[] = [];
    const log = FileConsole.open("/dev/full");
    const device = new ConsoleDevice({
      ports: [{ backend: log }],
      onError: (error) => errors.push(error),
    });
    const driver = await RawConsoleDriver.open(device);
    driver.output(0, "lost");
    driver.output(0, "too");
    await turns();
    assertEquals(errors.length, 1);
    assertEquals([device.port(0)!.hostOpen, driver.used[1], driver.needsReset], [false, 2, false]);
    log.close();
  },
});

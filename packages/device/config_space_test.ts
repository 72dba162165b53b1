import { assert, assertEquals } from "@std/assert";
import { ConfigSpace } from "./mod.ts";

Deno.test("config space: reads of each width are little endian, and 0 beyond the end", () => {
  const config = new ConfigSpace(6);
  config.bytes.set([0x11, 0x22, 0x33, 0x44, 0x85, 0x96]);
  assertEquals(config.read(0, 1), 0x11);
  assertEquals(config.read(1, 2), 0x3322);
  assertEquals(config.read(0, 4), 0x44332211);
  assertEquals(config.read(2, 4), 0x96854433);
  assertEquals(config.read(4, 4), 0x9685);
  for (const offset of [6, 0x1000, 0xffff_fffc, -1, -4, 0.5, NaN]) {
    assertEquals(config.read(offset, 1), 0, `at ${offset}`);
  }
  assertEquals(ConfigSpace.empty.read(0, 4), 0);
});

Deno.test("config space: a space without onWrite is read-only to the driver", () => {
  const config = new ConfigSpace(4);
  config.write(0, 4, 0xffff_ffff);
  assertEquals([...config.bytes], [0, 0, 0, 0]);
});

Deno.test("config space: onWrite decides about each write, and sees only whole ones within the space", () => {
  const asked: [number, number[]][] = [];
  const config = new ConfigSpace(8, (offset, bytes) => {
    asked.push([offset, [...bytes]]);
    return offset === 4;
  });
  config.write(4, 2, 0x1_2345);
  config.write(0, 4, 0xffff_ffff);
  config.write(7, 2, 0xffff);
  config.write(8, 1, 0xff);
  config.write(-1, 1, 0xff);
  config.write(0xffff_ffff, 4, 0xff);
  assertEquals(asked, [[4, [0x45, 0x23]], [0, [0xff, 0xff, 0xff, 0xff]]]);
  assertEquals([...config.bytes], [0, 0, 0, 0, 0x45, 0x23, 0, 0]);
});

Deno.test("config space: the generation changes with the device's changes, not with the driver's", () => {
  const config = new ConfigSpace(8, () => true);
  let told = 0;
  config.listener = () => told++;
  const before = config.generation;
  config.write(0, 4, 7);
  assertEquals([config.generation, told], [before, 0]);
  config.update((view) => view.setUint32(4, 0x1234, true));
  assertEquals([config.generation, told, config.read(4, 4)], [before + 1, 1, 0x1234]);
  config.listener = null;
  config.update(() => {});
  assertEquals([config.generation, told], [before + 2, 1]);
});

Deno.test("config space: while it is held, changes of the device wait", () => {
  const config = new ConfigSpace(8, () => true);
  let told = 0;
  config.listener = () => told++;
  config.hold();
  config.hold();
  const before = config.generation;
  config.update((view) => view.setUint32(0, 1, true));
  config.update((view) => view.setUint32(4, view.getUint32(0, true) + 1, true));
  assertEquals([config.read(0, 4), config.read(4, 4), config.generation, told], [0, 0, before, 0]);
  assert(config.pending);
  assert(config.release());
  assertEquals([config.read(0, 4), config.read(4, 4), config.generation], [1, 2, before + 1]);
  assertEquals([told, config.pending], [0, false], "the caller tells");
  assert(!config.release());
  config.hold();
  assert(!config.release());
  assertEquals(config.generation, before + 1, "nothing changed");
  config.update((view) => view.setUint32(0, 5, true));
  assertEquals([config.read(0, 4), told], [5, 1]);
});

Deno.test("config space: only a write that lies in the given range as a whole is for any time", () => {
  const config = new ConfigSpace(12, () => true, { offset: 4, length: 4 });
  for (const [offset, size] of [[4, 4], [4, 1], [7, 1], [6, 2]] as const) {
    assert(config.writableAnytime(offset, size), `${size} at ${offset}`);
  }
  for (
    const [offset, size] of [[3, 1], [3, 2], [8, 1], [7, 2], [6, 4], [-1, 4], [NaN, 1]] as const
  ) {
    assert(!config.writableAnytime(offset, size), `${size} at ${offset}`);
  }
  assert(!new ConfigSpace(12, () => true).writableAnytime(4, 4));
});

import { assertEquals, assertThrows } from "@std/assert";
import { type QueueArea, QueueSetup, type SavedQueue } from "./mod.ts";

Deno.test("queue setup: addresses are written in halves and read back as they were written", () => {
  const setup = new QueueSetup(256);
  for (const area of [0, 1, 2] as QueueArea[]) {
    setup.writeAddress(area, 0, 0xffff_fff0 + area);
    setup.writeAddress(area, 1, 0x1234_5678 + area);
  }
  for (const area of [0, 1, 2] as QueueArea[]) {
    assertEquals(setup.readAddress(area, 0), 0xffff_fff0 + area);
    assertEquals(setup.readAddress(area, 1), 0x1234_5678 + area);
  }
  setup.writeAddress(1, 1, 1);
  setup.writeAddress(1, 0, 0x1000);
  assertEquals(setup.address(1), 0x1_0000_1000);
  assertEquals(setup.config().driverArea, 0x1_0000_1000);
});

Deno.test("queue setup: an enabled queue cannot be moved or resized", () => {
  const setup = new QueueSetup(256);
  setup.setSize(16);
  setup.writeAddress(0, 0, 0x1000);
  setup.enabled = true;
  setup.setSize(32);
  setup.writeAddress(0, 0, 0x2000);
  assertEquals([setup.size, setup.address(0)], [16, 0x1000]);
});

Deno.test("queue setup: a reset brings back the largest size and no addresses", () => {
  const setup = new QueueSetup(256);
  setup.setSize(3);
  setup.writeAddress(2, 1, 5);
  setup.enabled = true;
  setup.resetting = true;
  setup.reset();
  assertEquals(
    [setup.size, setup.address(2), setup.enabled, setup.resetting],
    [256, 0, false, false],
  );
});

Deno.test("queue setup: saved and restored, with any addresses that a driver can write", () => {
  const setup = new QueueSetup(256);
  setup.setSize(0xffff);
  for (const area of [0, 1, 2] as QueueArea[]) {
    setup.writeAddress(area, 0, 0xffff_ffff);
    setup.writeAddress(area, 1, 0xffff_fffe);
  }
  const copy = new QueueSetup(256);
  copy.restore(structuredClone(setup.save(null)));
  assertEquals(copy.size, 0xffff);
  for (const area of [0, 1, 2] as QueueArea[]) {
    assertEquals([copy.readAddress(area, 0), copy.readAddress(area, 1)], [
      0xffff_ffff,
      0xffff_fffe,
    ]);
  }
});

Deno.test("queue setup: a malformed saved queue is refused, and nothing of it is taken over", () => {
  const good = new QueueSetup(8).save(null);
  const bad: unknown[] = [
    null,
    {},
    { ...good, size: -1 },
    { ...good, size: 0x1_0000 },
    { ...good, size: 1.5 },
    { ...good, size: "8" },
    { ...good, addresses: good.addresses.slice(1) },
    { ...good, addresses: [...good.addresses, 0n] },
    { ...good, addresses: 7 },
    { ...good, addresses: [-1n, 0n, 0n] },
    { ...good, addresses: [0n, 1n << 64n, 0n] },
    { ...good, addresses: [0n, "0", 0n] },
    { ...good, enabled: 1 },
    { ...good, position: 7 },
    { ...good, position: undefined },
  ];
  for (const saved of bad) {
    const setup = new QueueSetup(8);
    setup.setSize(4);
    assertThrows(
      () => setup.restore(saved as SavedQueue),
      TypeError,
      "",
      JSON.stringify(saved, text),
    );
    assertEquals(setup.size, 4);
  }
});

function text(_key: string, value: unknown): unknown {
  return typeof value === "bigint" ? String(value) : value;
}

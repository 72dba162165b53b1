import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { FakePci } from "../testing/fake_pci.ts";
import { deviceTypeOf, findStructures, listCapabilities, ProbeError } from "./driver.ts";

const all = () => true;

Deno.test("PCI probe: IDs of modern and transitional devices", () => {
  assertEquals(deviceTypeOf(0x1af4, 0x1041), 1);
  assertEquals(deviceTypeOf(0x1af4, 0x107f), 63);
  assertEquals(deviceTypeOf(0x1af4, 0x1040), null);
  assertEquals(deviceTypeOf(0x1af4, 0x1080), null);
  assertEquals(deviceTypeOf(0x8086, 0x1041), null);
  const transitional = [0x1000, 0x1001, 0x1002, 0x1003, 0x1004, 0x1005, 0x1009];
  assertEquals(transitional.map((id) => deviceTypeOf(0x1af4, id)), [1, 2, 5, 3, 8, 4, 9]);
  assertEquals(deviceTypeOf(0x1af4, 0x1006), null);
});

Deno.test("PCI probe: no list without the status bit", () => {
  const pci = new FakePci().usual();
  assertEquals(listCapabilities(pci).length, 3);
  pci.bytes[6] = 0;
  assertEquals(listCapabilities(pci), []);
});

Deno.test("PCI probe: a list in a circle, out of the space or into the header ends", () => {
  const pci = new FakePci();
  const first = pci.cap([9, 0, 16, 1], 16);
  const second = pci.cap([9, 0, 16, 1], 16);
  pci.bytes[second + 1] = first;
  assertEquals(listCapabilities(pci).map((cap) => cap.offset), [first, second]);
  // The two lowest bits are not part of the link.
  pci.bytes[0x34] = first | 3;
  assertEquals(listCapabilities(pci).length, 2);
  pci.bytes[second + 1] = 0x10;
  assertEquals(listCapabilities(pci).length, 2);
  pci.bytes[second + 1] = 0xfc;
  assertEquals(listCapabilities(pci).length, 3);
});

Deno.test("PCI probe: the first usable structure of each type", () => {
  const pci = new FakePci();
  pci.structure(1, 6, 0, 0x40);
  pci.structure(1, 4, 2, 0x40);
  pci.structure(1, 4, 0, 0x37);
  pci.structure(1, 4, 0x100, 0xffff_ffff);
  pci.structure(1, 4, 0x200, 0x40);
  pci.structure(3, 3, 0x33, 1, [], 40);
  pci.structure(2, 0, 0x40, 8, [2]);
  const found = findStructures(pci, all);
  assertEquals([found.common.bar, found.common.offset, found.common.length], [
    4,
    0x100,
    0xffff_ffff,
  ]);
  assertEquals([found.isr.bar, found.isr.offset], [3, 0x33]);
  assertEquals([found.notify.bar, found.notify.offset, found.notify.multiplier], [0, 0x40, 2]);
  assertEquals([found.device, found.msix], [null, null]);
});

Deno.test("PCI probe: a BAR without resources is passed over", () => {
  const pci = new FakePci();
  pci.structure(2, 0, 0, 8, [4]);
  pci.usual();
  assertEquals(findStructures(pci, all).notify.bar, 0);
  assertEquals(findStructures(pci, (bar) => bar !== 0).notify.bar, 4);
  assertThrows(() => findStructures(pci, () => false), ProbeError, "common");
});

Deno.test("PCI probe: capabilities too short for what they claim are ignored", () => {
  const pci = new FakePci().usual();
  pci.structure(4, 4, 0x2000, 16, [], 12);
  pci.structure(8, 4, 0x2000, 16, [], 20);
  pci.structure(9, 0, 0, 0, [], 4);
  const found = findStructures(pci, all);
  assertEquals([found.device, found.sharedMemory, found.vendorData], [null, [], []]);
  // One that runs out of configuration space.
  const tail = new FakePci().usual();
  tail.bytes[0x79] = 0xf8;
  tail.bytes.set([9, 0, 24, 1, 4, 0, 0, 0], 0xf8);
  assertEquals(findStructures(tail, all).common.offset, 0);
});

Deno.test("PCI probe: what a modern device has to have", () => {
  for (const [missing, name] of [[1, "common"], [2, "notify"], [3, "ISR"]] as const) {
    const pci = new FakePci();
    if (missing !== 1) pci.structure(1, 4, 0, 0x40);
    if (missing !== 2) pci.structure(2, 4, 0x3000, 4, [0]);
    if (missing !== 3) pci.structure(3, 4, 0x1000, 1);
    assertThrows(() => findStructures(pci, all), ProbeError, name);
  }
});

Deno.test("PCI probe: shared memory with 64-bit places, and other types", () => {
  const pci = new FakePci().usual();
  pci.structure(8, 4, 0x1000, 0x2000, [1, 2]);
  pci.structure(7, 4, 0, 4);
  pci.structure(0xff, 4, 0, 4);
  const msix = pci.cap([0x11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  const found = findStructures(pci, all);
  assertEquals(found.sharedMemory, [{
    id: 0,
    bar: 4,
    offset: 0x1_0000_1000,
    length: 0x2_0000_2000,
  }]);
  assertEquals(found.msix, msix);
});

Deno.test("PCI probe: no configuration space makes it hang or fail otherwise", () => {
  fc.assert(fc.property(fc.uint8Array({ minLength: 192, maxLength: 192 }), (bytes) => {
    const pci = new FakePci();
    pci.bytes.set(bytes, 64);
    pci.bytes[0x34] = bytes[0]!;
    try {
      findStructures(pci, all);
    } catch (error) {
      if (!(error instanceof ProbeError)) throw error;
    }
  }));
});

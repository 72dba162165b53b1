import { assertEquals } from "@std/assert";
import { type BusHandler, readAligned, writeAligned } from "./bus.ts";
import { MemoryWindows } from "./windows.ts";

/** Sixteen bytes that remember how they were accessed. */
function recorder(): BusHandler & { log: string[]; bytes: Uint8Array } {
  const bytes = Uint8Array.from({ length: 16 }, (_, i) => i + 1);
  const view = new DataView(bytes.buffer);
  const log: string[] = [];
  return {
    log,
    bytes,
    read(offset, size) {
      log.push(`r${size}@${offset}`);
      if (size === 1) return view.getUint8(offset);
      return size === 2 ? view.getUint16(offset, true) : view.getUint32(offset, true);
    },
    write(offset, size, value) {
      log.push(`w${size}@${offset}`);
      if (size === 1) view.setUint8(offset, value);
      else if (size === 2) view.setUint16(offset, value, true);
      else view.setUint32(offset, value, true);
    },
  };
}

Deno.test("aligned accesses arrive as they are, others a byte at a time and not beyond the end", () => {
  const target = recorder();
  assertEquals(readAligned(target, 4, 4, 16), 0x08070605);
  assertEquals(readAligned(target, 2, 2, 16), 0x0403);
  assertEquals(target.log.splice(0), ["r4@4", "r2@2"]);
  assertEquals(readAligned(target, 3, 2, 16), 0x0504);
  assertEquals(readAligned(target, 14, 4, 16), 0xffff_100f);
  assertEquals(target.log.splice(0), ["r1@3", "r1@4", "r1@14", "r1@15"]);
  writeAligned(target, 8, 4, 16, -2);
  writeAligned(target, 12, 2, 16, 0x1_2345);
  writeAligned(target, 15, 2, 16, 0xaabb);
  assertEquals(target.log, ["w4@8", "w2@12", "w1@15"]);
  assertEquals([...target.bytes.subarray(8)], [0xfe, 0xff, 0xff, 0xff, 0x45, 0x23, 15, 0xbb]);
});

Deno.test("memory windows are found by any of their addresses, and the first of two wins", () => {
  const windows = new MemoryWindows();
  const a = recorder();
  const b = recorder();
  windows.map(0xfef0_0000, 16, a);
  windows.map(0xfef0_0008, 16, b);
  assertEquals(windows.find(0xfeef_ffff), null);
  assertEquals(windows.find(0xfef0_0008)?.handler, a);
  const window = windows.find(0xfef0_0010)!;
  assertEquals(window.handler, b);
  assertEquals(windows.read(window, 0xfef0_0010, 2), 0x0a09);
  windows.write(window, 0xfef0_0010, 1, 0x77);
  assertEquals(b.bytes[8], 0x77);
  windows.unmap(a);
  assertEquals(windows.find(0xfef0_0000), null);
  assertEquals(windows.find(0xfef0_0008)?.handler, b);
});

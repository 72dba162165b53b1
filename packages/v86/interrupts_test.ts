import { assertEquals, assertThrows } from "@std/assert";
import { decodeMessage, LineSource, WiredLines } from "./interrupts.ts";

Deno.test("a shared line stays asserted until the last device releases it", () => {
  const seen: [number, boolean][] = [];
  const lines = new WiredLines((line, asserted) => seen.push([line, asserted]));
  const a = new LineSource(lines, () => [16]);
  const b = new LineSource(lines, () => [16, 11]);
  a.set(true);
  a.set(true);
  b.set(true);
  a.set(false);
  assertEquals(seen, [[16, true], [11, true]]);
  assertEquals(lines.level(16), true);
  b.set(false);
  b.set(false);
  assertEquals(seen.slice(2), [[16, false], [11, false]]);
  assertEquals(lines.level(16), false);
  assertThrows(() => lines.release(16), RangeError);
});

Deno.test("a device releases the lines that it asserted, even if it was wired elsewhere meanwhile", () => {
  const levels = new Map<number, boolean>();
  let wired = [16, 10];
  const lines = new WiredLines((line, asserted) => levels.set(line, asserted));
  const source = new LineSource(lines, () => wired);
  source.set(true);
  wired = [16, 11];
  source.set(false);
  assertEquals([...levels], [[16, false], [10, false]]);
  source.set(true);
  assertEquals(levels.get(11), true);
  levels.clear();
  lines.replay();
  assertEquals([...levels], [[16, true], [10, false], [11, true]]);
});

Deno.test("only writes to the local APIC are interrupt messages", () => {
  assertEquals(decodeMessage(0xfee0_0000, 0, 0x4031), { vector: 0x31 });
  assertEquals(decodeMessage(0xfeef_f00c, 0, 0x0131), { vector: 0x31 }); // lowest priority
  assertEquals(decodeMessage(0xfee0_0000, 1, 0x31), null);
  assertEquals(decodeMessage(0xfed0_0000, 0, 0x31), null);
  assertEquals(decodeMessage(0xfee0_0000, 0, 0x0431), null); // NMI
  assertEquals(decodeMessage(0xfee0_0000, 0, 0x0f), null); // reserved vector
  assertEquals(decodeMessage(0, 0, 0), null);
});

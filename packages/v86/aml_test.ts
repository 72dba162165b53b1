import { assertEquals, assertThrows } from "@std/assert";
import * as aml from "./aml.ts";

Deno.test("AML integers take their shortest form", () => {
  assertEquals(aml.integer(0), [0x00]);
  assertEquals(aml.integer(1), [0x01]);
  assertEquals(aml.integer(0x7f), [0x0a, 0x7f]);
  assertEquals(aml.integer(0x1234), [0x0b, 0x34, 0x12]);
  assertEquals(aml.integer(0x12345678), [0x0c, 0x78, 0x56, 0x34, 0x12]);
  assertThrows(() => aml.integer(2 ** 32), RangeError);
  assertThrows(() => aml.integer(-1), RangeError);
});

Deno.test("AML names are padded, and only one segment is taken", () => {
  assertEquals(aml.nameString("\\_SB"), [0x5c, 0x5f, 0x53, 0x42, 0x5f]);
  assertEquals(aml.nameString("PCI0"), [0x50, 0x43, 0x49, 0x30]);
  for (const wrong of ["", "TOOLONG", "0ABC", "a", "A.B"]) {
    assertThrows(() => aml.nameString(wrong), RangeError);
  }
});

Deno.test("AML compresses EISA identifiers", () => {
  assertEquals(aml.eisaId("PNP0A03"), [0x0c, 0x41, 0xd0, 0x0a, 0x03]);
  assertThrows(() => aml.eisaId("VIRT0001"), RangeError);
});

Deno.test("AML package lengths count themselves, in one to three bytes", () => {
  const lengthOf = (bytes: aml.Aml): number => {
    const extra = bytes[1]! >> 6;
    let length = bytes[1]! & (extra === 0 ? 0x3f : 0x0f);
    for (let i = 0; i < extra; i++) length += bytes[2 + i]! << 4 + 8 * i;
    return length;
  };
  for (const size of [0, 1, 57, 58, 59, 60, 61, 62, 63, 64, 300, 4000, 5000, 70000]) {
    const bytes = aml.scope("\\_SB", [new Array(size).fill(0)]);
    assertEquals(lengthOf(bytes), bytes.length - 1, `body of ${size}`);
  }
});

Deno.test("AML resource templates end with the end tag and know their size", () => {
  const bytes = aml.resources([aml.memory32Fixed(0xfef0_0000, 0x1000), aml.levelInterrupt(20)]);
  assertEquals(bytes.slice(0, 4), [0x11, 26, 0x0a, 23]);
  assertEquals(bytes.slice(4, 16), [0x86, 9, 0, 1, 0, 0, 0xf0, 0xfe, 0, 0x10, 0, 0]);
  assertEquals(bytes.slice(16, 25), [0x89, 6, 0, 9, 1, 20, 0, 0, 0]);
  assertEquals(bytes.slice(-2), [0x79, 0]);
});

import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { checkInteger } from "./check_integer.ts";

Deno.test("An integer within its range is given back, the ends of the range too", () => {
  fc.assert(fc.property(fc.maxSafeInteger(), fc.maxSafeInteger(), fc.maxSafeInteger(), (...of) => {
    const [min, value, max] = of.sort((a, b) => a - b) as [number, number, number];
    assertEquals(checkInteger("size", value, min, max), value);
    assertEquals(checkInteger("size", min, min, max), min);
    assertEquals(checkInteger("size", max, min, max), max);
  }));
});

Deno.test("What is not given becomes the default, which may lie out of the range", () => {
  assertEquals(checkInteger("mtu", undefined, 68, 65535, 0), 0);
  assertEquals(checkInteger("mtu", 1500, 68, 65535, 0), 1500);
});

Deno.test("What is no integer within the range is refused by name, range and value", () => {
  for (const value of [0, 9, 1.5, -1, NaN, Infinity, -Infinity]) {
    assertThrows(
      () => checkInteger("queues", value, 1, 8, 4),
      RangeError,
      `queues must be an integer from 1 to 8: it is ${value}`,
    );
  }
  const [text, nothing] = ["4", null] as unknown as [number, number];
  assertThrows(() => checkInteger("queues", text, 1, 8), RangeError, "it is 4");
  assertThrows(() => checkInteger("queues", nothing, 0, 8), RangeError, "it is null");
  assertThrows(() => checkInteger("queues", undefined, 1, 8), RangeError, "it is undefined");
});

Deno.test("Without an upper end every integer is in range that a number counts exactly", () => {
  assertEquals(checkInteger("buffers", 2 ** 53 - 1, 1, Infinity), 2 ** 53 - 1);
  for (const value of [0, 2 ** 53, Infinity]) {
    assertThrows(
      () => checkInteger("buffers", value, 1, Infinity),
      RangeError,
      `buffers must be an integer of 1 or more: it is ${value}`,
    );
  }
});

/** The table of stations: what a Map with strings would say, within its bounds. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { formatMac, parseStationMac } from "./mac_address.ts";
import { Learned, MacTable } from "./mac_table.ts";

const AGE = 1000;
const PORTS = 4;

Deno.test("the table remembers what a map would, until it is old or full", () => {
  // Few stations, so that they meet again; the VLANs use all of their 12 bits.
  const stations = [0, 1, 0x100, 0xffe].flatMap((vlan) =>
    [0, 0x020000, 0xfeffff].flatMap((high) =>
      [1, 2, 3, 0x800000, 0xffffff].map((low) => ({ high, low, vlan }))
    )
  );
  const step = fc.record({
    which: fc.nat(),
    port: fc.nat(PORTS - 1),
    wait: fc.constantFrom(0, 1, 400, 700),
    act: fc.constantFrom("learn", "learn", "learn", "find", "forget"),
  });
  // As many as there is room for: those that collide are many then.
  const count = fc.constantFrom(8, 60);
  fc.assert(
    fc.property(fc.array(step, { maxLength: 200 }), count, fc.integer(), (steps, count, seed) => {
      const table = new MacTable(count, PORTS, AGE, seed);
      const model = new Map<string, { port: number; heard: number }>();
      let now = 0;
      for (const { which, port, wait, act } of steps) {
        const { high, low, vlan } = stations[which * 7 % count]!;
        now += wait;
        const key = `${high}.${low}.${vlan}`;
        const known = model.get(key);
        const expected = known !== undefined && now - known.heard <= AGE ? known.port : -1;
        if (act === "find") assertEquals(table.find(high, low, vlan, now), expected);
        else if (act === "forget") {
          table.forgetPort(port);
          for (const [each, entry] of model) if (entry.port === port) model.delete(each);
          assertEquals(table.sizeOf(port), 0);
        } else {
          const did = table.learn(high, low, vlan, port, 1000, now);
          // An old entry may be found or not: who comes back is new, moved, or was here all the time.
          if (expected === port) assertEquals(did, Learned.known);
          else if (expected >= 0) assertEquals(did, Learned.moved);
          else assert(did !== Learned.refused);
          model.set(key, { port, heard: now });
        }
        for (const [key, entry] of model) {
          const [high, low, vlan] = key.split(".").map(Number) as [number, number, number];
          const there = now - entry.heard <= AGE ? entry.port : -1;
          assertEquals(table.find(high, low, vlan, now), there, key);
        }
      }
      const young = [...model].filter(([, { heard }]) => now - heard <= AGE)
        .map(([key, { port }]) => `${key} ${port}`);
      const listed = [...table.entries(now)]
        .map(({ high, low, vlan, port }) => `${high}.${low}.${vlan} ${port}`);
      assertEquals(listed.sort(), young.sort());
      let sum = 0;
      for (let port = 0; port < PORTS; port++) sum += table.sizeOf(port);
      assertEquals(table.size, sum);
    }),
    { numRuns: 200 },
  );
});

Deno.test("a flood of addresses fills neither the table nor more than the port's share", () => {
  const table = new MacTable(1000, 2, AGE, 7);
  table.learn(1, 1, 0, 1, 300, 0);
  let refused = 0;
  for (let i = 0; i < 100_000; i++) {
    if (table.learn(2, i & 0xffffff, 0, 0, 300, 1) === Learned.refused) refused++;
    assert(table.sizeOf(0) <= 300);
  }
  assertEquals(refused, 100_000 - 300);
  assertEquals(table.find(1, 1, 0, 1), 1, "who was there before is still known");
  for (let i = 0; i < 100_000; i++) table.learn(3, i, 0, 1, Infinity, 1);
  assertEquals(table.size, 1000);
  // Time makes room, for as many as there were, and at once.
  for (let i = 0; i < 900; i++) {
    assertEquals(table.learn(4, i, 0, 0, 900, 2 * AGE), Learned.added, `${i}`);
  }
  assert(table.size <= 1000);
});

Deno.test("a full table costs a frame no walk through it", () => {
  const table = new MacTable(1 << 18, 1, 300_000, 7);
  for (let i = 0; i < 1 << 18; i++) table.learn(2, i, 0, 0, Infinity, 0);
  const start = performance.now();
  // A walk takes above half a millisecond: 20,000 of them above 10 seconds.
  for (let i = 0; i < 20_000; i++) {
    table.learn(4, i, 0, 0, Infinity, i);
    if (i % 100 === 0) assert(performance.now() - start < 5000);
  }
});

Deno.test("MAC addresses are read and written", () => {
  for (const mac of ["52:54:00:12:34:56", "fe:ff:ff:ff:ff:ff", "00:00:00:00:00:01"]) {
    assertEquals(formatMac(parseStationMac(mac)), mac);
  }
  assertEquals(
    parseStationMac("52:54:00:12:34:56"),
    parseStationMac(new Uint8Array([0x52, 0x54, 0, 0x12, 0x34, 0x56])),
  );
  assertThrows(() => parseStationMac("52:54:00:12:34"), TypeError, "52:54:00:12:34:56");
  assertThrows(() => parseStationMac("52:54:00:12:34:5g"), TypeError);
  assertThrows(() => parseStationMac(new Uint8Array(7)), TypeError, "6 bytes");
  assertThrows(() => parseStationMac("01:00:00:00:00:00"), RangeError, "group");
  assertThrows(() => parseStationMac("00:00:00:00:00:00"), RangeError, "zero");
});

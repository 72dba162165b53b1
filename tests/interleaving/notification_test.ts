/**
 * The notification rules of both formats (virtio 1.4, 2.7.7 to 2.7.10 and 2.8.10), in every order of the two sides' atomic
 * steps, on small rings: nobody waits for ever, nothing is seen before it is written, and nothing races.
 */
import { assert } from "@std/assert";
import { explore } from "./explorer.ts";
import { type RingCase, ringExploration } from "./rings.ts";

function name(test: RingCase): string {
  return [
    `${test.packed ? "packed" : "split"} ring of ${test.size}`,
    test.eventIdx ? "event index" : "flags",
    `${test.requests} requests`,
    ...(test.batch > 1 ? [`${test.batch} at a time`] : []),
    ...(test.pair ? ["two descriptors each"] : []),
    ...(test.quiet ? ["interrupts off while looking"] : []),
    ...(test.eager ? ["published one by one"] : []),
    ...(test.shift === undefined ? [] : [`indexes from ${test.shift} on`]),
  ].join(", ");
}

const cases: RingCase[] = [];
for (const packed of [false, true]) {
  for (const eventIdx of [false, true]) {
    const base = {
      packed,
      eventIdx,
      requests: 3,
      batch: 1,
      pair: false,
      quiet: false,
      eager: false,
    };
    cases.push({ ...base, size: 1, quiet: eventIdx });
    cases.push({ ...base, size: 1, quiet: !eventIdx, eager: true });
    cases.push({ ...base, size: 2, quiet: true });
    cases.push({ ...base, size: 2, pair: true });
    // A batch that fills the ring, twice.
    cases.push({ ...base, size: 2, requests: 4, batch: 2, quiet: true });
    cases.push({ ...base, size: 2, batch: 2, eager: true });
    // Chains that lie across the wrap.
    if (packed) cases.push({ ...base, size: 3, pair: true });
    // The wrap of 16-bit indexes, on the device's side.
    else {
      cases.push({ ...base, size: 1, shift: 0xfffe });
      cases.push({ ...base, size: 2, shift: 0xfffe });
    }
  }
}

for (const test of cases) {
  Deno.test(`no lost wake-up, nothing seen before it is written, in any order: ${name(test)}`, () => {
    const { states, ends } = explore(ringExploration(test));
    // So few would mean that nothing was explored.
    assert(states > 500 && ends > 50, `${states} states`);
  });
}

/**
 * Guest memory. Run by `deno bench bench/memory_bench.ts`.
 *
 * - lookup: finding the region of an address; one region, and addresses that go round 4, 64 or 256 regions. Guards the table
 *   that remembers where addresses were found: the four cases cost about the same.
 * - fields: reading and writing a u32 by address.
 * - bulk: 64 bytes and 4 KiB in and out.
 *
 * Each iteration is 1000 operations, so that milliseconds a run read as microseconds an operation.
 */
import { GuestMemory } from "@virtio/memory";

const TIMES = 1000;
const SIZE = 0x10000;

for (const count of [1, 4, 64, 256]) {
  const memory = new GuestMemory(
    Array.from({ length: count }, (_, i) => ({
      base: 3 * SIZE * i,
      buffer: new SharedArrayBuffer(SIZE),
    })),
  );
  let turn = 0;
  let sum = 0;
  Deno.bench(`lookup, ${count} regions in turn`, { group: "lookup", baseline: count === 1 }, () => {
    for (let i = 0; i < TIMES; i++) {
      turn = turn + 1 === count ? 0 : turn + 1;
      sum = (sum + memory.lookup(3 * SIZE * turn + 64, 16)!.id) | 0;
    }
  });
}

const memory = GuestMemory.allocate(1 << 20);
let sum = 0;
Deno.bench("readU32", { group: "fields", baseline: true }, () => {
  for (let i = 0; i < TIMES; i++) sum = (sum + memory.readU32(4 * i)) | 0;
});
Deno.bench("writeU32", { group: "fields" }, () => {
  for (let i = 0; i < TIMES; i++) memory.writeU32(4 * i, i);
});

for (const size of [64, 4096]) {
  const bytes = new Uint8Array(size);
  Deno.bench(`read ${size} bytes`, { group: `bulk, ${size}`, baseline: true }, () => {
    for (let i = 0; i < TIMES; i++) memory.read(64 * (i & 1023), bytes);
  });
  Deno.bench(`write ${size} bytes`, { group: `bulk, ${size}` }, () => {
    for (let i = 0; i < TIMES; i++) memory.write(64 * (i & 1023), bytes);
  });
}

/** The same request bytes give the same answer, however the driver cuts them into descriptors (2.7.4.1, message framing). */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { Rig, turns } from "../../packages/device/testing.ts";
import { FORMATS, type RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";

const SECTORS = 16;
const SEAM = 0x8_0000;
const TABLE = 0x4_0000;
const UNTOUCHED = 0xee;
/** DISCARD, FLUSH, WRITE_ZEROES. */
const DEVICE_FEATURES = (1n << 13n) | (1n << 9n) | (1n << 14n);

interface Request {
  /** Device-readable bytes. */
  readonly out: Uint8Array;
  /** Number of device-writable bytes. */
  readonly room: number;
}

interface Answer {
  readonly used: number;
  readonly bytes: number[];
  readonly disk: number;
  readonly broken: boolean;
}

/** How a run of bytes is cut: lengths, the last piece takes the rest; and how far apart the pieces are. */
interface Cut {
  readonly lengths: readonly number[];
  readonly gap: number;
  /** Where the first piece begins. */
  readonly base: number;
  /** Whether empty descriptors are put between. */
  readonly empties: boolean;
}

/** Cuts `total` bytes into descriptors. */
function pieces(total: number, cut: Cut, write: boolean): RawDescriptor[] {
  const result: RawDescriptor[] = [];
  let address = cut.base;
  let left = total;
  for (const length of [...cut.lengths, total]) {
    const part = Math.min(length, left);
    if (part > 0) result.push({ address, length: part, write });
    if (cut.empties) result.push({ address: 2 ** 52, length: 0, write });
    address += part + cut.gap;
    left -= part;
  }
  return result;
}

/** A fresh disk and device, one request, its answer. */
async function answer(
  request: Request,
  readable: Cut,
  writable: Cut,
  ring: bigint,
  indirect: boolean,
  later: boolean,
): Promise<Answer> {
  const memory = new GuestMemory([
    { base: 0, buffer: new SharedArrayBuffer(SEAM) },
    { base: SEAM, buffer: new SharedArrayBuffer(SEAM) },
  ]);
  const disk = new Uint8Array(SECTORS * 512).map((_, i) => (i >> 9) * 7 + i);
  const base = new MemoryBackend(disk);
  const device = new BlkDevice({
    backend: later ? new LaterBackend(base) : base,
    queueSize: 64,
    id: "cut",
  });
  const rig = new Rig({ device, memory });
  const features = ring | DEVICE_FEATURES | VIRTIO_F_INDIRECT_DESC;
  const raw = rig.startRaw(features, 64);
  const chain = [
    ...pieces(request.out.length, readable, false),
    ...pieces(request.room, writable, true),
  ];
  if (chain.length === 0) chain.push({ address: 0, length: 0 });
  let done = 0;
  for (const { address, length, write } of chain) {
    if (write || length === 0) continue;
    memory.write(address, request.out.subarray(done, done + length));
    done += length;
  }
  const places = chain.filter(({ write, length }) => write === true && length > 0);
  for (const { address, length } of places) memory.fill(address, length, UNTOUCHED);
  const table = indirect || chain.length > 60;
  if (table) {
    raw.table(TABLE, chain);
    raw.send([{ address: TABLE, length: 16 * chain.length, indirect: true }]);
  } else {
    raw.send(chain);
  }
  rig.state.notify(0);
  if (later) await turns(4);
  const used = raw.takeUsed();
  const bytes: number[] = [];
  for (const { address, length } of places) {
    for (let i = 0; i < length; i++) bytes.push(memory.readU8(address + i));
  }
  let sum = 0;
  for (const byte of disk) sum = (Math.imul(sum, 31) + byte) | 0;
  assert(used.length === 1 || rig.needsReset, "it is answered, or the device asks for a reset");
  return { used: used[0]?.length ?? -1, bytes, disk: sum, broken: rig.needsReset };
}

/** The bytes of a request, and room for its answer. */
function requestOf(
  type: number,
  sector: number,
  high: number,
  data: Uint8Array,
  room: number,
): Request {
  const out = new Uint8Array(16 + data.length);
  const view = new DataView(out.buffer);
  view.setUint32(0, type, true);
  view.setUint32(8, sector, true);
  view.setUint32(12, high, true);
  out.set(data, 16);
  return { out, room };
}

/** Requests that succeed. */
const sound = fc.record({
  write: fc.boolean(),
  sector: fc.nat(SECTORS - 3),
  count: fc.integer({ min: 1, max: 3 }),
}).map(({ write, sector, count }) =>
  requestOf(
    write ? 1 : 0,
    sector,
    0,
    new Uint8Array(write ? 512 * count : 0).map((_, i) => i * 3),
    write ? 1 : 512 * count + 1,
  )
);

/** Requests of any kind. */
const messy: fc.Arbitrary<Request> = fc.record({
  type: fc.constantFrom(0, 0, 1, 1, 4, 8, 11, 13, 13, 14, 99),
  sector: fc.oneof(fc.nat(SECTORS + 2), fc.constantFrom(2 ** 32 - 1, 2 ** 31)),
  high: fc.constantFrom(0, 0, 0, 1),
  // The bytes after the header: data to write, or ranges.
  data: fc.oneof(
    fc.nat(3).map((n) => new Uint8Array(512 * n).map((_, i) => i * 3)),
    fc.array(fc.tuple(fc.nat(SECTORS + 1), fc.nat(4), fc.constantFrom(0, 0, 1, 2)), {
      maxLength: 3,
    })
      .map((ranges) => {
        const bytes = new Uint8Array(16 * ranges.length);
        const view = new DataView(bytes.buffer);
        ranges.forEach(([sector, sectors, flags], i) => {
          view.setUint32(16 * i, sector, true);
          view.setUint32(16 * i + 8, sectors, true);
          view.setUint32(16 * i + 12, flags, true);
        });
        return bytes;
      }),
    fc.uint8Array({ maxLength: 40 }),
  ),
  room: fc.constantFrom(0, 1, 1, 2, 21, 20, 512, 513, 513, 1025, 1024),
  // A header that is cut short now and then.
  short: fc.constantFrom(0, 0, 0, 0, 1, 16),
}).map(({ type, sector, high, data, room, short }) => {
  const { out } = requestOf(type, sector, high, data, room);
  return { out: short === 0 ? out : out.subarray(0, 16 - short), room };
});

const cutsAt = (low: number, seam: number): fc.Arbitrary<Cut> =>
  fc.record({
    lengths: fc.array(fc.oneof(fc.integer({ min: 0, max: 20 }), fc.integer({ min: 0, max: 600 })), {
      maxLength: 30,
      size: "max",
    }),
    gap: fc.integer({ min: 0, max: 9 }),
    // Low in memory, or around the seam of two regions.
    base: fc.oneof(fc.constant(low), fc.integer({ min: seam - 700, max: seam })),
    empties: fc.boolean(),
  });

const whole: Cut = { lengths: [], gap: 0, base: 0x5_0000, empties: false };

for (const [format, ring] of FORMATS) {
  for (const later of [false, true]) {
    Deno.test(`block requests, ${format}, ${later ? "asynchronous" : "synchronous"} back end: any cut of the same bytes gives the same answer`, async () => {
      let good = 0;
      let broken = 0;
      await fc.assert(
        fc.asyncProperty(
          fc.oneof(sound, messy),
          cutsAt(0x5_0000, SEAM),
          cutsAt(0x6_0000, SEAM + 0x4000),
          fc.boolean(),
          fc.constantFrom(0n, VIRTIO_F_IN_ORDER),
          async (request, readable, writable, indirect, order) => {
            const writableWhole = { ...whole, base: 0x6_0000 };
            const expected = await answer(request, whole, writableWhole, ring, false, later);
            const got = await answer(request, readable, writable, ring | order, indirect, later);
            assertEquals(got, expected);
            if (expected.broken) broken++;
            else if (expected.bytes.at(-1) === 0) good++;
          },
        ),
        { numRuns: later ? 60 : 400 },
      );
      assert(good > 5, "requests that succeed were among them");
      assert(later || broken > 0, "and requests that cannot be answered");
    });
  }
}

/** Virtio 1.4, 2.7 and 2.8: what a device does with a ring that is written by hand, in process and in a worker alike. */
import type { Device } from "@virtio/device";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from "@virtio/vring";
import { assert, assertEquals } from "@std/assert";
import { LIVE, Rig } from "../../packages/device/testing.ts";
import {
  FORMATS,
  type RawDescriptor,
  type RawPackedDriver,
  RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { PLACES } from "./places.ts";

const FROM = 0x5_0000;
const TO = 0x6_0000;
const TABLE = 0x7_0000;
const REQUEST = new Uint8Array([1, 2, 3, 4, 5, 6, 7, 8, 9]);

type Raw = RawSplitDriver | RawPackedDriver;

/** A device somewhere, with a ring of 8 that is written by hand. */
class Bench {
  readonly rig: Rig<Device>;
  readonly raw: Raw;

  constructor(device: Device, features: bigint) {
    this.rig = new Rig({ device });
    this.raw = this.rig.startRaw(features, 8);
    this.rig.memory.write(FROM, REQUEST);
  }

  /** Kicks, and waits until so many buffers are used. @returns Their lengths. */
  async used(count: number): Promise<number[]> {
    const lengths: number[] = [];
    this.rig.state.notify(0);
    const until = performance.now() + 10_000;
    for (;;) {
      lengths.push(...this.raw.takeUsed().map(({ length }) => length));
      if (lengths.length >= count) return lengths;
      assert(performance.now() < until, "the device answers");
      await new Promise((again) => setTimeout(again, 0));
    }
  }

  /** Waits until the device asks for a reset. */
  async broken(): Promise<void> {
    this.rig.state.notify(0);
    const until = performance.now() + 10_000;
    while (!this.rig.needsReset) {
      assert(performance.now() < until, "the device asks for a reset");
      await new Promise((again) => setTimeout(again, 0));
    }
  }

  /** Has 9 bytes echoed by a chain of descriptors that read and write them. */
  async echoes(list: readonly RawDescriptor[], indirect: RawDescriptor[] = []): Promise<void> {
    this.rig.memory.fill(TO, 16, 0);
    if (indirect.length > 0) this.raw.table(TABLE, indirect);
    this.raw.send([...list]);
    assertEquals(await this.used(1), [9]);
    const answer = new Uint8Array(9);
    this.rig.memory.read(TO, answer);
    assertEquals(answer, REQUEST);
  }
}

/** Readable and writable descriptors of the request, cut at two places. */
function cut(readable: number, writable: number): RawDescriptor[] {
  return [
    { address: FROM, length: readable },
    { address: FROM + readable, length: 9 - readable },
    { address: TO, length: writable, write: true },
    { address: TO + writable, length: 9 - writable, write: true },
  ].filter(({ length }) => length > 0);
}

const CLAUSES: readonly (readonly [
  name: string,
  features: bigint,
  check: (bench: Bench) => Promise<void>,
])[] = [
  ["2.7.4.1-D1 however a request is arranged in descriptors, the answer is the same", 0n, async (
    bench,
  ) => {
    for (const readable of [0, 1, 4, 8, 9]) {
      for (const writable of [0, 1, 4, 8, 9]) await bench.echoes(cut(readable, writable));
    }
  }],
  ["2.7.5.3.2-D2 a table after any number of normal descriptors", VIRTIO_F_INDIRECT_DESC, async (
    bench,
  ) => {
    // Packed rings have the table alone (2.8.7).
    const most = bench.raw instanceof RawSplitDriver ? 8 : 1;
    for (let normal = 0; normal < most; normal++) {
      const list = Array.from({ length: normal }, (_, i) => ({ address: FROM + i, length: 1 }));
      await bench.echoes(
        [...list, { address: TABLE, length: 32, indirect: true }],
        [
          { address: FROM + normal, length: 9 - normal },
          { address: TO, length: 9, write: true },
        ],
      );
    }
  }],
  [
    "2.7.4.1-D2 a chain of 1024 descriptors is taken, a longer one costs the device",
    VIRTIO_F_INDIRECT_DESC,
    async (bench) => {
      for (const count of [1024, 1025]) {
        const list = Array.from(
          { length: count },
          (_, i) => ({ address: TO + i, length: 1, write: true }),
        );
        bench.raw.table(TABLE, list);
        bench.raw.send([{ address: TABLE, length: 16 * count, indirect: true }]);
        if (count === 1024) assertEquals((await bench.used(1)).length, 1);
        else await bench.broken();
      }
      assert(/virtio 1\.4, 2\.[78]/.test(bench.rig.errors[0]!.message));
    },
  ],
  ["2.7.8.2-D1 2.7.8.2-D2 the length that is told is what was written", 0n, async (bench) => {
    for (let length = 0; length <= 9; length++) {
      bench.rig.memory.fill(TO, 16, 0xee);
      bench.raw.send([{ address: FROM, length }, { address: TO, length: 12, write: true }]);
      assertEquals(await bench.used(1), [length]);
      const answer = new Uint8Array(12);
      bench.rig.memory.read(TO, answer);
      assertEquals(answer.subarray(0, length), REQUEST.subarray(0, length));
      assert(answer.subarray(length).every((byte) => byte === 0xee), "and nothing else");
    }
  }],
  ["2.7.10.2-D5 kicks for nothing change nothing", VIRTIO_F_EVENT_IDX, async (bench) => {
    for (let round = 0; round < 5; round++) {
      for (let kick = 0; kick < 10; kick++) {
        bench.rig.state.notify(0);
        bench.rig.state.notify(1);
      }
      await bench.echoes(cut(9, 9));
      assertEquals(bench.rig.status, LIVE);
    }
  }],
];

for (const [place, make] of PLACES) {
  for (const [format, feature] of FORMATS) {
    for (const [clause, features, check] of CLAUSES) {
      Deno.test(`${clause} (${format}, ${place})`, async () => {
        using placed = await make({ type: "echo" });
        const bench = new Bench(placed.device, feature | features);
        await check(bench);
      });
    }
  }

  Deno.test(`2.7.7.2-D1 2.7.7.2-D2 2.7.7.2-D5 2.7.7.2-D6 notifications that the driver does not want do not come (${place})`, async () => {
    for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
      using placed = await make({ type: "echo" });
      const bench = new Bench(placed.device, features);
      const { rig, raw } = bench;
      assert(raw instanceof RawSplitDriver);
      const { driverArea, deviceArea, size } = raw.config;
      for (let round = 0; round < 20; round++) {
        const wanted = round % 3 === 0;
        const used = rig.memory.readU16(deviceArea + 2);
        rig.memory.writeU16(driverArea, wanted ? 0 : 1);
        rig.memory.writeU16(driverArea + 4 + 2 * size, wanted ? used : used + 1 & 0xffff);
        rig.interrupts.length = 0;
        await bench.echoes(cut(9, 9));
        // What would have come, comes with the next one at the latest.
        const until = performance.now() + 10_000;
        while (wanted && rig.interrupts.length === 0) {
          assert(performance.now() < until, "it comes");
          await new Promise((again) => setTimeout(again, 0));
        }
        assertEquals(rig.interrupts, wanted ? [0] : []);
      }
    }
  });
}

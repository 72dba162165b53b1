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
import { everywhere } from "./places.ts";

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

  /** Kicks. @returns The lengths of what was used. */
  used(): number[] {
    this.rig.state.notify(0);
    return this.raw.takeUsed().map(({ length }) => length);
  }

  /** Has 9 bytes echoed by a chain of descriptors that read and write them. */
  echoes(list: readonly RawDescriptor[], indirect: RawDescriptor[] = []): void {
    this.rig.memory.fill(TO, 16, 0);
    if (indirect.length > 0) this.raw.table(TABLE, indirect);
    this.raw.send([...list]);
    assertEquals(this.used(), [9]);
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
  check: (bench: Bench) => void,
])[] = [
  [
    "2.7.4.1-D1 however a request is arranged in descriptors, the answer is the same",
    0n,
    (bench) => {
      for (const readable of [0, 1, 4, 8, 9]) {
        for (const writable of [0, 1, 4, 8, 9]) bench.echoes(cut(readable, writable));
      }
    },
  ],
  [
    "2.7.5.3.2-D2 a table after any number of normal descriptors",
    VIRTIO_F_INDIRECT_DESC,
    (bench) => {
      // Packed rings have the table alone (2.8.7).
      const most = bench.raw instanceof RawSplitDriver ? 8 : 1;
      for (let normal = 0; normal < most; normal++) {
        const list = Array.from({ length: normal }, (_, i) => ({ address: FROM + i, length: 1 }));
        bench.echoes(
          [...list, { address: TABLE, length: 32, indirect: true }],
          [
            { address: FROM + normal, length: 9 - normal },
            { address: TO, length: 9, write: true },
          ],
        );
      }
    },
  ],
  [
    "2.7.4.1-D2 a chain of 1024 descriptors is taken, a longer one costs the device",
    VIRTIO_F_INDIRECT_DESC,
    (bench) => {
      for (const count of [1024, 1025]) {
        const list = Array.from(
          { length: count },
          (_, i) => ({ address: TO + i, length: 1, write: true }),
        );
        bench.raw.table(TABLE, list);
        bench.raw.send([{ address: TABLE, length: 16 * count, indirect: true }]);
        if (count === 1024) assertEquals(bench.used().length, 1);
        else {
          bench.used();
          assert(bench.rig.needsReset);
        }
      }
      assert(/virtio 1\.4, 2\.[78]/.test(bench.rig.errors[0]!.message));
    },
  ],
  ["2.7.8.2-D1 2.7.8.2-D2 the length that is told is what was written", 0n, (bench) => {
    for (let length = 0; length <= 9; length++) {
      bench.rig.memory.fill(TO, 16, 0xee);
      bench.raw.send([{ address: FROM, length }, { address: TO, length: 12, write: true }]);
      assertEquals(bench.used(), [length]);
      const answer = new Uint8Array(12);
      bench.rig.memory.read(TO, answer);
      assertEquals(answer.subarray(0, length), REQUEST.subarray(0, length));
      assert(answer.subarray(length).every((byte) => byte === 0xee), "and nothing else");
    }
  }],
  ["2.7.10.2-D5 kicks for nothing change nothing", VIRTIO_F_EVENT_IDX, (bench) => {
    for (let round = 0; round < 5; round++) {
      for (let kick = 0; kick < 10; kick++) {
        bench.rig.state.notify(0);
        bench.rig.state.notify(1);
      }
      bench.echoes(cut(9, 9));
      assertEquals(bench.rig.status, LIVE);
    }
  }],
];

for (const [format, feature] of FORMATS) {
  for (const [clause, features, check] of CLAUSES) {
    everywhere(`${clause} (${format})`, async (place) => {
      const { device } = await place.open("echo", {});
      check(new Bench(device, feature | features));
    });
  }
}

everywhere(
  "2.7.7.2-D1 2.7.7.2-D2 2.7.7.2-D5 2.7.7.2-D6 notifications that the driver does not want do not come",
  async (place) => {
    for (const features of [0n, VIRTIO_F_EVENT_IDX]) {
      const { device } = await place.open("echo", {});
      const bench = new Bench(device, features);
      const { rig, raw } = bench;
      assert(raw instanceof RawSplitDriver);
      const { driverArea, deviceArea, size } = raw.config;
      for (let round = 0; round < 20; round++) {
        const wanted = round % 3 === 0;
        const used = rig.memory.readU16(deviceArea + 2);
        rig.memory.writeU16(driverArea, wanted ? 0 : 1);
        rig.memory.writeU16(driverArea + 4 + 2 * size, wanted ? used : used + 1 & 0xffff);
        rig.interrupts.length = 0;
        bench.echoes(cut(9, 9));
        assertEquals(rig.interrupts, wanted ? [0] : []);
      }
    }
  },
);

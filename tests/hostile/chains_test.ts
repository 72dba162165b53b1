/**
 * Descriptor chains that break a rule (bug classes 1, 3, 4, 5 and 21): the device asks for a reset, and nothing else happens.
 */
import { assertEquals } from "@std/assert";
import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import {
  FORMATS,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, BUSES, echoes, END, HIGH, Machine } from "./machine.ts";

type Ring = RawSplitDriver | RawPackedDriver;

interface Wrong {
  /** Bug class. */
  readonly class: number;
  /** What is wrong. */
  readonly what: string;
  /** In which format; both unless given. */
  readonly format?: "split" | "packed";
  /** Whether INDIRECT_DESC is negotiated; yes unless given. */
  readonly indirect?: boolean;
  /** Part of the message. */
  readonly says: RegExp;
  /** Makes it available. */
  readonly send: (ring: Ring) => void;
}

const good = { address: BUFFERS + 0x100, length: 16 };
const goodWrite = { address: BUFFERS + 0x200, length: 16, write: true };
const TABLE = BUFFERS + 0x1000;

const wrong: Wrong[] = [
  {
    class: 1,
    what: "a descriptor that goes on in itself",
    format: "split",
    says: /loops/,
    send: (ring) => ring.send([{ ...good, more: true, next: ring.next }]),
  },
  {
    class: 1,
    what: "two descriptors that go on in each other",
    format: "split",
    says: /loops/,
    send: (ring) => {
      const first = ring.next;
      ring.send([good, { ...good, more: true, next: first }]);
    },
  },
  {
    class: 1,
    what: "a loop of empty descriptors",
    format: "split",
    says: /loops/,
    send: (ring) => ring.send([{ ...good, length: 0, more: true, next: ring.next }]),
  },
  {
    class: 1,
    what: "a loop in an indirect table",
    format: "split",
    says: /loops/,
    send: (ring) => {
      ring.table(TABLE, [good, good, { ...good, more: true, next: 1 }]);
      ring.send([{ address: TABLE, length: 48, indirect: true }]);
    },
  },
  {
    class: 1,
    what: "a list that never ends",
    format: "packed",
    says: /longer than the queue/,
    send: (ring) => ring.send(Array.from({ length: ring.size }, () => ({ ...good, more: true }))),
  },
  ...[0xffff, 0x8000, 0x7fff, 9].map((ahead): Wrong => ({
    class: 1,
    what: `an available index that jumps ahead by ${ahead}`,
    format: "split",
    says: /jumped ahead/,
    send: (ring) => (ring as RawSplitDriver).setAvailIdx((ring as RawSplitDriver).availIdx + ahead),
  })),
  ...[8, 9, 0x7fff, 0xffff].map((head): Wrong => ({
    class: 1,
    what: `the head ${head} in a queue of 8`,
    format: "split",
    says: /beyond the table/,
    send: (ring) => (ring as RawSplitDriver).offer(head),
  })),
  ...[8, 0xffff].map((next): Wrong => ({
    class: 1,
    what: `a next field of ${next} in a queue of 8`,
    format: "split",
    says: /beyond the table/,
    send: (ring) => ring.send([{ ...good, more: true, next }]),
  })),
  {
    class: 3,
    what: "an indirect descriptor that was not negotiated",
    indirect: false,
    says: /not negotiated/,
    send: (ring) => {
      ring.table(TABLE, [good]);
      ring.send([{ address: TABLE, length: 16, indirect: true }]);
    },
  },
  {
    class: 3,
    what: "an indirect table inside an indirect table",
    format: "split",
    says: /inside an indirect table/,
    send: (ring) => {
      ring.table(TABLE, [{ address: TABLE, length: 16, indirect: true }]);
      ring.send([{ address: TABLE, length: 16, indirect: true }]);
    },
  },
  {
    class: 3,
    what: "an indirect table inside a table, behind a good entry",
    format: "split",
    says: /inside an indirect table/,
    send: (ring) => {
      ring.table(TABLE, [good, { address: TABLE, length: 32, indirect: true }]);
      ring.send([{ address: TABLE, length: 32, indirect: true }]);
    },
  },
  {
    class: 3,
    what: "a descriptor that is INDIRECT and NEXT",
    says: /INDIRECT and NEXT|in a list of several/,
    send: (ring) => {
      ring.table(TABLE, [good]);
      ring.send([{ address: TABLE, length: 16, indirect: true }, good]);
    },
  },
  {
    class: 3,
    what: "an indirect descriptor behind a direct one",
    format: "packed",
    says: /in a list of several/,
    send: (ring) => {
      ring.table(TABLE, [good]);
      ring.send([good, { address: TABLE, length: 16, indirect: true }]);
    },
  },
  ...[0, 1, 8, 15, 17, 24, 31, 2 ** 32 - 1].map((length): Wrong => ({
    class: 3,
    what: `an indirect table of ${length} bytes`,
    says: /no multiple of 16/,
    send: (ring) => {
      ring.table(TABLE, [good, goodWrite]);
      ring.send([{ address: TABLE, length, indirect: true }]);
    },
  })),
  ...[1025 * 16, 2 ** 31, 2 ** 32 - 16].map((length): Wrong => ({
    class: 3,
    what: `an indirect table of ${length / 16} entries`,
    says: /entries; at most/,
    send: (ring) => ring.send([{ address: 0, length, indirect: true }]),
  })),
  ...[
    ["beyond memory", END],
    ["half beyond memory", END - 16],
    ["in a hole above 4 GiB", HIGH - 0x1000],
    ["at the end of the address space", 2 ** 64 - 2048],
  ].map(([where, address]): Wrong => ({
    class: 3,
    what: `an indirect table ${where}`,
    says: /no guest memory/,
    send: (ring) => ring.send([{ address: address as number, length: 32, indirect: true }]),
  })),
  {
    class: 3,
    what: "an indirect table whose chain leaves it",
    format: "split",
    says: /Descriptor 2 is beyond the table of 2/,
    send: (ring) => {
      ring.table(TABLE, [good, { ...good, more: true, next: 2 }]);
      ring.send([{ address: TABLE, length: 32, indirect: true }]);
    },
  },
  ...[
    ["begins where memory ends", END, 1],
    ["is one byte longer than memory", END - 16, 17],
    ["is as long as a descriptor can say", BUFFERS, 2 ** 32 - 1],
    ["begins beyond memory", 0x8000_0000, 16],
    ["begins above 4 GiB, where nothing is", 0x1_0000_0000, 16],
    ["ends at 2^64", 2 ** 64 - 4096, 4096],
    ["wraps over 2^64", 2 ** 64 - 2048, 2 ** 32 - 1],
    ["begins at 2^53", 2 ** 53, 16],
    ["begins at 2^63", 2 ** 63, 16],
    ["begins before the piece above 4 GiB", HIGH - 1, 2],
    ["ends after the piece above 4 GiB", HIGH + 0xffff, 2],
  ].flatMap(([where, address, length]): Wrong[] =>
    [false, true].map((write) => ({
      class: 4,
      what: `a device-${write ? "writable" : "readable"} descriptor that ${where}`,
      says: /no guest memory/,
      send: (ring: Ring) =>
        ring.send([good, { address: address as number, length: length as number, write }]),
    }))
  ),
  {
    class: 21,
    what: "a device-readable descriptor after a device-writable one",
    says: /after a device-writable/,
    send: (ring) => ring.send([goodWrite, good]),
  },
  {
    class: 21,
    what: "a device-readable entry after a device-writable one in a table",
    says: /after a device-writable/,
    send: (ring) => {
      ring.table(TABLE, [good, goodWrite, good]);
      ring.send([{ address: TABLE, length: 48, indirect: true }]);
    },
  },
];

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    for (const test of wrong) {
      if (test.format !== undefined && test.format !== format) continue;
      const name =
        `class ${test.class}, ${format} over ${bus}: ${test.what} makes the device ask ` +
        "for a reset; no memory changes, others go on, a reset heals it";
      Deno.test(name, async () => {
        const machine = new Machine(new EchoDevice({ queueSizes: [8] }), bus);
        const features = feature | (test.indirect === false ? 0n : VIRTIO_F_INDIRECT_DESC);
        const ring = machine.start(features);
        await echoes(machine);
        const handled = machine.victim.device.handled[0];
        test.send(ring);
        const unchanged = machine.watch();
        machine.kick();
        assertEquals(machine.victim.device.handled[0], handled, "the device never sees it");
        await machine.checkBroken(unchanged, {
          clause: test.says,
          works: () => echoes(machine),
        });
      });
    }

    Deno.test(`class 1, ${format} over ${bus}: good chains before a bad one are answered`, () => {
      const machine = new Machine(new EchoDevice({ queueSizes: [8] }), bus);
      const ring = machine.start(feature);
      machine.memory.writeU8(good.address, 77);
      ring.send([good, goodWrite]);
      ring.send([{ address: END, length: 1 }]);
      machine.kick();
      assertEquals(machine.needsReset, true);
      assertEquals(machine.victim.device.handled[0], 1);
      assertEquals(machine.memory.readU8(goodWrite.address), 77);
    });

    Deno.test(`class 3, ${format} over ${bus}: a table with a bad length or place is refused before an entry is read`, () => {
      for (
        const [address, length] of [
          [TABLE, 40],
          [TABLE, 16 * 1025],
          [END - 32, 64],
        ] as const
      ) {
        const machine = new Machine(new EchoDevice({ queueSizes: [8] }), bus);
        const ring = machine.start(feature | VIRTIO_F_INDIRECT_DESC);
        ring.send([{ address, length, indirect: true }]);
        const reads: number[] = [];
        for (const region of machine.memory.regions) {
          region.view = new SpyView(region.view, (at) => reads.push(region.base + at));
        }
        machine.kick();
        assertEquals(machine.needsReset, true);
        const inTable = reads.filter((at) => at >= address && at < address + length);
        assertEquals(inTable, []);
      }
    });

    Deno.test(`class 21, ${format} over ${bus}: a device cannot write where the driver lets it only read, nor read where it may write`, async () => {
      const machine = new Machine(new EchoDevice({ queueSizes: [8] }), bus);
      const ring = machine.start(feature);
      const unchanged = machine.watch();
      ring.send([good, { ...good, address: good.address + 32 }]);
      ring.send([goodWrite]);
      machine.kick();
      unchanged(...machine.ringRanges(), [ring.config.descriptorArea, 128], [
        ring.config.driverArea,
        64,
      ]);
      assertEquals(ring.takeUsed().map(({ length }) => length), [0, 0]);
      await echoes(machine);
    });
  }
}

/** Tells of every read. */
class SpyView extends DataView<ArrayBufferLike> {
  readonly #told: (at: number) => void;
  constructor(view: DataView<ArrayBufferLike>, told: (at: number) => void) {
    super(view.buffer, view.byteOffset, view.byteLength);
    this.#told = told;
  }
  override getUint8(at: number): number {
    this.#told(at);
    return super.getUint8(at);
  }
  override getUint16(at: number, little?: boolean): number {
    this.#told(at);
    return super.getUint16(at, little);
  }
  override getUint32(at: number, little?: boolean): number {
    this.#told(at);
    return super.getUint32(at, little);
  }
}

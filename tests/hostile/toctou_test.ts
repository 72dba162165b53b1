/**
 * A driver that changes memory while the device looks at it (bug class 6), and index fields that tear (class 14): what decides
 * is fetched once, and what is shared is accessed atomically.
 */
import { assert, assertEquals } from "@std/assert";
import {
  BlkDevice,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_IN,
} from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import {
  FORMATS,
  placeQueue,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, BUSES, Machine } from "./machine.ts";
import { once, watchMemory } from "./watched_memory.ts";

const lies: [string, (right: number) => number][] = [
  ["all ones", () => 0xff],
  ["zero", () => 0],
  ["one more", (right) => right + 1],
  ["another bit", (right) => right ^ 0x10],
];

const HEADER = BUFFERS;
const DATA = BUFFERS + 0x1000;
const STATUS = BUFFERS + 0x8000;
const TABLE = BUFFERS + 0x9000;
const FEATURES = VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES |
  VIRTIO_F_INDIRECT_DESC;

type Ring = RawSplitDriver | RawPackedDriver;

/** Requests that put their deciding bytes into every place that there is: ring, table, header in pieces, ranges. */
function requests(
  ring: Ring,
): { name: string; send: () => void; check: (disk: Uint8Array) => void }[] {
  const { memory } = ring;
  const header = (type: number, sector: number): void => {
    memory.fill(HEADER, 16);
    memory.writeU32(HEADER, type);
    memory.writeU32(HEADER + 8, sector);
    memory.fill(DATA, 512);
    memory.writeU8(STATUS, 0xee);
  };
  const sector3 = (): void => {
    for (let i = 0; i < 512; i++) assertEquals(memory.readU8(DATA + i), 4);
  };
  const whole = [
    { address: HEADER, length: 16 },
    { address: DATA, length: 512, write: true },
    { address: STATUS, length: 1, write: true },
  ];
  return [
    {
      name: "in three descriptors",
      send: () => {
        header(VIRTIO_BLK_T_IN, 3);
        ring.send(whole);
      },
      check: sector3,
    },
    {
      name: "with a header in pieces",
      send: () => {
        header(VIRTIO_BLK_T_IN, 3);
        ring.send([
          { address: HEADER, length: 3 },
          { address: HEADER + 3, length: 7 },
          { address: HEADER + 10, length: 6 },
          ...whole.slice(1),
        ]);
      },
      check: sector3,
    },
    {
      name: "through an indirect table",
      send: () => {
        header(VIRTIO_BLK_T_IN, 3);
        ring.table(TABLE, whole);
        ring.send([{ address: TABLE, length: 48, indirect: true }]);
      },
      check: sector3,
    },
    {
      name: "with ranges to discard",
      send: () => {
        header(VIRTIO_BLK_T_DISCARD, 0);
        memory.writeU32(DATA, 5);
        memory.writeU32(DATA + 8, 1);
        memory.writeU32(DATA + 16, 7);
        memory.writeU32(DATA + 24, 1);
        ring.send([whole[0]!, { address: DATA, length: 32 }, whole[2]!]);
      },
      check: (disk) => {
        assertEquals([disk[4 * 512], disk[5 * 512], disk[6 * 512], disk[7 * 512]], [5, 0, 7, 0]);
      },
    },
  ];
}

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    const setup = () => {
      const disk = new Uint8Array(32 * 512);
      for (let sector = 0; sector < 32; sector++) {
        disk.fill(sector + 1, sector * 512, (sector + 1) * 512);
      }
      const machine = new Machine(new BlkDevice({ backend: new MemoryBackend(disk) }), bus);
      const ring = machine.start(feature | FEATURES, 16);
      return { disk, machine, ring };
    };

    Deno.test(`class 6, ${format} over ${bus}: a driver that changes every byte after it was read once changes nothing`, () => {
      for (const [what, lie] of lies) {
        const count = requests(setup().ring).length;
        for (let which = 0; which < count; which++) {
          const { disk, machine, ring } = setup();
          const request = requests(ring)[which]!;
          request.send();
          const lying = once(lie);
          const stop = watchMemory(machine.memory, (address, size, write, value) => {
            // Flags of a packed ring are scanned and then read: see the next test.
            const at = address - ring.descriptorAddress(0);
            const word = lying(address, size, write, value);
            if (format === "split" || at < 0 || at >= 16 * 16) return word;
            if (at % 16 === 14 && size === 2) return value;
            return at % 16 === 12 && size === 4
              ? (word % 0x1_0000) + Math.floor(value / 0x1_0000) * 0x1_0000
              : word;
          });
          machine.kick();
          stop();
          const name = `${request.name}, ${what}`;
          assertEquals(machine.needsReset, false, `${name}: ${machine.victim.errors}`);
          assertEquals(machine.memory.readU8(STATUS), VIRTIO_BLK_S_OK, name);
          request.check(disk);
          assertEquals(ring.takeUsed().length, 1, name);
        }
      }
    });

    if (format === "packed") {
      Deno.test(`class 6, packed over ${bus}: flags that change between the scan and the walk make a request, or the device asks for a reset; the host goes on`, async () => {
        for (const [, lie] of lies) {
          const count = requests(setup().ring).length;
          for (let which = 0; which < count; which++) {
            const { machine, ring } = setup();
            requests(ring)[which]!.send();
            const stop = watchMemory(machine.memory, once(lie));
            machine.kick();
            stop();
            assert(machine.needsReset || ring.takeUsed().length === 1);
            await machine.checkBystander();
            await machine.reset();
            const again = machine.start(feature | FEATURES, 16);
            requests(again)[0]!.send();
            machine.kick();
            requests(again)[0]!.check(new Uint8Array());
          }
        }
      });
    }

    Deno.test(`class 6, ${format} over ${bus}: addresses, lengths, table entries, headers and ranges are each read once`, () => {
      const count = requests(setup().ring).length;
      for (let which = 0; which < count; which++) {
        const { machine, ring } = setup();
        const request = requests(ring)[which]!;
        const first = ring.next;
        request.send();
        const reads = new Map<number, number>();
        const stop = watchMemory(machine.memory, (address, size, write, value) => {
          for (let i = 0; i < size && !write; i++) {
            reads.set(address + i, (reads.get(address + i) ?? 0) + 1);
          }
          return value;
        });
        machine.kick();
        stop();
        for (const [address, times] of reads) {
          // The flags of a packed descriptor are scanned for what is available, then read for what it is.
          const ringAt = address - ring.descriptorAddress(0);
          const flags = format === "packed" && ringAt >= 0 && ringAt < 16 * 16 && ringAt % 16 >= 14;
          assert(times <= (flags ? 2 : 1), `0x${address.toString(16)} was read ${times} times`);
        }
        // And they were read at all.
        assertEquals(reads.get(ring.descriptorAddress(first)), 1);
        assertEquals(reads.get(HEADER), 1);
      }
    });
  }
}

for (const [format, feature] of FORMATS) {
  Deno.test(`class 6, ${format}: a device that changes every byte after the driver read it once changes nothing`, () => {
    for (const [, lie] of lies) {
      const memory = GuestMemory.allocate(0x10000);
      const config = placeQueue(4, 0, format);
      const driver = openDriverQueue(memory, config, feature);
      const device = openQueue(memory, config, feature);
      const list = new BufferList().readable(0x8000, 4).writable(0x9000, 8);
      for (let i = 0; i < 10; i++) {
        driver.add(list, i);
        driver.publish();
        const chain = device.pop()!;
        chain.writer.u32(i);
        device.push(chain);
        device.flush();
        const stop = watchMemory(memory, once(lie));
        assertEquals(driver.take(), i);
        assertEquals(driver.usedLength, 4);
        assertEquals(driver.take(), -1);
        stop();
      }
    }
  });

  Deno.test(`class 14, ${format}: what both sides change is accessed atomically, but for advice`, () => {
    for (const extra of [0n, VIRTIO_F_EVENT_IDX]) {
      const memory = GuestMemory.allocate(0x10000);
      const config = placeQueue(4, 0, format);
      const driver = openDriverQueue(memory, config, feature | extra);
      const device = openQueue(memory, config, feature | extra);
      const shared = new Map<number, string>();
      if (format === "split") {
        shared.set(config.driverArea, "available flags").set(
          config.driverArea + 2,
          "available index",
        )
          .set(config.driverArea + 4 + 8, "used_event")
          .set(config.deviceArea + 2, "used index").set(config.deviceArea + 4 + 32, "avail_event");
      } else {
        shared.set(config.driverArea, "driver event").set(config.driverArea + 2, "driver flags");
        if (extra !== 0n) shared.set(config.deviceArea, "device event");
      }
      let plain = 0;
      const stop = watchMemory(memory, (address, size, _write, value) => {
        plain++;
        for (let i = 0; i < size; i++) {
          const name = shared.get(address + i);
          assert(name === undefined, `a plain access to ${name}`);
        }
        return value;
      });
      const list = new BufferList().readable(0x8000, 4).writable(0x9000, 8);
      for (let lap = 0; lap < 5; lap++) {
        for (let i = 0; i < 2; i++) driver.add(list, i);
        driver.publish();
        do {
          device.suspend();
          for (let chain = device.pop(); chain !== null; chain = device.pop()) device.push(chain);
          device.flush();
        } while (device.arm());
        driver.disableInterrupts();
        while (driver.take() >= 0);
        driver.enableInterrupts();
      }
      stop();
      assert(plain > 50, "plain accesses were seen at all");
    }
  });
}

/**
 * Devices that do not keep to the rules, against the project's drivers (bug class 19): the driver gives the device up, nothing
 * hangs, no memory is lost, and another device can be driven afterwards.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { BlkDriver, BlkError } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_INDIRECT_DESC, VIRTIO_STATUS_FEATURES_OK } from "@virtio/device";
import { DriverError, type DriverInterrupts, type DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import {
  type QueueConfig,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
  VirtqueueError,
} from "@virtio/vring";
import { DmaPool } from "@virtio/vring/driver";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { attach, type Bus, BUSES } from "./machine.ts";

/** What a lying device does in place of its honest half. */
interface Lies {
  /** Called before the driver hears of used buffers; false keeps it from hearing. */
  used?: (rings: Rings) => boolean | void;
  /** In place of the transport's methods. */
  readStatus?: (honest: () => number) => number;
  readConfig?: (honest: number, offset: number) => number;
  configGeneration?: (honest: number) => number;
  queueMaxSize?: (honest: number) => number;
  readDeviceFeatures?: (honest: bigint) => bigint;
  kick?: () => void;
}

/** The rings, for forgery. */
class Rings {
  readonly memory: GuestMemory;
  readonly packed: boolean;
  config!: QueueConfig;

  constructor(memory: GuestMemory, packed: boolean) {
    this.memory = memory;
    this.packed = packed;
  }

  /** Changes id and length of what was used first in a fresh queue. */
  forge(change: (used: { id: number; length: number }) => void, slot = 0): void {
    const { memory, config } = this;
    const id = this.packed
      ? config.descriptorArea + 16 * slot + 12
      : config.deviceArea + 4 + 8 * slot;
    const length = this.packed ? config.descriptorArea + 16 * slot + 8 : id + 4;
    const used = {
      id: this.packed ? memory.readU16(id) : memory.readU32(id),
      length: memory.readU32(length),
    };
    change(used);
    if (this.packed) {
      memory.writeU16(id, used.id);
      memory.writeU16(
        id + 2,
        VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED | (used.length > 0 ? VIRTQ_DESC_F_WRITE : 0),
      );
    } else {
      memory.writeU32(id, used.id);
    }
    memory.writeU32(length, used.length);
  }

  /** Says that `count` more were used than were (split), or that the next slots are used too (packed). */
  more(count: number): void {
    const { memory, config } = this;
    if (this.packed) {
      for (let slot = 0; slot < config.size; slot++) this.forge(() => {}, slot);
    } else {
      memory.writeU16(config.deviceArea + 2, memory.readU16(config.deviceArea + 2) + count);
    }
  }
}

function lying(transport: DriverTransport, rings: Rings, lies: Lies): DriverTransport {
  return new Proxy(transport, {
    get(target, name) {
      switch (name) {
        case "readStatus":
          return () => lies.readStatus?.(() => target.readStatus()) ?? target.readStatus();
        case "readConfig":
          return (offset: number, size: 1 | 2 | 4) => {
            const honest = target.readConfig(offset, size);
            return lies.readConfig?.(honest, offset) ?? honest;
          };
        case "configGeneration":
          return () => {
            const honest = target.configGeneration();
            return lies.configGeneration?.(honest) ?? honest;
          };
        case "queueMaxSize":
          return (index: number) => {
            const honest = target.queueMaxSize(index);
            return lies.queueMaxSize?.(honest) ?? honest;
          };
        case "readDeviceFeatures":
          return () => {
            const honest = target.readDeviceFeatures();
            return lies.readDeviceFeatures?.(honest) ?? honest;
          };
        case "enableQueue":
          return (index: number, config: QueueConfig) => {
            if (index === 0) rings.config = config;
            target.enableQueue(index, config);
          };
        case "kick":
          if (lies.kick !== undefined) return lies.kick;
      }
      const value = Reflect.get(target, name, target);
      return typeof value === "function" ? value.bind(target) : value;
    },
    set(target, name, value) {
      if (name === "interrupts" && value !== null) {
        const honest = value as DriverInterrupts;
        target.interrupts = {
          queue: (index) => {
            if (lies.used?.(rings) !== false) honest.queue(index);
          },
          config: () => honest.config(),
        };
        return true;
      }
      return Reflect.set(target, name, value, target);
    },
  });
}

interface Case {
  readonly bus: Bus;
  readonly ring: bigint;
}

/** A lying device, a pool, and the driver on them. */
function setup(test: Case, lies: Lies) {
  const memory = GuestMemory.allocate(2 ** 20);
  const dma = new DmaPool(memory, 0x1000, 2 ** 20 - 0x1000);
  const disk = new Uint8Array(64 * 512);
  for (let sector = 0; sector < 64; sector++) {
    disk.fill(sector + 1, sector * 512, (sector + 1) * 512);
  }
  const device = new BlkDevice({ backend: new MemoryBackend(disk), queueSize: 16 });
  const { driver: honest, errors } = attach(device, memory, test.bus);
  const rings = new Rings(memory, test.ring !== 0n);
  const transport = lying(honest, rings, lies);
  const options = {
    dma,
    core: test.ring | VIRTIO_F_INDIRECT_DESC,
    timeout: 40,
    patience: 50,
    queueSize: 16,
  };
  return {
    memory,
    dma,
    errors,
    room: dma.available,
    open: () => BlkDriver.open(transport, options),
    /** The same device, without lies, works. */
    heal: async () => {
      const driver = await BlkDriver.open(honest, options);
      const back = new Uint8Array(512);
      await driver.read(3, back);
      assertEquals(back, new Uint8Array(512).fill(4));
      await driver.close();
    },
  };
}

/** What breaks the ring. */
const breaks: [string, Lies][] = [
  ["uses a buffer that was never made available", {
    used: (rings) => rings.forge((used) => used.id = used.id + 5),
  }],
  ["uses a buffer beyond the queue", { used: (rings) => rings.forge((used) => used.id = 0xffff) }],
  ["says that it wrote more than there is room for", {
    used: (rings) => rings.forge((used) => used.length = 514),
  }],
  ["says that it wrote 4 GiB", {
    used: (rings) => rings.forge((used) => used.length = 2 ** 32 - 1),
  }],
  ["says that it used more than it was given", { used: (rings) => rings.more(3) }],
  ["moves the used index by half of its range", { used: (rings) => rings.more(0x8000) }],
];

for (const bus of BUSES) {
  for (const [format, ring] of FORMATS) {
    const test = { bus, ring };
    const on = `${format} over ${bus}`;

    for (const [what, lies] of breaks) {
      Deno.test(`class 19, ${on}: a device that ${what} is given up: requests reject, nothing hangs, all memory comes back`, async () => {
        const rig = setup(test, lies);
        const driver = await rig.open();
        const back = new Uint8Array(512);
        // Where more is said to be used than was, the honest answer comes first.
        await driver.read(3, back).catch((error) => assert(error instanceof VirtqueueError, error));
        await assertRejects(() => driver.read(4, back), VirtqueueError);
        assert(driver.broken instanceof VirtqueueError);
        await assertRejects(() => driver.flush(), VirtqueueError);
        await driver.close();
        assertEquals(rig.dma.available, rig.room);
        await rig.heal();
        assertEquals(rig.dma.available, rig.room);
      });
    }

    Deno.test(`class 19, ${on}: a buffer that is used again when it is not in flight is noticed, and no later request gets its answer`, async () => {
      let forging = false;
      const rig = setup(test, {
        used: (rings) => {
          // Packed: the id of the first request. Split: a head that was not taken yet, since the first is in use again.
          if (forging) rings.forge((used) => used.id ^= 1, 1);
          forging = false;
        },
      });
      const driver = await rig.open();
      const back = new Uint8Array(512);
      await driver.read(3, back);
      assertEquals(back[0], 4);
      forging = true;
      await assertRejects(() => driver.read(9, back), VirtqueueError);
      assertEquals(back[0], 4, "the buffer of the failed read is not touched");
      await driver.close();
      assertEquals(rig.dma.available, rig.room);
    });

    Deno.test(`class 19, ${on}: interrupts without a reason, at any time, change nothing`, async () => {
      const rig = setup(test, {});
      const driver = await rig.open();
      const { interrupts } = driver.session.transport;
      const back = new Uint8Array(512);
      for (let i = 0; i < 20; i++) {
        interrupts!.queue(null);
        interrupts!.queue(0);
        interrupts!.queue(77);
        interrupts!.config();
        const reading = driver.read(i, back);
        interrupts!.queue(0);
        await reading;
        assertEquals(back[0], i + 1);
      }
      await driver.close();
      interrupts!.queue(0);
      interrupts!.config();
      assertEquals(rig.dma.available, rig.room);
    });

    Deno.test(`class 19, ${on}: what a device writes into descriptors and tables does not reach the driver`, async () => {
      const rig = setup(test, {
        used: ({ memory, config, packed }) => {
          if (packed) {
            // All but what says which buffer was used: addresses and lengths of slots that are not in use.
            for (let slot = 4; slot < config.size; slot++) {
              memory.fill(config.descriptorArea + 16 * slot, 8, 0xff);
            }
          } else {
            memory.fill(config.descriptorArea, 16 * config.size, 0xff);
            memory.fill(config.driverArea + 4, 2 * config.size, 0xff);
          }
        },
      });
      const driver = await rig.open();
      const back = new Uint8Array(512);
      for (let i = 0; i < 3; i++) {
        await driver.read(i, back);
        assertEquals(back[0], i + 1);
      }
      await driver.close();
    });

    Deno.test(`class 19, ${on}: a used buffer with nothing in flight does not hang the driver`, async () => {
      const rig = setup(test, {});
      const driver = await rig.open();
      const { transport } = driver.session;
      const config = driver.session.queue(0).config;
      const rings = new Rings(rig.memory, ring !== 0n);
      rings.config = config;
      rings.more(1);
      transport.interrupts!.queue(0);
      await assertRejects(() => driver.read(3, new Uint8Array(512)), VirtqueueError);
      await driver.close();
      assertEquals(rig.dma.available, rig.room);
      await rig.heal();
    });
  }

  const test = { bus, ring: 0n };
  for (
    const [what, lies] of [
      ["that does not answer", { kick: () => {} }],
      ["whose answers nobody hears of", { used: () => false }],
    ] as [string, Lies][]
  ) {
    Deno.test(`class 19, ${bus}: a device ${what} is given up after the timeout`, async () => {
      const rig = setup(test, lies);
      const driver = await rig.open();
      await assertRejects(() => driver.read(3, new Uint8Array(512)), DriverError);
      await driver.close();
      assertEquals(rig.dma.available, rig.room);
      await rig.heal();
    });
  }

  Deno.test(`class 2, ${bus}: a device of a vast disk that takes ranges of one sector does not make the driver build endless requests`, async () => {
    const rig = setup(test, {
      // capacity, and max_discard_sectors.
      readConfig: (honest, offset) => offset < 8 ? 0x3fff : offset === 36 ? 1 : honest,
    });
    const driver = await rig.open();
    assert(driver.sectors > 2 ** 45);
    await assertRejects(
      () => driver.discard({ sector: 0, sectors: driver.sectors }),
      RangeError,
      "sectors in a range",
    );
    const back = new Uint8Array(512);
    await driver.read(3, back);
    assertEquals(back[0], 4);
    await driver.close();
    assertEquals(rig.dma.available, rig.room);
  });

  for (const status of [3, 77, 0xfe, 0xff]) {
    Deno.test(`class 19, ${bus}: the status ${status} is an error of its request, and no other`, async () => {
      let lie = true;
      const rig = setup(test, {
        used: ({ memory, config }) => {
          if (!lie) return;
          // The last entry of the first descriptor's table is the status.
          const head = memory.readU32(config.deviceArea + 4);
          const table = memory.readU64(config.descriptorArea + 16 * head);
          const length = memory.readU32(config.descriptorArea + 16 * head + 8);
          memory.writeU8(memory.readU64(table + length - 16), status);
          lie = false;
        },
      });
      const driver = await rig.open();
      const back = new Uint8Array(512);
      await assertRejects(() => driver.read(3, back), BlkError);
      await driver.read(4, back);
      assertEquals(back[0], 5);
      await driver.close();
      assertEquals(rig.dma.available, rig.room);
    });
  }

  for (
    const [what, lies] of [
      ["of which no reset ends", { readStatus: () => 0x40 }],
      ["that refuses the features", {
        readStatus: (honest: () => number) => honest() & ~VIRTIO_STATUS_FEATURES_OK,
      }],
      ["without VERSION_1", { readDeviceFeatures: () => 0n }],
      ["that offers every bit", { readDeviceFeatures: () => (1n << 128n) - 1n }],
      ["without queues", { queueMaxSize: () => 0 }],
      ["whose configuration never stands still", {
        configGeneration: (() => {
          let generation = 0;
          return () => generation++;
        })(),
      }],
      ["whose configuration is all ones", { readConfig: () => 0xffff_ffff }],
      ["whose configuration is all zeroes", { readConfig: () => 0 }],
    ] as [string, Lies][]
  ) {
    Deno.test(`class 19, ${bus}: a device ${what} is refused or driven, within bounds, and takes no memory with it`, async () => {
      const rig = setup(test, lies);
      let driver: BlkDriver | null = null;
      try {
        driver = await rig.open();
      } catch (error) {
        assert(
          error instanceof DriverError || error instanceof RangeError || error instanceof TypeError,
          String(error),
        );
      }
      if (driver !== null) {
        await driver.read(0, new Uint8Array(512)).catch(() => {});
        await driver.flush().catch(() => {});
        await driver.close().catch(() => {});
      }
      assertEquals(rig.dma.available, rig.room);
      await rig.heal();
      assertEquals(rig.dma.available, rig.room);
    });
  }
}

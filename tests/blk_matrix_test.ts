/**
 * Our driver against our block device: every transport, both ring formats, every combination of ring features, with back
 * ends that answer at once and later. One table, one life.
 */
import { BlkDevice } from "@virtio/blk";
import { BlkDriver, BlkError } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { assertSame, pattern } from "../packages/blk/backends/backend_testing.ts";
import { LaterBackend } from "../packages/blk/backends/later_testing.ts";
import { FORMATS, type Join, TRANSPORTS } from "./lifecycle/transports.ts";

const SECTORS = 1024;
const POOL_SIZE = 0xc0000;

const OPTIONAL: [string, FeatureSet][] = [
  ["INDIRECT", VIRTIO_F_INDIRECT_DESC],
  ["EVENT_IDX", VIRTIO_F_EVENT_IDX],
  ["IN_ORDER", VIRTIO_F_IN_ORDER],
  ["NOTIFICATION_DATA", VIRTIO_F_NOTIFICATION_DATA],
  ["RING_RESET", VIRTIO_F_RING_RESET],
];

interface Case {
  readonly name: string;
  readonly join: Join;
  readonly core: FeatureSet;
  readonly later: boolean;
}

function* cases(): Generator<Case> {
  let count = 0;
  for (const [transport, join] of TRANSPORTS) {
    for (const [format, packed] of FORMATS) {
      for (let mask = 0; mask < 1 << OPTIONAL.length; mask++) {
        const chosen = OPTIONAL.filter((_, i) => (mask >> i & 1) === 1);
        const core = chosen.reduce((set, [, bit]) => set | bit, packed);
        const features = chosen.map(([name]) => name).join(" ") || "no options";
        // Each combination meets both kinds of back end, on one transport or another.
        const later = (count++ + TRANSPORTS.findIndex(([name]) => name === transport)) % 2 === 1;
        const name = `${transport}; ${format}; ${features}; ${later ? "later" : "at once"}`;
        yield { name, join, core, later };
      }
    }
  }
  const [, pci] = TRANSPORTS[1]!;
  for (const [format, packed] of FORMATS) {
    const core = packed | VIRTIO_F_NOTIFICATION_DATA | VIRTIO_F_NOTIF_CONFIG_DATA;
    yield { name: `PCI; ${format}; NOTIF_CONFIG_DATA`, join: pci, core, later: false };
  }
  for (const [transport, join] of TRANSPORTS) {
    yield { name: `${transport}; all features`, join, core: CORE_FEATURES, later: true };
  }
}

/** Writes, reads, zeroes, discards, flushes, a queue reset, a resize, a reset of the device, and all of it again. */
async function live({ join, core, later }: Case): Promise<void> {
  const disk = new MemoryBackend(SECTORS * 512);
  const device = new BlkDevice({
    backend: later ? new LaterBackend(disk) : disk,
    id: "matrix",
    queues: 2,
    queueSize: 32,
    sizeMax: 3000,
  });
  const memory = GuestMemory.allocate(0x100000);
  const errors: Error[] = [];
  const { driver: transport, counters } = join(device, memory, (error) => errors.push(error));
  const dma = new DmaPool(memory, 0x1000, POOL_SIZE);
  const model = new Uint8Array(SECTORS * 512);
  for (let life = 0; life < 2; life++) {
    // A size that is no power of two is for packed queues only; the session makes it one for split queues.
    const driver = await BlkDriver.open(transport, { dma, core, queueSize: 24, buffers: 3 });
    assertEquals(
      driver.features & ((1n << 44n) - (1n << 24n)),
      core & transport.carries | VIRTIO_F_VERSION_1,
    );
    assertEquals(driver.queues.length, 2);
    assertEquals(await driver.getId(), "matrix");
    await requests(driver, model, life);
    if ((core & VIRTIO_F_RING_RESET) !== 0n) await queueReset(driver, model);
    await resize(driver, disk);
    assertEquals(device.stats.errors, life + 1, "the one that had to fail");
    await driver.close();
    assertEquals(dma.available, POOL_SIZE);
  }
  const bytes = new Uint8Array(model.length);
  disk.read(0, bytes, 0, bytes.length);
  assertSame(bytes, model);
  assertEquals(errors, []);
  assert(counters.interrupts > 0);
}

async function requests(driver: BlkDriver, model: Uint8Array, life: number): Promise<void> {
  const writes: Promise<void>[] = [];
  for (let i = 0; i < 60; i++) {
    // Ranges that do not overlap: requests in flight at once have no order.
    const sector = i * 16 + life;
    const bytes = pattern(512 * (1 + i % 9), 100 * life + i);
    model.set(bytes, sector * 512);
    writes.push(driver.write(sector, bytes));
  }
  await Promise.all(writes);
  await driver.flush();
  await driver.writeZeroes([{ sector: 3, sectors: 20 }], life === 1);
  model.fill(0, 3 * 512, 23 * 512);
  await driver.discard({ sector: 1000, sectors: 8 });
  const all = new Uint8Array(model.length);
  await driver.read(0, all);
  model.set(all.subarray(1000 * 512, 1008 * 512), 1000 * 512);
  assertSame(all, model);
  await driver.secureErase({ sector: 900, sectors: 2 });
  model.fill(0, 900 * 512, 902 * 512);
}

async function queueReset(driver: BlkDriver, model: Uint8Array): Promise<void> {
  const reads = Array.from({ length: 10 }, async (_, i) => {
    const into = new Uint8Array(1024);
    await driver.read(i * 7, into);
    assertSame(into, model.subarray(i * 3584, i * 3584 + 1024));
  });
  await driver.resetQueue(1);
  await driver.resetQueue(0);
  await Promise.all(reads);
  await driver.read(0, new Uint8Array(512));
}

async function resize(driver: BlkDriver, disk: MemoryBackend): Promise<void> {
  const told = new Promise<number>((resolve) => {
    driver.onChange = (info) => resolve(info.sectors);
  });
  disk.resize((SECTORS + 1) * 512);
  assertEquals(await told, SECTORS + 1);
  await driver.read(SECTORS, new Uint8Array(512));
  driver.onChange = null;
  // Behind the driver's back: it learns of that a turn later, and the device answers for itself.
  disk.resize(SECTORS * 512);
  const late = driver.read(SECTORS, new Uint8Array(512));
  await assertRejects(() => late, BlkError, "IOERR");
  await new Promise((resolve) => setTimeout(resolve, 0));
  assertEquals(driver.sectors, SECTORS);
}

for (const each of cases()) Deno.test(`blk: ${each.name}`, () => live(each));

/** What a device remembers when another worker takes its place, planned or after a death; and what does not fit there. */
import { BlkDriver } from "@virtio/blk/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { WorkerDevice, type WorkerPort } from "./mod.ts";

const SIZE = 1 << 20;
const module = (name: string) => new URL(`./testing/${name}`, import.meta.url);

async function rig() {
  const bytes = new SharedArrayBuffer(SIZE);
  const workers: Worker[] = [];
  const device = new WorkerDevice(module("disk_worker.ts?sleep"), {
    data: { bytes },
    onDeath: "replace",
    spawn: (source) => {
      const worker = new Worker(source, { type: "module" });
      workers.push(worker);
      return worker as unknown as WorkerPort;
    },
  });
  await device.ready;
  const memory = GuestMemory.allocate(4 * SIZE);
  const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
  const driver = await BlkDriver.open(transport, {
    dma: new DmaPool(memory, 0x1000, 4 * SIZE - 0x1000),
  });
  const kill = () => workers.at(-1)!.dispatchEvent(new ErrorEvent("error", { message: "killed" }));
  return { device, driver, kill, bytes: new Uint8Array(bytes) };
}

for (const how of ["replaced", "killed"] as const) {
  Deno.test(`worker: a device that is ${how} remembers what its driver configured`, async () => {
    const { device, driver, kill, bytes } = await rig();
    try {
      for (const writeback of [false, true, false]) {
        assertEquals(driver.setWriteback(writeback), writeback);
        if (how === "replaced") await device.replace();
        else kill();
        await driver.write(8, new Uint8Array(512).fill(writeback ? 1 : 2));
        assertEquals((device.save() as { writeback: boolean }).writeback, writeback);
        assertEquals(driver.info.writeback, writeback);
        assertEquals(bytes[8 * 512], writeback ? 1 : 2);
      }
      await driver.close();
    } finally {
      device.close();
    }
  });
}

Deno.test("worker: a device of another kind does not take its place; the old one goes on", async () => {
  const { device, driver } = await rig();
  try {
    await assertRejects(
      () => device.replace(module("echo_worker.ts")),
      TypeError,
      "another kind",
    );
    await assertRejects(
      () => device.replace(undefined, { bytes: new SharedArrayBuffer(SIZE), queues: 2 }),
      TypeError,
      "another kind",
    );
    await assertRejects(
      () => device.replace(undefined, { refuse: "not today" }),
      RangeError,
      "not today",
    );
    await driver.write(0, new Uint8Array(512));
    assert(device.alive);
    await driver.close();
  } finally {
    device.close();
  }
});

Deno.test("worker: what is longer than the memory that calls go through crosses in parts, both ways", async () => {
  const device = new WorkerDevice(module("echo_worker.ts"));
  try {
    await device.ready;
    assertEquals(device.reports(), ["long ".repeat(20_000)]);
    // It is no state of an echo device, which has none to restore.
    device.restore("long ".repeat(20_000));
    assertEquals(device.reports()[0], "long ".repeat(20_000));
  } finally {
    device.close();
  }
});

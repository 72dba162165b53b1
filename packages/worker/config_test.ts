/** The configuration of a device in a worker, and memory that it shows, are where its driver looks: on the other side. */
import { CORE_FEATURES, type Device, VIRTIO_STATUS_SUSPEND } from "@virtio/device";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { LIVE, Rig } from "../device/testing.ts";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { WorkerDevice } from "./mod.ts";

async function open(shared = true): Promise<WorkerDevice> {
  const source = new URL("./testing/config_worker.ts", import.meta.url);
  const device = new WorkerDevice(source, { data: shared });
  try {
    await device.ready;
  } catch (error) {
    device.close();
    throw error;
  }
  return device;
}

for (const [name, format] of FORMATS) {
  Deno.test(`a driver that looks into the ring by itself finds the configuration as it was when the buffer was used (${name})`, async () => {
    const device = await open();
    try {
      const rig = new Rig<Device>({ device });
      const raw = rig.startRaw(format);
      const { generation } = device.config;
      for (let round = 1; round <= 100; round++) {
        raw.send([{ address: 0x8_0000, length: 4, write: true }]);
        rig.state.notify(0);
        const until = performance.now() + 10_000;
        // Without a turn of the event loop, and without an interrupt.
        while (raw.takeUsed().length === 0) assert(performance.now() < until, "it is used");
        assertEquals(rig.state.readConfig(0, 4), round);
        assertEquals(rig.state.configGeneration, generation + round);
      }
    } finally {
      device.close();
    }
  });
}

Deno.test("a driver that looks at the configuration only is told what was used, then that a reset is needed", async () => {
  const device = await open();
  try {
    const rig = new Rig<Device>({ device });
    const raw = rig.startRaw();
    raw.send([{ address: 0x8_0000, length: 8, write: true }]);
    rig.state.notify(0);
    const until = performance.now() + 10_000;
    while (!rig.needsReset) {
      assert(performance.now() < until, "it asks for a reset");
      rig.state.readConfig(0, 4);
    }
    assertEquals(rig.interrupts.filter((what) => what === 0), [0]);
    assertEquals([raw.takeUsed().length, rig.interrupts.at(-1)], [1, "config"]);
  } finally {
    device.close();
  }
});

Deno.test("what may be written at any time, may be so here: before the device is set up, and while it is suspended", async () => {
  const device = await open();
  try {
    const rig = new Rig<Device>({ device });
    rig.state.writeConfig(12, 4, 0x61);
    rig.state.writeConfig(8, 4, 0x62);
    assertEquals(device.reports(), [{ writes: [[12, [0x61, 0, 0, 0]]], first: 0 }]);
    rig.startRaw(CORE_FEATURES);
    rig.status = LIVE | VIRTIO_STATUS_SUSPEND;
    const count = rig.state.readConfig(4, 1);
    rig.interrupts.length = 0;
    rig.state.writeConfig(12, 2, 0x63);
    rig.state.writeConfig(8, 4, 0x64);
    assertEquals((device.reports()[0] as { writes: unknown[] }).writes.length, 2);
    // What the device makes of it is not shown before it runs again (3.4.2).
    assertEquals([rig.state.readConfig(4, 1), rig.state.readConfig(12, 1)], [count, 0x63]);
    assertEquals(rig.interrupts, []);
    rig.status = LIVE;
    assertEquals(rig.state.readConfig(4, 1), count + 1);
    assertEquals(rig.interrupts, ["config"]);
  } finally {
    device.close();
  }
});

Deno.test("memory that a device shows beside its queues is the same on both sides", async () => {
  const device = await open();
  try {
    const [region, ...more] = device.sharedMemory!;
    assertEquals([region!.id, region!.address, region!.bytes.length, more], [
      3,
      0x10_0000_0000,
      64,
      [],
    ]);
    region!.bytes[0] = 7;
    assertEquals(device.reports(), [{ writes: [], first: 7 }]);
  } finally {
    device.close();
  }
});

Deno.test("memory that cannot be shared is refused", async () => {
  await assertRejects(() => open(false), TypeError, "SharedArrayBuffer");
});

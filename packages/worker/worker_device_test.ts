/** A device in a worker is a device like any other: the same driver, the same life, and a worker that may die. */
import { BlkDriver } from "@virtio/blk/driver";
import {
  type Device,
  type DeviceState,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { WorkerDevice, WorkerError } from "./mod.ts";
import type { DiskData } from "./testing/disk_worker.ts";

const SIZE = 1 << 20;
const module = (query = "") => new URL(`./testing/disk_worker.ts${query}`, import.meta.url);

interface Disk {
  readonly device: WorkerDevice;
  readonly bytes: Uint8Array;
}

async function disk(data: Partial<DiskData> = {}, query = "", workers = 1): Promise<Disk> {
  const buffer = new SharedArrayBuffer(SIZE);
  const device = new WorkerDevice(module(query), { data: { bytes: buffer, ...data }, workers });
  await device.ready;
  return { device, bytes: new Uint8Array(buffer) };
}

async function drive(device: Device, core?: FeatureSet): Promise<{
  driver: BlkDriver;
  state: DeviceState;
  errors: Error[];
  memory: GuestMemory;
}> {
  const memory = GuestMemory.allocate(4 * SIZE);
  const errors: Error[] = [];
  const onError = (error: Error): void => void errors.push(error);
  const { driver: transport, transport: registers } = connectMmio((host) =>
    new MmioTransport(device, { memory, host, onError })
  );
  const dma = new DmaPool(memory, 0x1000, 4 * SIZE - 0x1000);
  const driver = await BlkDriver.open(transport, { dma, ...(core === undefined ? {} : { core }) });
  return { driver, state: registers.state, errors, memory };
}

function pattern(length: number, seed: number): Uint8Array {
  return Uint8Array.from({ length }, (_, i) => (i * 7 + seed * 13) & 0xff);
}

for (const [format, core] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (
    const [kind, data, query] of [
      ["at once, asleep in Atomics.wait", {}, "?sleep"],
      ["at once, in the event loop", {}, ""],
      ["later", { later: true }, "?sleep"],
    ] as const
  ) {
    Deno.test(`worker, ${format}, ${kind}: what is written is read back, and lies on the disk`, async () => {
      const { device, bytes } = await disk(data, query);
      try {
        const { driver, errors } = await drive(device, core);
        assertEquals(await driver.getId(), "worker");
        await Promise.all(
          Array.from({ length: 100 }, (_, i) => driver.write(i * 8, pattern(4096, i))),
        );
        await driver.flush();
        for (let i = 0; i < 100; i++) {
          const into = new Uint8Array(4096);
          await driver.read(i * 8, into);
          assertEquals(into, pattern(4096, i));
        }
        assertEquals(bytes.slice(99 * 4096, 100 * 4096), pattern(4096, 99));
        await driver.close();
        assertEquals(errors, []);
      } finally {
        device.close();
      }
    });
  }
}

Deno.test("worker: each of several serves its queues", async () => {
  const { device, bytes } = await disk({ queues: 4 }, "?sleep", 2);
  try {
    assertEquals(device.queueSizes.length, 4);
    const { driver } = await drive(device);
    await Promise.all(
      Array.from({ length: 64 }, (_, i) => driver.write(i * 8, pattern(4096, i))),
    );
    assertEquals(bytes.slice(63 * 4096, 64 * 4096), pattern(4096, 63));
    await driver.close();
  } finally {
    device.close();
  }
});

Deno.test("worker: before it is ready the device says what to do; what its maker throws comes out of ready", async () => {
  const { device } = { device: new WorkerDevice(module(), { data: { refuse: "no such disk" } }) };
  assertThrows(() => device.type, TypeError, "await device.ready");
  await assertRejects(() => device.ready, RangeError, "no such disk");
  assertEquals(device.alive, false);
  device.close();
});

Deno.test("worker: new code takes over while requests go on; nothing is lost", async () => {
  for (const data of [{}, { later: true }, { shuffled: true }]) {
    const { device } = await disk(data);
    try {
      const { driver, errors } = await drive(device, VIRTIO_F_EVENT_IDX);
      let running = true;
      let requests = 0;
      // Several at a time, so that some come while a queue drains.
      const load = Promise.all(Array.from({ length: 4 }, async (_, lane) => {
        while (running) {
          const at = 25 * lane + requests++ % 25;
          await driver.write(at * 8, pattern(4096, at));
          const into = new Uint8Array(4096);
          await driver.read(at * 8, into);
          assertEquals(into, pattern(4096, at));
        }
      }));
      for (let i = 0; i < 5; i++) {
        const before = requests;
        await device.replace(module("?sleep"));
        while (requests < before + 20) await new Promise((resolve) => setTimeout(resolve, 1));
      }
      running = false;
      await load;
      await driver.close();
      assertEquals(errors, []);
    } finally {
      device.close();
    }
  }
});

Deno.test("worker: when it dies the device asks for a reset, and says why", async () => {
  const { device } = await disk({ later: true, dies: 50 });
  try {
    const { driver, errors } = await drive(device);
    const failure = await assertRejects(async () => {
      for (;;) await driver.read(0, new Uint8Array(512));
    }, Error);
    assert(failure.message.length > 0);
    assertEquals(errors.length, 1);
    assert(errors[0] instanceof WorkerError);
    assert(errors[0]!.message.includes("planted"), errors[0]!.message);
    assertEquals(device.alive, false);
  } finally {
    device.close();
  }
});

Deno.test("worker: after a reset in mid-request nothing of the old life is written", async () => {
  const { device } = await disk({ later: true });
  try {
    for (let life = 0; life < 5; life++) {
      const { driver, memory } = await drive(device);
      const reads = Array.from(
        { length: 50 },
        (_, i) => driver.read(i, new Uint8Array(4096)).catch(() => {}),
      );
      await new Promise((resolve) => setTimeout(resolve, 1));
      await driver.close();
      const region = memory.regions[0]!;
      const before = region.bytes.slice();
      await new Promise((resolve) => setTimeout(resolve, 20));
      assertEquals(before.every((byte, i) => region.bytes[i] === byte), true);
      await Promise.all(reads);
    }
  } finally {
    device.close();
  }
});

Deno.test("worker: its state is saved, and restored into another one", async () => {
  const { device, bytes } = await disk();
  const { device: other } = await disk({ bytes: bytes.buffer as SharedArrayBuffer });
  try {
    const { driver, state, memory } = await drive(device);
    await driver.write(0, pattern(512, 1));
    await state.pause();
    const saved = structuredClone(state.save());
    const again = new MmioTransport(other, { memory, host: { setInterruptLine: () => {} } });
    again.state.restore(saved);
    again.state.unpause();
    assertEquals(again.state.status, state.status);
    assertEquals(again.state.live, true);
  } finally {
    device.close();
    other.close();
  }
});

Deno.test("worker: what the device writes is told to the memory's tracker before the interrupt", async () => {
  const { device, bytes } = await disk({}, "?sleep");
  try {
    bytes.fill(7);
    const { driver, memory } = await drive(device);
    await driver.close();
    const marked: [number, number][] = [];
    memory.tracker = { mark: (address, length) => marked.push([address, length]) };
    const dma = new DmaPool(memory, 0x10_0000, SIZE);
    const { driver: transport } = connectMmio((host) =>
      new MmioTransport(device, { memory, host })
    );
    const again = await BlkDriver.open(transport, { dma });
    const address = dma.allocate(4096);
    const queue = again.queues[0]!;
    let seen = false;
    const done = new Promise<void>((resolve) => {
      queue.submit(0, 0, address, 4096, true, {
        settled: () => {
          seen = marked.some(([at, length]) => at <= address && at + length >= address + 4096);
          resolve();
        },
        failed: () => resolve(),
        lost: () => resolve(),
      });
    });
    queue.publish();
    await done;
    assert(seen);
    await again.close();
  } finally {
    device.close();
  }
});

/** A worker dies in the middle of its work and another takes over: every request is answered once, the disk holds them all. */
import { BlkDriver } from "@virtio/blk/driver";
import { type FeatureSet, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { WorkerDevice, type WorkerDeviceOptions, type WorkerPort } from "./mod.ts";
import type { DiskData } from "./testing/disk_worker.ts";

const SIZE = 1 << 20;
const LANES = 8;
const SECTORS = SIZE / 512 / LANES;

interface Load {
  /** Requests answered. */
  done: number;
  /** Ends it, and compares the disk with what was acknowledged. */
  finish(): Promise<void>;
  /** Fails as the load does. */
  readonly failed: Promise<void>;
}

/** Lanes that write, read back and compare, each in its own part of the disk. */
function load(driver: BlkDriver, bytes: Uint8Array): Load {
  let running = true;
  const acknowledged = new Map<number, number>();
  const result = { done: 0 } as Load;
  const lanes = Promise.all(Array.from({ length: LANES }, async (_, lane) => {
    for (let round = 1; running; round++) {
      const sector = lane * SECTORS + round % (SECTORS - 4);
      const value = (round * 7 + lane) & 0xff;
      await driver.write(sector, new Uint8Array(2048).fill(value));
      for (let i = 0; i < 4; i++) acknowledged.set(sector + i, value);
      const back = new Uint8Array(2048);
      await driver.read(sector, back);
      assert(back.every((byte) => byte === value), "it reads what was written");
      result.done += 2;
    }
  })).then(() => {});
  return Object.assign(result, {
    failed: lanes,
    async finish() {
      running = false;
      await lanes;
      for (const [sector, value] of acknowledged) {
        const held = bytes.subarray(sector * 512, sector * 512 + 512);
        assert(held.every((byte) => byte === value), `sector ${sector} is what was acknowledged`);
      }
    },
  });
}

async function rig(
  core: FeatureSet,
  data: Partial<DiskData>,
  options: WorkerDeviceOptions = {},
  query = "",
) {
  const buffer = new SharedArrayBuffer(SIZE);
  const deaths: Error[] = [];
  const workers: Worker[] = [];
  const device = new WorkerDevice(new URL(`./testing/disk_worker.ts${query}`, import.meta.url), {
    onDeath: "replace",
    onError: (error) => deaths.push(error),
    spawn: (source) => {
      const worker = new Worker(source, { type: "module" });
      workers.push(worker);
      return worker as unknown as WorkerPort;
    },
    ...options,
    data: { bytes: buffer, ...data },
  });
  await device.ready;
  const memory = GuestMemory.allocate(4 * SIZE);
  const errors: Error[] = [];
  const { driver: transport, transport: registers } = connectMmio((host) =>
    new MmioTransport(device, { memory, host, onError: (error) => errors.push(error) })
  );
  const dma = new DmaPool(memory, 0x1000, 4 * SIZE - 0x1000);
  const driver = await BlkDriver.open(transport, { dma, core });
  const kill = () => workers.at(-1)!.dispatchEvent(new ErrorEvent("error", { message: "killed" }));
  return { device, driver, errors, deaths, kill, registers, bytes: new Uint8Array(buffer) };
}

async function until(failed: Promise<void>, done: () => boolean): Promise<void> {
  while (!done()) {
    await Promise.race([failed, new Promise((again) => setTimeout(again, 1))]);
  }
}

for (const [format, core] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (
    const [kind, count, data, query] of [
      ["requests done at once", 20, { diesAt: 150 }, "?sleep"],
      ["requests done in any order", 20, { diesAt: 101, shuffled: true }, ""],
      ["several queues", 5, { diesAt: 77, shuffled: true, queues: 3 }, ""],
    ] as const
  ) {
    Deno.test(`death, ${format}, ${kind}: ${count} workers end in the middle of a load; nothing acknowledged is lost`, async () => {
      const { device, driver, errors, deaths, bytes } = await rig(core, data, {}, query);
      try {
        const work = load(driver, bytes);
        await until(work.failed, () => deaths.length >= count);
        const before = work.done;
        await until(work.failed, () => work.done > before + 50);
        await work.finish();
        assert(deaths.every(({ message }) => message.includes("planted")));
        assertEquals(errors, []);
        await driver.close();
      } finally {
        device.close();
      }
    });
  }

  Deno.test(`death, ${format}: a worker is killed from outside, at any moment`, async () => {
    const { device, driver, errors, deaths, bytes, kill } = await rig(core, {}, {}, "?sleep");
    try {
      const work = load(driver, bytes);
      for (let time = 1; time <= 2; time++) {
        const before = work.done;
        await until(work.failed, () => work.done > before + 100 * time);
        kill();
        assertEquals(deaths.length, time);
      }
      const before = work.done;
      await until(work.failed, () => work.done > before + 100);
      await work.finish();
      assertEquals(errors, []);
      await driver.close();
    } finally {
      device.close();
    }
  });
}

Deno.test("death: a device that is not repeatable asks for a reset, and the error says why", async () => {
  const { device, driver, errors } = await rig(0n, { diesAt: 20 }, {}, "?once");
  try {
    await assertRejects(async () => {
      for (;;) await driver.read(0, new Uint8Array(512));
    });
    await until(Promise.resolve(), () => errors.length > 0);
    assert(errors[0]!.message.includes("repeatable"), errors[0]!.message);
    assert(errors[0]!.message.includes("planted"), errors[0]!.message);
  } finally {
    device.close();
  }
});

Deno.test("death: requests that end every worker are given up", async () => {
  const { device, driver, errors, deaths } = await rig(0n, { diesAt: 1, shuffled: true });
  try {
    await assertRejects(() => driver.read(0, new Uint8Array(512)));
    await until(Promise.resolve(), () => errors.length > 0);
    assert(errors[0]!.message.includes("the same requests have ended"), errors[0]!.message);
    assertEquals(deaths.length, 4);
  } finally {
    device.close();
  }
});

Deno.test("death: a driver that resets while another worker takes over finds the device working", async () => {
  const { device, driver, errors, deaths, bytes, kill, registers } = await rig(
    0n,
    {},
    {},
    "?sleep",
  );
  try {
    await driver.write(0, new Uint8Array(512).fill(9));
    kill();
    assertEquals(deaths.length, 1);
    await driver.close();
    for (let i = 0; i < 5000 && !device.alive; i++) await new Promise((r) => setTimeout(r, 1));
    assert(device.alive);
    assertEquals(registers.state.status, 0);
    assertEquals(errors, []);
    assertEquals(bytes[511], 9);
  } finally {
    device.close();
  }
});

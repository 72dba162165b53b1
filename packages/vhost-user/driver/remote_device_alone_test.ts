import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { BlkDriver, VIRTIO_BLK_T_IN } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { ConsoleDevice } from "@virtio/console";
import { ConsoleDriver } from "@virtio/console/driver";
import { MemoryConsole } from "@virtio/console/memory";
import {
  CORE_FEATURES,
  type Device,
  DeviceId,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SUSPEND,
} from "@virtio/device";
import { DirtyBitmap } from "@virtio/memory";
import { type Frame, type FrameSink, NetDevice, Offload } from "@virtio/net";
import { NetDriver } from "@virtio/net/driver";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";
import { reactor } from "../backend/reactor.ts";
import { VhostUserServer } from "../mod.ts";
import { ProtocolFeature } from "../protocol/mod.ts";
import { FrontEndMemory, RemoteDevice, VhostUserTransport } from "./mod.ts";
import type { FrontEndOptions } from "./options.ts";
import { openDescriptors } from "./testing.ts";

const MIB = 2 ** 20;

/** Serves a device, and sees that nothing of it stays. */
async function served(
  device: Device,
  run: (socket: string, memory: FrontEndMemory) => Promise<void>,
): Promise<void> {
  const folder = await Deno.makeTempDir();
  await reactor().idle();
  const before = openDescriptors();
  const errors: Error[] = [];
  const server = new VhostUserServer({
    socket: `${folder}/s`,
    device,
    onError: (error) => errors.push(error),
  });
  const memory = FrontEndMemory.allocate(8 * MIB);
  try {
    await run(`${folder}/s`, memory);
    assertEquals(errors, []);
  } finally {
    await server.close();
    memory.close();
    await reactor().idle();
    await Deno.remove(folder, { recursive: true });
  }
  assertEquals(openDescriptors(), before);
}

/** A device of a server behind registers of ours, and a driver of ours before those. */
async function remote(
  options: Partial<FrontEndOptions>,
  run: (driver: BlkDriver, device: RemoteDevice, memory: FrontEndMemory) => Promise<void>,
  tracker: DirtyBitmap | null = null,
  core = CORE_FEATURES,
): Promise<void> {
  const disk = new BlkDevice({ backend: new MemoryBackend(4 * MIB), id: "remote" });
  await served(disk, async (socket, memory) => {
    const { guest } = memory;
    guest.tracker = tracker;
    const device = await RemoteDevice.connect(socket, {
      deviceType: DeviceId.block,
      memory,
      ...options,
    });
    const errors: Error[] = [];
    const { driver: transport } = connectMmio((host) =>
      new MmioTransport(device, {
        memory: guest,
        host,
        features: device.ringFeatures,
        onError: (error) => errors.push(error),
      })
    );
    const driver = await BlkDriver.open(transport, { dma: new DmaPool(guest, 0, 4 * MIB), core });
    await run(driver, device, memory);
    await driver.close();
    assertEquals(errors, []);
    await device.close();
  });
}

for (const ring of ["split", "packed"] as const) {
  Deno.test(`A device of another process is one of ours to transport and driver, ${ring} ring`, () =>
    remote(
      {},
      async (driver) => {
        assertEquals(driver.session.has(VIRTIO_F_RING_PACKED), ring === "packed");
        assertEquals([driver.sectors, await driver.getId()], [8192, "remote"]);
        const bytes = Uint8Array.from({ length: 256 * 1024 }, (_, i) => i * 3 + (i >> 8));
        const back = new Uint8Array(bytes.length);
        await driver.write(0, bytes);
        // Its queues are taken back and given again, twice in two ways, and know where to go on.
        assert(driver.session.has(VIRTIO_F_SUSPEND));
        for (let round = 0; round < 3; round++) {
          await driver.session.suspend();
          await driver.session.resume();
          await driver.read(0, back);
          assertEquals(back, bytes);
          await driver.resetQueue(0);
          await driver.write(512, bytes);
        }
      },
      null,
      ring === "packed" ? CORE_FEATURES : CORE_FEATURES & ~VIRTIO_F_RING_PACKED,
    ));
}

for (
  const [how, options] of [
    ["by its dirty log", {}],
    ["that has no log", { protocolFeatures: ~ProtocolFeature.LOG_SHMFD }],
  ] as const
) {
  Deno.test(`Whoever tracks guest memory is told what a back end wrote, ${how}`, () => {
    const dirty = new DirtyBitmap(8 * MIB);
    return remote(options, async (driver, device, memory) => {
      await driver.write(8, new Uint8Array(4096).fill(9));
      dirty.drain(() => {});
      const back = new Uint8Array(4096);
      await driver.read(8, back);
      assertEquals(back[4095], 9);
      let pages = 0;
      let found = false;
      dirty.drain((address, length) => {
        pages += length / 4096;
        const bytes = new Uint8Array(length);
        memory.guest.read(address, bytes);
        // The data, among what it wrote.
        if (bytes.indexOf(9) >= 0) found = true;
      });
      assert(found);
      if (device.frontEnd.canLog) assert(pages < 10, `${pages} pages`);
      else assertEquals(pages, 8 * MIB / 4096);
    }, dirty);
  });
}

Deno.test("Logging begins and ends while a device runs", () =>
  served(new BlkDevice({ backend: new MemoryBackend(4 * MIB) }), async (socket, memory) => {
    const transport = await VhostUserTransport.connect(socket, { deviceType: 2, memory });
    const driver = await BlkDriver.open(transport, { dma: new DmaPool(memory.guest, 0, 4 * MIB) });
    const back = new Uint8Array(4096);
    await driver.read(0, back);
    const log = transport.frontEnd.startLog()!;
    await transport.frontEnd.setMtu(1); // in its turn: logging has begun then
    await driver.read(0, back);
    assert(log.bitmap.drain(() => {}));
    assertEquals(log.bitmap.drain(() => {}), false);
    await driver.read(0, back);
    assert(log.bitmap.drain(() => {}));
    // Memory far behind what the log was made for.
    const far = 2 ** 34;
    await memory.add({ base: far, size: 65536 });
    const queue = driver.queues[0]!;
    assert(queue.submit(VIRTIO_BLK_T_IN, 0, far + 4096, 512) >= 0);
    queue.publish();
    while (queue.poll() < 0) await new Promise((resolve) => setTimeout(resolve, 1));
    const found: number[] = [];
    log.bitmap.drain((address) => found.push(address));
    assertEquals(found.at(-1), far + 4096);
    await transport.frontEnd.stopLog();
    await driver.read(0, back);
    await driver.close();
    await transport.close();
  }));

Deno.test("A network driver runs over vhost-user unchanged", () => {
  let peer: FrameSink | null = null;
  const backend = {
    offloads: Offload.all,
    connect: (sink: FrameSink | null) => void (peer = sink),
    deliver: (frame: Frame) => peer?.deliver(frame),
  };
  return served(new NetDevice({ backend, mac: "02:00:00:00:00:01" }), async (socket, memory) => {
    const transport = await VhostUserTransport.connect(socket, {
      deviceType: DeviceId.net,
      memory,
    });
    const driver = await NetDriver.open(transport, { dma: new DmaPool(memory.guest, 0, 8 * MIB) });
    for (let length = 60; length < 1514; length += 100) {
      const bytes = new Uint8Array(length).fill(length);
      bytes.set(driver.mac, 0);
      const back = new Promise<number>((resolve) => {
        driver.onFrame = (frame) => resolve(frame.length);
      });
      driver.sendBytes(bytes);
      assertEquals(await back, length);
    }
    await driver.close();
    await transport.close();
  });
});

Deno.test("A console driver runs over vhost-user unchanged, with ports", () => {
  const agent = new MemoryConsole();
  const device = new ConsoleDevice({
    ports: [{ backend: new MemoryConsole() }, { backend: agent, name: "agent" }],
  });
  return served(device, async (socket, memory) => {
    const transport = await VhostUserTransport.connect(socket, {
      deviceType: DeviceId.console,
      memory,
    });
    const driver = await ConsoleDriver.open(transport, {
      dma: new DmaPool(memory.guest, 0, 8 * MIB),
    });
    const port = await driver.waitForPort("agent");
    port.open();
    await port.write(new TextEncoder().encode("hello"));
    assertEquals(agent.takeText(), "hello");
    await driver.close();
    await transport.close();
  });
});

Deno.test("Guest memory of a file that somebody else made is the same memory", () => {
  const one = FrontEndMemory.allocate(MIB);
  const { descriptor } = one.regions[0]!;
  const other = new FrontEndMemory([{ base: 0, size: 65536, descriptor, offset: 4096 }]);
  one.guest.writeU32(4096 + 8, 77);
  assertEquals(other.guest.readU32(8), 77);
  other.close();
  one.close();
});

import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { BlkDriver, VIRTIO_BLK_T_OUT } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { CORE_FEATURES, VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { DmaPool } from "@virtio/vring/driver";
import { ProtocolFeature, protocolFeatureNames } from "../protocol/mod.ts";
import { VHOST_USER_CARRIES, VhostUserServer } from "../mod.ts";
import { FrontEndMemory, VhostUserTransport } from "./mod.ts";
import type { FrontEndOptions } from "./options.ts";
import { reactor } from "../backend/reactor.ts";
import { openDescriptors } from "./testing.ts";

const MIB = 2 ** 20;

interface World {
  readonly server: VhostUserServer;
  readonly device: BlkDevice;
  readonly backend: MemoryBackend;
  readonly memory: FrontEndMemory;
  readonly transport: VhostUserTransport;
  readonly errors: Error[];
  dma(): DmaPool;
}

async function world(
  run: (world: World) => Promise<void>,
  options: Partial<FrontEndOptions> & { queues?: number; offer?: bigint } = {},
): Promise<void> {
  const folder = await Deno.makeTempDir();
  const socket = `${folder}/s`;
  const before = openDescriptors();
  const backend = new MemoryBackend(4 * MIB);
  const device = new BlkDevice({ backend, id: "far away", queues: options.queues ?? 1 });
  const errors: Error[] = [];
  const server = new VhostUserServer({
    socket,
    device,
    ...(options.offer === undefined ? {} : { features: options.offer }),
    onError: (error) => errors.push(error),
  });
  const memory = FrontEndMemory.allocate(4 * MIB);
  const transport = await VhostUserTransport.connect(socket, {
    deviceType: 2,
    onError: (error) => errors.push(error),
    ...options,
    memory,
  });
  try {
    const dma = () => new DmaPool(memory.guest, 0, MIB);
    await run({ server, device, backend, memory, transport, errors, dma });
  } finally {
    await transport.close();
    await server.close();
    memory.close();
    await reactor().idle();
    await Deno.remove(folder, { recursive: true });
  }
  assertEquals(openDescriptors(), before);
}

const pattern = (length: number, seed: number): Uint8Array =>
  Uint8Array.from({ length }, (_, i) => (i * seed + (i >> 8)) & 255);

for (const ring of ["split", "packed"] as const) {
  Deno.test(`A disk in a server of ours is read and written through shared memory, ${ring} ring`, () =>
    world(async ({ transport, dma, backend, errors }) => {
      const core = ring === "packed" ? CORE_FEATURES : CORE_FEATURES & ~VIRTIO_F_RING_PACKED;
      for (let round = 1; round <= 2; round++) {
        const driver = await BlkDriver.open(transport, { dma: dma(), core });
        assertEquals(driver.session.has(VIRTIO_F_RING_PACKED), ring === "packed");
        assertEquals(driver.sectors, 8192);
        assertEquals(await driver.getId(), "far away");
        const bytes = pattern(MIB, 6 + round);
        await Promise.all([
          driver.write(0, bytes.subarray(0, MIB / 2)),
          driver.write(1024, bytes.subarray(MIB / 2)),
        ]);
        await driver.flush();
        const back = new Uint8Array(MIB);
        await driver.read(0, back);
        assertEquals(back, bytes);
        const stored = new Uint8Array(MIB);
        backend.read(0, stored, 0, MIB);
        assertEquals(stored, bytes);
        await driver.close();
      }
      assertEquals(errors, []);
    }));
}

Deno.test("A queue that is reset goes on, with requests under way", () =>
  world(async ({ transport, dma }) => {
    const driver = await BlkDriver.open(transport, { dma: dma(), queueSize: 64 });
    await driver.write(3, pattern(512, 5));
    const back = new Uint8Array(512);
    const reading = Promise.all(Array.from({ length: 20 }, () => driver.read(3, back)));
    await driver.resetQueue(0);
    await reading;
    assertEquals(back, pattern(512, 5));
    await driver.close();
  }));

Deno.test("Four queues work at once", () =>
  world(async ({ transport, dma }) => {
    assertEquals(transport.queueCount, 4);
    const driver = await BlkDriver.open(transport, { dma: dma(), queueSize: 16 });
    assertEquals(driver.queues.length, 4);
    const blocks = Array.from({ length: 64 }, (_, i) => pattern(4096, i));
    await Promise.all(blocks.map((block, i) => driver.write(8 * i, block)));
    const back = await Promise.all(blocks.map(async (_, i) => {
      const block = new Uint8Array(4096);
      await driver.read(8 * i, block);
      return block;
    }));
    assertEquals(back, blocks);
    await driver.close();
  }, { queues: 4 }));

Deno.test("A disk that grows tells its driver", () =>
  world(async ({ transport, dma, device }) => {
    const driver = await BlkDriver.open(transport, { dma: dma() });
    const changed = new Promise<number>((resolve) =>
      driver.onChange = ({ sectors }) => resolve(sectors)
    );
    await device.resize(16384 * 512);
    assertEquals(await changed, 16384);
    await driver.write(16383, pattern(512, 3));
    await driver.close();
  }));

for (const slots of [true, false]) {
  const how = slots ? "by slots" : "as a new table";
  Deno.test(`Memory comes and goes while the device runs, ${how}`, async () => {
    const base = 0x1_0000_0000;
    const { CONFIGURE_MEM_SLOTS } = ProtocolFeature;
    await world(async ({ transport, dma, errors, memory }) => {
      await memory.add({ base: 8 * MIB, size: MIB });
      assertEquals(
        protocolFeatureNames(transport.frontEnd.protocolFeatures).includes("CONFIGURE_MEM_SLOTS"),
        slots,
      );
      const rings = await BlkDriver.open(transport, { dma: dma(), transferSize: 4096, buffers: 2 });
      await memory.add({ base, size: 64 * 1024 });
      // A request whose buffer is in the new region.
      const queue = rings.queues[0]!;
      memory.guest.write(base + 512, pattern(512, 9));
      assert(queue.submit(VIRTIO_BLK_T_OUT, 7, base + 512, 512) >= 0);
      queue.publish();
      while (queue.poll() < 0) await new Promise((resolve) => setTimeout(resolve, 1));
      assertEquals(queue.status, 0);
      const back = new Uint8Array(512);
      await rings.read(7, back);
      assertEquals(back, pattern(512, 9));
      await memory.remove(base);
      assertEquals(memory.guest.lookup(base, 1), null);
      await rings.read(7, back);
      await memory.remove(8 * MIB);
      await rings.read(7, back);
      assertEquals(errors, []);
      await rings.close();
    }, {
      ...(slots ? {} : { protocolFeatures: ~CONFIGURE_MEM_SLOTS }),
    });
  });
}

for (const packed of [false, true]) {
  const format = packed ? "packed" : "split";
  Deno.test(`A driver whose ${format} rings are used in order needs no notes of what is in flight`, async () => {
    await world(async ({ transport, dma, errors, server }) => {
      const core = VIRTIO_F_IN_ORDER |
        (packed ? CORE_FEATURES : CORE_FEATURES & ~VIRTIO_F_RING_PACKED);
      const driver = await BlkDriver.open(transport, { dma: dma(), core });
      assert(driver.session.has(VIRTIO_F_IN_ORDER));
      const agreed = protocolFeatureNames(transport.frontEnd.protocolFeatures);
      assert(agreed.includes("INFLIGHT_SHMFD"), agreed.join());
      for (let i = 0; i < 100; i++) {
        const bytes = new Uint8Array(512).fill(i);
        await driver.write(i, bytes);
        const back = new Uint8Array(512);
        await driver.read(i, back);
        assertEquals(back, bytes);
      }
      assertEquals([server.status.state, errors], ["live", []]);
      await driver.close();
    }, { offer: VHOST_USER_CARRIES });
  });
}

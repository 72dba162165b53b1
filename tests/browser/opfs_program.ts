/** In the page: our driver on a disk in the browser's own storage. */
import { BlkDevice } from "@virtio/blk";
import { BlkDriver } from "@virtio/blk/driver";
import { OpfsBackend } from "@virtio/blk/opfs";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";

const SIZE = 4 << 20;

function worker(): Worker {
  return new Worker("/opfs_worker.js", { type: "module" });
}

async function open(
  path: string,
  size?: number,
): Promise<{ driver: BlkDriver; backend: OpfsBackend }> {
  const backend = await OpfsBackend.open({
    worker: worker(),
    path,
    ...(size === undefined ? {} : { size }),
  });
  const memory = GuestMemory.allocate(4 << 20);
  const device = new BlkDevice({ backend, id: "opfs" });
  const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
  const driver = await BlkDriver.open(transport, { dma: new DmaPool(memory, 0, 4 << 20) });
  return { driver, backend };
}

const pattern = (seed: number) =>
  Uint8Array.from({ length: 65536 }, (_, i) => (i * 7 + seed) & 255);

/** Writes all over a disk of 2 GiB, zeroes a part, and closes it. @returns The capacity. */
export async function write(path: string): Promise<number> {
  const { driver, backend } = await open(path, 2 ** 31);
  await Promise.all(
    Array.from({ length: 32 }, (_, i) => driver.write(i * 131072, pattern(i))),
  );
  await driver.writeZeroes([{ sector: 131072, sectors: 64 }]);
  await driver.flush();
  await driver.close();
  const { capacity } = backend;
  await backend.close();
  return capacity;
}

/** Looks whether that is there. @returns What is wrong. */
export async function check(path: string): Promise<string[]> {
  const wrong: string[] = [];
  const { driver, backend } = await open(path);
  for (let i = 0; i < 32; i++) {
    const into = new Uint8Array(65536);
    await driver.read(i * 131072, into);
    const expected = pattern(i);
    if (i === 1) expected.fill(0, 0, 64 * 512);
    if (!into.every((byte, at) => byte === expected[at])) wrong.push(`piece ${i}`);
  }
  await driver.close();
  await backend.close();
  return wrong;
}

/** Errors that users meet. */
export async function errors(): Promise<string[]> {
  const reasons: string[] = [];
  const failure = async (work: () => Promise<unknown>): Promise<void> => {
    try {
      await work();
      reasons.push("none");
    } catch (error) {
      const { reason, message } = error as { reason?: string; message: string };
      reasons.push(reason ?? message);
    }
  };
  await failure(() => OpfsBackend.open({ worker: worker(), path: "no/such/disk" }));
  const held = await OpfsBackend.open({ worker: worker(), path: "held", size: SIZE });
  await failure(() => OpfsBackend.open({ worker: worker(), path: "held" }));
  await failure(() => held.read(SIZE, new Uint8Array(512), 0, 512));
  await held.resize(SIZE / 2);
  await failure(() => held.write(SIZE / 2, new Uint8Array(512), 0, 512));
  await held.close();
  await failure(() => held.flush());
  return reasons;
}

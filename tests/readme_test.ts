/** README's example is the one that runs here, letter by letter. */
import { assertEquals } from "@std/assert";
import { BlkDriver } from "@virtio/blk/driver";
import type { GuestMemory } from "@virtio/memory";
import { MmioDriverTransport } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";

interface Example {
  readonly memory: GuestMemory;
  readonly irq: { level: boolean };
  busRead(address: number, size: 1 | 2 | 4): number;
  busWrite(address: number, size: 1 | 2 | 4, value: number): void;
}

const root = new URL("..", import.meta.url).pathname;

/** The module in README, loaded. */
async function loadExample(): Promise<Example> {
  const readme = await Deno.readTextFile(`${root}README.md`);
  const code = /runs this very text -->\s*```ts\n([\s\S]*?)```/.exec(readme)?.[1];
  if (code === undefined) throw new Error("README has no example to run");
  await Deno.mkdir(`${root}.cache`, { recursive: true });
  // Inside of the repository, so that the packages are found by their names.
  const path = await Deno.makeTempFile({ dir: `${root}.cache`, suffix: ".ts" });
  try {
    await Deno.writeTextFile(path, code);
    return await import(`file://${path}`);
  } finally {
    await Deno.remove(path);
  }
}

Deno.test("the disk of README's example is a disk to a driver on that bus", async () => {
  const { memory, irq, busRead, busWrite } = await loadExample();
  const base = 0x1000_1000;
  const transport = MmioDriverTransport.probe({
    read: (offset, size) => busRead(base + offset, size),
    write: (offset, size, value) => {
      busWrite(base + offset, size, value);
      // The processor takes the interrupt after the store.
      if (irq.level) queueMicrotask(() => transport?.handleInterrupt());
    },
  });
  if (transport === null) throw new Error("no device");
  const driver = await BlkDriver.open(transport, { dma: new DmaPool(memory, 0x1000, 0x100000) });
  assertEquals(driver.sectors, 16 * 1024 * 1024 / 512);
  assertEquals(await driver.getId(), "my-disk");
  const data = new Uint8Array(8192).map((_, i) => i * 7);
  await driver.write(100, data);
  await driver.flush();
  const back = new Uint8Array(8192);
  await driver.read(100, back);
  assertEquals(back, data);
  await driver.close();
});

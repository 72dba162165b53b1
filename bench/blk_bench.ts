/**
 * The block device over a disk in memory. Run by `deno bench bench/blk_bench.ts`.
 *
 * - device side: 4 KiB reads from ready descriptors, split and packed, through the serve loop, with every check and the copy.
 *   bench:peers compares the same with C.
 * - whole way: the driver of `@virtio/blk/driver` over an MMIO transport: reads and writes of 512 bytes, 4 KiB and 64 KiB, 16
 *   at a time. Guards the promise and the bookkeeping for each request.
 *
 * Device side: each iteration is 6400 requests; whole way: 160.
 */
import { BlkDevice } from "@virtio/blk";
import { BlkDriver } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { DmaPool } from "@virtio/vring/driver";
import { BlkWorld } from "./blk_world.ts";

for (const format of ["split", "packed"] as const) {
  const world = new BlkWorld(format, 256, 64);
  Deno.bench(`4 KiB reads, device side, ${format}`, {
    group: "device side",
    baseline: format === "split",
  }, () => {
    world.blk(100);
  });
}

const DEPTH = 16;
const memory = GuestMemory.allocate(16 << 20);
const device = new BlkDevice({ backend: new MemoryBackend(64 << 20) });
const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
const disk = await BlkDriver.open(transport, {
  dma: new DmaPool(memory, 0x1000, (16 << 20) - 0x1000),
});
for (const size of [512, 4096, 65536]) {
  const buffers = Array.from({ length: DEPTH }, () => new Uint8Array(size).fill(1));
  const batch = async (work: (sector: number, bytes: Uint8Array) => Promise<unknown>) => {
    for (let n = 0; n < 10; n++) {
      await Promise.all(buffers.map((bytes, i) => work((n * DEPTH + i) * size / 512, bytes)));
    }
  };
  // Only functions that are async themselves are waited for.
  const group = `whole way, ${size} bytes`;
  Deno.bench(`read ${size} bytes, ${DEPTH} at a time`, { group, baseline: true }, async () => {
    await batch((sector, bytes) => disk.read(sector, bytes));
  });
  Deno.bench(`write ${size} bytes, ${DEPTH} at a time`, { group }, async () => {
    await batch((sector, bytes) => disk.write(sector, bytes));
  });
}

/** A stock Linux in v86 whose disk is in a server of ours, and qemu-storage-daemon's over the other transport. */
import { assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { DEFAULT_FEATURES, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { VhostUserServer } from "@virtio/vhost-user";
import { guestFiles } from "../../examples/guest/testing.ts";
import { startStorageDaemon, storageDaemon } from "../vhost_user/storage_daemon.ts";
import { DISK_SIZE, MAGIC_OFFSET, MMIO, PCI, tryDisk } from "./vhost_user_disk.ts";

const ignore = await guestFiles() === null || Deno.build.os !== "linux";
const ignoreDaemon = ignore || !await storageDaemon();

Deno.test({
  name: `Linux in v86 runs programs from a disk of qemu-storage-daemon, over MMIO`,
  ignore: ignoreDaemon,
  fn: async () => {
    await using daemon = await startStorageDaemon(DISK_SIZE);
    await tryDisk(daemon.socket, { ...MMIO, ring: "split" });
    const image = await Deno.readFile(daemon.image);
    assertEquals(new DataView(image.buffer).getUint16(MAGIC_OFFSET, true), 0xef53);
  },
});

for (const seat of [PCI, MMIO]) {
  Deno.test({
    name:
      `Linux in v86 runs programs from a disk of our server, over ${seat.transport}, ${seat.ring} ring`,
    ignore,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      const backend = new MemoryBackend(DISK_SIZE);
      const server = new VhostUserServer({
        socket: `${folder}/socket`,
        device: new BlkDevice({ backend }),
        features: seat.ring === "packed"
          ? DEFAULT_FEATURES
          : DEFAULT_FEATURES & ~VIRTIO_F_RING_PACKED,
      });
      try {
        await tryDisk(`${folder}/socket`, seat);
        const magic = new Uint8Array(2);
        backend.read(MAGIC_OFFSET, magic, 0, 2);
        assertEquals([...magic], [0x53, 0xef]);
      } finally {
        await server.close();
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

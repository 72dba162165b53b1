/** A stock Linux in v86 whose disk is in another process: guest memory is in a file that both map. */
import { assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { DEFAULT_FEATURES, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { FrontEndMemory, RemoteDevice } from "@virtio/vhost-user/driver";
import { VhostUserServer } from "@virtio/vhost-user";
import type { Guest } from "../../examples/guest/guest.ts";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";
import { startStorageDaemon, storageDaemon } from "../vhost_user/storage_daemon.ts";

const MIB = 2 ** 20;
const ignore = await guestFiles() === null || Deno.build.os !== "linux";
const ignoreDaemon = ignore || !await storageDaemon();

const PCI: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "split" };
const MMIO: Seat = { transport: "mmio", bar: "memory", interrupt: "msix", ring: "packed" };

/** Attaches what is behind a socket, and has Linux make a file system on it and run programs from it. */
async function tryDisk(socket: string, seat: Seat): Promise<string> {
  const guest: Guest = await restoreGuest({ machine: { shared: true } });
  const { machine } = guest;
  const [region] = machine.memory.regions;
  const memory = new FrontEndMemory([
    { base: 0, size: region!.size, descriptor: machine.memoryDescriptor! },
  ]);
  const device = await RemoteDevice.connect(socket, { deviceType: 2, memory });
  try {
    const { errors } = attach(machine, seat, device, 0, device.ringFeatures);
    if (seat.transport === "pci") await guest.rescanPci();
    await guest.check("modprobe -a virtio_pci virtio_mmio virtio_blk ext4");
    await guest.check("mke2fs -b 4096 /dev/vda && mount -t ext4 /dev/vda /mnt");
    const hash = await guest.check(
      "dd if=/dev/urandom of=/mnt/data bs=64k count=64 && cp /bin/busybox /mnt/busybox && sync && " +
        "sha256sum /mnt/data | cut -d' ' -f1 | tail -1",
    );
    // What the other process wrote over pages that v86 had compiled code from must be seen as new code.
    for (let round = 0; round < 3; round++) {
      await guest.check("echo 3 > /proc/sys/vm/drop_caches");
      const again = await guest.check("/mnt/busybox sha256sum /mnt/data | cut -d' ' -f1");
      assertEquals(again, hash.split("\n").at(-1));
    }
    await guest.check("umount /mnt");
    // The driver resets the device, and another begins.
    await guest.check("rmmod virtio_blk && modprobe virtio_blk && mount -t ext4 /dev/vda /mnt");
    const last = await guest.check("sha256sum /mnt/data | cut -d' ' -f1 && umount /mnt");
    assertEquals(last, hash.split("\n").at(-1));
    assertEquals(errors, []);
    return last;
  } finally {
    await device.close();
    await guest.destroy();
    memory.close();
  }
}

/** ext2's magic number lies where the file system's does. */
const MAGIC_OFFSET = 1024 + 56;

for (const seat of [PCI, { ...MMIO, ring: "split" } as const]) {
  Deno.test({
    name: `Linux in v86 runs programs from a disk of qemu-storage-daemon, over ${seat.transport}`,
    ignore: ignoreDaemon,
    fn: async () => {
      await using daemon = await startStorageDaemon(32 * MIB);
      await tryDisk(daemon.socket, seat);
      const image = await Deno.readFile(daemon.image);
      assertEquals(new DataView(image.buffer).getUint16(MAGIC_OFFSET, true), 0xef53);
    },
  });
}

for (const seat of [PCI, MMIO]) {
  Deno.test({
    name:
      `Linux in v86 runs programs from a disk of our server, over ${seat.transport}, ${seat.ring} ring`,
    ignore,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      const backend = new MemoryBackend(32 * MIB);
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

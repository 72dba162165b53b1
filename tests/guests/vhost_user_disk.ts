/** A stock Linux in v86 whose disk is in another process: guest memory is in a file that both map. */
import { assertEquals } from "@std/assert";
import { FrontEndMemory, RemoteDevice } from "@virtio/vhost-user/driver";
import type { Guest } from "../../examples/guest/guest.ts";
import { restoreGuest } from "../../examples/guest/testing.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";

/** Seats. */
export const PCI: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "split" };
export const MMIO: Seat = { transport: "mmio", bar: "memory", interrupt: "msix", ring: "packed" };

/** Bytes of the disk, and where ext2 has its magic number, 0xef53. */
export const DISK_SIZE: number = 32 * 2 ** 20;
export const MAGIC_OFFSET: number = 1024 + 56;

/** Attaches what is behind a socket, and has Linux make a file system on it and run programs from it. */
export async function tryDisk(socket: string, seat: Seat): Promise<string> {
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

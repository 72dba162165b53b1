/** A stock Linux whose disk runs in a worker: the guest's memory is shared, and the device's code is the same. */
import { assert, assertEquals } from "@std/assert";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";
import { WorkerDevice } from "@virtio/worker";

const MIB = 2 ** 20;
const ignore = await guestFiles() === null || Deno.build.os !== "linux";
const module = new URL("../../packages/worker/testing/disk_worker.ts?sleep", import.meta.url);

const seats: [string, Seat][] = [
  ["PCI, split ring", { transport: "pci", bar: "memory", interrupt: "msix", ring: "split" }],
  ["MMIO, packed ring", { transport: "mmio", bar: "memory", interrupt: "msix", ring: "packed" }],
];

for (const [name, seat] of seats) {
  Deno.test({
    name: `Linux runs programs from a disk whose device is in a worker, over ${name}`,
    ignore,
    fn: async () => {
      const bytes = new SharedArrayBuffer(32 * MIB);
      const device = new WorkerDevice(module, { data: { bytes } });
      await device.ready;
      const guest = await restoreGuest({ machine: { shared: true } });
      try {
        const { errors } = attach(guest.machine, seat, device);
        if (seat.transport === "pci") await guest.rescanPci();
        await guest.check("modprobe -a virtio_pci virtio_mmio virtio_blk ext4");
        await guest.check("mke2fs -b 4096 /dev/vda && mount -t ext4 /dev/vda /mnt");
        const hash = await guest.check(
          "dd if=/dev/urandom of=/mnt/data bs=64k count=64 && cp /bin/busybox /mnt/busybox && sync && " +
            "sha256sum /mnt/data | cut -d' ' -f1 | tail -1",
        );
        // What the worker wrote over pages that v86 had compiled code from must be seen as new code.
        for (let round = 0; round < 3; round++) {
          await guest.check("echo 3 > /proc/sys/vm/drop_caches");
          const again = await guest.check("/mnt/busybox sha256sum /mnt/data | cut -d' ' -f1");
          assertEquals(again, hash.split("\n").at(-1));
        }
        await guest.check("umount /mnt");
        assertEquals(errors, []);
        // ext2's magic number lies where the file system's does.
        const image = new DataView(bytes);
        assertEquals(image.getUint16(1024 + 56, true), 0xef53);
        assert(device.alive);
      } finally {
        await guest.destroy();
        device.close();
      }
    },
  });
}

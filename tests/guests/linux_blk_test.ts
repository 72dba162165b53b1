/** A stock Linux drives our block device: every way to attach it, both ring formats. */
import { assert, assertEquals } from "@std/assert";
import type { BlkDevice } from "@virtio/blk";
import { FileBackend } from "@virtio/blk/file";
import { attachDisk } from "../../examples/blk/attach.ts";
import { hashFilesInImage } from "../../examples/blk/host_check.ts";
import type { Guest } from "../../examples/guest/guest.ts";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import type { Attached, Seat } from "../../examples/shared/seat.ts";

const MIB = 2 ** 20;
const ignore = await guestFiles() === null;

const seats: [string, Omit<Seat, "ring">][] = [
  ["PCI memory BAR with MSI-X", { transport: "pci", bar: "memory", interrupt: "msix" }],
  ["PCI memory BAR with INTx", { transport: "pci", bar: "memory", interrupt: "intx" }],
  ["PCI I/O BAR", { transport: "pci", bar: "io", interrupt: "msix" }],
  ["MMIO", { transport: "mmio", bar: "memory", interrupt: "msix" }],
];

interface Running extends AsyncDisposable {
  readonly guest: Guest;
  readonly attached: Attached<BlkDevice>;
}

/** A Linux that has found the image as /dev/vda. */
async function start(image: string, seat: Seat): Promise<Running> {
  const backend = FileBackend.open(image);
  const guest = await restoreGuest();
  const attached = attachDisk(guest.machine, seat, { backend, id: "test-disk" });
  if (seat.transport === "pci") await guest.rescanPci();
  await guest.check("modprobe -a virtio_pci virtio_mmio virtio_blk ext4");
  await guest.check(
    "for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && exit 0; sleep 0.2; done; dmesg; exit 1",
  );
  return {
    guest,
    attached,
    async [Symbol.asyncDispose]() {
      await guest.destroy();
      backend.close();
    },
  };
}

async function withImage(size: number, work: (path: string) => Promise<void>): Promise<void> {
  const path = await Deno.makeTempFile({ suffix: ".raw" });
  try {
    await Deno.truncate(path, size);
    await work(path);
  } finally {
    await Deno.remove(path);
  }
}

/** Blocks that the host has given the file. */
async function allocated(path: string): Promise<number> {
  return (await Deno.stat(path)).blocks!;
}

for (const [name, where] of seats) {
  for (const ring of ["split", "packed"] as const) {
    Deno.test({
      name: `Linux makes, fills and keeps a file system over ${name}, ${ring} ring`,
      ignore,
      fn: () =>
        withImage(64 * MIB, async (image) => {
          const seat = { ...where, ring };
          let hash: string;
          {
            await using run = await start(image, seat);
            const { guest, attached: { device, errors } } = run;
            const bits = await guest.check("cat /sys/block/vda/device/features");
            assertEquals(bits[34], ring === "packed" ? "1" : "0");
            assertEquals(await guest.check("cat /sys/block/vda/serial"), "test-disk");
            assertEquals(await guest.check("cat /sys/block/vda/size"), String(64 * MIB / 512));
            await guest.check("mke2fs -b 4096 /dev/vda && mount -t ext4 /dev/vda /mnt");
            await guest.check(
              "mkdir /mnt/d && dd if=/dev/urandom of=/mnt/d/data bs=64k count=48 && " +
                "dd if=/dev/zero of=/mnt/gone bs=64k count=64 && sync",
            );
            hash = (await guest.check("sha256sum /mnt/d/data")).slice(0, 64);
            assert(device.stats.flushes > 0, "sync must flush the device");
            assertEquals(
              await hashFilesInImage(image, ["/d/data"]),
              [hash],
              "what was flushed must be in the image",
            );
            const before = await allocated(image);
            await guest.check("rm /mnt/gone && sync && fstrim /mnt");
            assert(device.stats.discards > 0, "fstrim must discard");
            assert(
              await allocated(image) <= before - 8000,
              "discarded space goes back to the host",
            );
            await guest.check("echo 3 > /proc/sys/vm/drop_caches");
            assertEquals((await guest.check("sha256sum /mnt/d/data")).slice(0, 64), hash);
            await guest.check("echo more > /mnt/d/late && sync");
            assertEquals(errors, []);
            assertEquals(device.stats.errors + device.stats.unsupported, 0);
            // The guest ends here as if its power failed: what was synced must be there all the same.
          }
          {
            await using run = await start(image, seat);
            const { guest } = run;
            await guest.check("mount -t ext4 /dev/vda /mnt");
            assertEquals((await guest.check("sha256sum /mnt/d/data")).slice(0, 64), hash);
            assertEquals(await guest.check("cat /mnt/d/late"), "more");
            await guest.check("umount /mnt");
          }
        }),
    });
  }
}

// INTx and MMIO raise a line inside of a register access, where an emulator may not take the interrupt at once.
for (const [name, where] of seats.filter(([name]) => name !== "PCI I/O BAR")) {
  for (const ring of ["split", "packed"] as const) {
    Deno.test({
      name: `Linux survives 50,000 requests over ${name}, ${ring} ring`,
      ignore,
      fn: () =>
        withImage(256 * MIB, async (image) => {
          await using run = await start(image, { ...where, ring });
          const { guest, attached: { device, errors } } = run;
          await guest.check(
            "dd if=/dev/vda of=/dev/null bs=4k iflag=direct count=40000 && " +
              "dd if=/dev/zero of=/dev/vda bs=4k oflag=direct count=10000 && echo alive",
            { timeout: 300_000 },
          );
          assert(device.stats.requests >= 50_000, `${device.stats.requests} requests`);
          assertEquals(device.stats.errors, 0);
          assertEquals(errors, []);
        }),
    });
  }
}

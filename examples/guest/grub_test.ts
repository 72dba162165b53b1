import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { PciTransport } from "@virtio/transport/pci";
import { buildGrubDisk } from "./grub.ts";
import { COMMAND_LINE, Guest } from "./guest.ts";
import { buildInitrd } from "./initrd.ts";
import { firmwareFiles, guestFiles } from "./testing.ts";

const files = await guestFiles();
const firmware = await firmwareFiles();
const ignore = files === null || firmware === null;

for (const transport of ["pci", "mmio"] as const) {
  Deno.test({
    name: `SeaBIOS boots GRUB from our disk over ${transport}, and GRUB boots Linux`,
    ignore,
    fn: async () => {
      const image = buildGrubDisk({
        grub: firmware!.grub,
        kernel: files!.bzImage,
        initrd: buildInitrd(files!),
        commandLine: COMMAND_LINE,
      });
      const disk = new BlkDevice({ backend: new MemoryBackend(image) });
      let bios = "";
      const guest = await Guest.bootFirmware({
        machine: {
          firmware: { bios: firmware!.bios, vgaBios: firmware!.vgaBios },
          onDebug: (byte) => bios += String.fromCharCode(byte),
        },
        attach: (machine) => {
          const { memory } = machine;
          if (transport === "mmio") {
            machine.addMmio(0, (host) => new MmioTransport(disk, { memory, host }));
          } else {
            machine.addPci(3, (host) => new PciTransport(disk, { memory, host }));
          }
        },
      });
      assertStringIncludes(
        bios,
        transport === "mmio" ? "virtio-mmio: fef00000: device id 2" : "found virtio-blk",
      );
      assertStringIncludes(bios, "Booting from Hard Disk");
      // All of kernel and RAM disk came through the device, before Linux had a driver for it.
      const loaded = disk.stats.bytesRead;
      assert(loaded > files!.bzImage.length, `${loaded} bytes`);
      await guest.check(
        "modprobe virtio_pci; modprobe virtio_mmio; modprobe virtio_blk; modprobe vfat",
      );
      await guest.check("modprobe nls_cp437; modprobe nls_ascii; mount -t vfat /dev/vda1 /mnt");
      const sums = await guest.check("cd /mnt; ls -1; sha256sum < VMLINUZ");
      const digest = await crypto.subtle.digest(
        "SHA-256",
        files!.bzImage as Uint8Array<ArrayBuffer>,
      );
      const hash = [...new Uint8Array(digest)].map((byte) => byte.toString(16).padStart(2, "0"))
        .join("");
      assertEquals(sums.split("\n"), ["GRUB.CFG", "INITRD.IMG", "VMLINUZ", `${hash}  -`]);
      await guest.shutdown();
    },
  });
}

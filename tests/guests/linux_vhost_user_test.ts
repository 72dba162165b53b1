/** A stock Linux in v86 whose disk is qemu-storage-daemon's. */
import { assertEquals } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import { startStorageDaemon, storageDaemon } from "../vhost_user/storage_daemon.ts";
import { DISK_SIZE, MAGIC_OFFSET, PCI, tryDisk } from "./vhost_user_disk.ts";

const ignore = await guestFiles() === null || !await storageDaemon();

Deno.test({
  name: "Linux in v86 runs programs from a disk of qemu-storage-daemon, over PCI",
  ignore,
  fn: async () => {
    await using daemon = await startStorageDaemon(DISK_SIZE);
    await tryDisk(daemon.socket, PCI);
    const image = await Deno.readFile(daemon.image);
    assertEquals(new DataView(image.buffer).getUint16(MAGIC_OFFSET, true), 0xef53);
  },
});

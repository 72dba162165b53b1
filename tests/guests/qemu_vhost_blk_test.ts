/**
 * A stock Linux in QEMU (TCG) drives our disk by vhost-user, with several queues. Where there is no QEMU this is ignored, but not
 * in CI. What takes longer is in `qemu_vhost_blk_long_test.ts`.
 */
import { assert, assertEquals } from "@std/assert";
import { bootQemu, qemuBlk } from "../../examples/guest/qemu.ts";
import { ServedDevices } from "./vhost_user_serve.ts";
import { appears, checkImage, qemuWorld, writeFiles } from "./vhost_user_work.ts";

const world = await qemuWorld();

Deno.test({
  name: "Linux in QEMU on our disk with four packed queues: files, and the host finds them",
  ignore: world === null,
  async fn() {
    await using served = await ServedDevices.make();
    const { device, image } = served.disk("disk", 64, { queues: 4 });
    const socket = served.serve("disk", device);
    await using machine = await bootQemu({
      files: world!.files,
      folder: await served.guestFolder(),
      initrd: { files: world!.programs },
      processors: 4,
      devices: qemuBlk(socket, { queues: 4, packed: true }),
    });
    const { guest } = machine;
    await appears(guest, "virtio_pci virtio_blk", "/dev/vda");
    assertEquals(
      await guest.check("ls /sys/block/vda/mq | wc -l; cat /sys/block/vda/serial"),
      "4\ndisk",
    );
    const { status } = served.last;
    assert((status.features & 1n << 34n) !== 0n, "packed rings must have been taken");
    assertEquals(status.rings.map(({ live }) => live), [true, true, true, true]);
    // Each processor has a queue of its own.
    await guest.check(
      "echo 3 >/proc/sys/vm/drop_caches; for i in 0 1 2 3; do taskset -c $i " +
        "dd if=/dev/vda of=/dev/null bs=64k count=16 skip=$((64 * i)) 2>/dev/null || exit 1; done",
    );
    assert(device.queueCounters.every(({ chains }) => chains > 0), "all queues are used");
    const written = await writeFiles(guest, "/dev/vda");
    await guest.shutdown();
    await served.end();
    await checkImage(image, written);
    assertEquals([served.errors, device.stats.errors], [[], 0]);
  },
});

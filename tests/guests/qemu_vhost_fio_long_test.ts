/**
 * fio's verification on four queues of our disk, in QEMU with four processors: in this process, and in workers that die one after
 * the other.
 */
import { assert, assertEquals } from "@std/assert";
import { LinuxBackend } from "@virtio/blk/linux";
import { VhostUserWorkers } from "@virtio/vhost-user";
import { bootQemu, qemuBlk } from "../../examples/guest/qemu.ts";
import type { DyingDisk } from "./dying_disk_worker.ts";
import { ServedDevices } from "./vhost_user_serve.ts";
import {
  appears,
  checkImage,
  fioFiles,
  fioVerify,
  qemuWorld,
  writeFiles,
} from "./vhost_user_work.ts";

const world = await qemuWorld();
const fio = world === null ? null : await fioFiles();
const ignore = fio === null;
const QUEUES = 4;

/** A guest with four processors works on the disk: files, and then fio with a job for each. */
async function work(
  served: ServedDevices,
  socket: string,
  packed: boolean,
  megabytes: number,
): Promise<{ readonly sums: string }> {
  await using machine = await bootQemu({
    files: world!.files,
    folder: await served.guestFolder(),
    initrd: { files: [...world!.programs, ...fio!] },
    megabytes: 512,
    processors: QUEUES,
    devices: qemuBlk(socket, { queues: QUEUES, packed }),
  });
  const { guest } = machine;
  await appears(guest, "virtio_pci virtio_blk", "/dev/vda");
  assertEquals(await guest.check("ls /sys/block/vda/mq | wc -l"), `${QUEUES}`);
  const written = await writeFiles(guest, "/dev/vda", "64M");
  await guest.check("umount /mnt");
  await fioVerify(guest, "/dev/vda", {
    megabytes,
    jobs: QUEUES,
    // A job for each processor, and so for each queue.
    extra: "--offset=80m --cpus_allowed=0-3 --cpus_allowed_policy=split",
  });
  assertEquals(await guest.check("dmesg | grep -c 'I/O error' || true"), "0");
  await guest.shutdown();
  return written;
}

for (const packed of [false, true]) {
  const rings = packed ? "packed" : "split";
  Deno.test({
    name: `fio verifies four queues at once in QEMU, ${rings} rings`,
    ignore,
    async fn() {
      await using served = await ServedDevices.make();
      const { device, image } = served.disk("disk", 160, { queues: QUEUES });
      const socket = served.serve("disk", device, { packed });
      const written = await work(served, socket, packed, 16);
      const chains = device.queueCounters.map(({ chains }) => chains);
      // 4,096 blocks are written by each job, and read back.
      assert(chains.every((count) => count > 2000), `chains: ${chains.join()}`);
      await served.end();
      await checkImage(image, written);
      assertEquals([served.errors, device.stats.errors], [[], 0]);
    },
  });

  Deno.test({
    name: `fio verifies four queues in QEMU whose workers die again and again, ${rings} rings`,
    ignore,
    async fn() {
      await using served = await ServedDevices.make();
      const image = `${served.folder}/disk.raw`;
      const lock = LinuxBackend.open(image, { create: true, size: 160 * 2 ** 20 });
      const data: DyingDisk = { path: image, queues: QUEUES, life: 1500 };
      const device = await VhostUserWorkers.open({
        worker: () => new Worker(import.meta.resolve("./dying_disk_worker.ts"), { type: "module" }),
        data,
        workers: 2,
        restarts: 10_000,
      });
      try {
        const written = await work(served, served.serve("disk", device, { packed }), packed, 16);
        const deaths = served.errors.map(({ message }) => message);
        assert(deaths.length >= 5, `only ${deaths.length} workers died`);
        for (const death of deaths) {
          assert(death.includes("Its life was over. Another takes over"), death);
        }
        await served.end();
        await checkImage(image, written);
      } finally {
        await served.end();
        await lock.close();
      }
    },
  });
}

/**
 * What may happen to a machine in QEMU while it works on our disk by vhost-user: resets, being stopped, another disk in place of
 * it, and a move to another QEMU.
 */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { bootQemu, qemuBlk, startQemu } from "../../examples/guest/qemu.ts";
import { ServedDevices } from "./vhost_user_serve.ts";
import {
  appears,
  checkFiles,
  checkImage,
  fioFiles,
  fioVerify,
  qemuWorld,
  writeFiles,
} from "./vhost_user_work.ts";

const world = await qemuWorld();
const fio = world === null ? null : await fioFiles();
const ignore = fio === null;
const MIB = 2 ** 20;
const MODULES = "virtio_pci virtio_blk";

const pause = (milliseconds: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until something is so. */
async function until(what: string, check: () => boolean, timeout = 60_000): Promise<void> {
  const end = performance.now() + timeout;
  while (!check()) {
    assert(performance.now() < end, `waited in vain: ${what}`);
    await pause(20);
  }
}

for (const packed of [false, true]) {
  Deno.test({
    name: `a machine in QEMU is reset, rebooted, stopped and continued, ${
      packed ? "packed" : "split"
    } rings: nothing is lost`,
    ignore,
    async fn() {
      await using served = await ServedDevices.make();
      const { device, image } = served.disk("disk", 128, { queues: 2 });
      const socket = served.serve("disk", device);
      await using machine = await bootQemu({
        files: world!.files,
        folder: await served.guestFolder(),
        initrd: { files: [...world!.programs, ...fio!] },
        megabytes: 512,
        processors: 2,
        devices: qemuBlk(socket, { queues: 2, packed }),
      });
      const { guest, qmp } = machine;
      await appears(guest, MODULES, "/dev/vda");
      const written = await writeFiles(guest, "/dev/vda", "64M");

      // In the middle of requests.
      await guest.check(
        "echo 3 >/proc/sys/vm/drop_caches; dd if=/dev/vda of=/dev/null bs=64k >/dev/null 2>&1 &",
      );
      await guest.check("true");
      let before = device.stats.requests;
      await until("requests", () => device.stats.requests > before);
      await qmp.execute("system_reset");
      await guest.ready();
      await appears(guest, MODULES, "/dev/vda");
      await checkFiles(guest, "/dev/vda", written);
      await guest.check("umount /mnt");

      await guest.check("(sleep 0.2; reboot -f) >/dev/null 2>&1 &");
      await guest.ready();
      await appears(guest, MODULES, "/dev/vda");
      await checkFiles(guest, "/dev/vda", written);
      await guest.check("umount /mnt");

      const work = fioVerify(guest, "/dev/vda", { megabytes: 32, extra: "--offset=80m" });
      for (let i = 0; i < 5; i++) {
        before = device.stats.requests;
        await until("requests", () => device.stats.requests > before + 20);
        await qmp.execute("stop");
        await pause(100);
        before = device.stats.requests;
        await pause(200);
        assertEquals(device.stats.requests, before, "nothing may happen while it is stopped");
        await qmp.execute("cont");
      }
      await work;
      await guest.shutdown();
      await served.end();
      assertEquals([served.errors, device.stats.errors], [[], 0]);
      await checkImage(image, written);
    },
  });
}

Deno.test({
  name: "our disk is unplugged from a machine in QEMU and plugged in again",
  ignore,
  async fn() {
    await using served = await ServedDevices.make();
    const { device, image } = served.disk("disk", 64);
    const socket = served.serve("disk", device);
    const words = qemuBlk(socket);
    words[words.length - 1] += ",bus=slot1";
    await using machine = await bootQemu({
      files: world!.files,
      folder: await served.guestFolder(),
      initrd: { files: world!.programs },
      devices: ["-device", "pcie-root-port,id=slot1,slot=1", ...words],
    });
    const { guest, qmp } = machine;
    await appears(guest, MODULES, "/dev/vda");
    const written = await writeFiles(guest, "/dev/vda");
    await guest.check("umount /mnt");
    for (let round = 0; round < 3; round++) {
      const since = qmp.events.length;
      await qmp.execute("device_del", { id: `blk${round}` });
      await qmp.event(
        ({ event, data }) => event === "DEVICE_DELETED" && data.device === `blk${round}`,
        since,
      );
      await qmp.execute("chardev-remove", { id: round === 0 ? "blk0c" : `char${round - 1}` });
      await until("the front end is gone", () => served.last.status.state === "waiting");
      assertEquals((await guest.run("ls /dev/vda")).status, 1);
      await qmp.execute("chardev-add", {
        id: `char${round}`,
        backend: {
          type: "socket",
          data: { addr: { type: "unix", data: { path: socket } }, server: false },
        },
      });
      await qmp.execute("device_add", {
        driver: "vhost-user-blk-pci",
        id: `blk${round + 1}`,
        chardev: `char${round}`,
        bus: "slot1",
      });
      await appears(guest, MODULES, "/dev/vda");
      await checkFiles(guest, "/dev/vda", written);
      await guest.check("umount /mnt");
    }
    await guest.shutdown();
    await served.end();
    await checkImage(image, written);
    assertEquals([served.errors, device.stats.errors], [[], 0]);
  },
});

for (const packed of [false, true]) {
  Deno.test({
    name: `a machine moves from one QEMU to another while our disk fills its memory, ${
      packed ? "packed" : "split"
    } rings`,
    ignore,
    async fn() {
      await using served = await ServedDevices.make();
      const first = served.disk("disk", 128);
      // The other machine's disk is the same image; only one of the two works on it at a time.
      const second = LinuxBackend.open(first.image, { lock: false });
      const sockets = [
        served.serve("one", first.device, { packed }),
        served.serve("two", new BlkDevice({ backend: second, id: "disk" }), { packed }),
      ];
      const incoming = `unix:${served.folder}/move`;
      const options = {
        files: world!.files,
        initrd: { files: [...world!.programs, ...fio!] },
        megabytes: 384,
      };
      try {
        await using source = await bootQemu({
          ...options,
          folder: await served.guestFolder(),
          devices: qemuBlk(sockets[0]!, { packed }),
        });
        await appears(source.guest, MODULES, "/dev/vda");
        // Sums of what is on the disk, and readers that have the device write it into memory all the time.
        await source.guest.check(
          "mkdir -p /keep; dd if=/dev/urandom of=/dev/vda bs=1M count=96 2>/dev/null; sync; " +
            "for i in 0 1 2 3; do dd if=/dev/vda bs=1M count=16 skip=$((16 * i)) 2>/dev/null | md5sum; " +
            "done >/keep/sums; echo 3 >/proc/sys/vm/drop_caches",
        );
        await source.guest.check(`cat >/keep/work <<'END'
cd /keep
while [ ! -e stop ]; do
  # The first time the device writes it into memory; the second time it must still be there, wherever the machine is.
  echo 3 >/proc/sys/vm/drop_caches
  for pass in 1 2; do
    for i in 0 1 2 3; do
      dd if=/dev/vda bs=1M count=16 skip=$((16 * i)) 2>/dev/null | md5sum
    done >now$pass
  done
  cmp -s now1 sums && cmp -s now2 sums || { echo different >failed; break; }
  echo >>rounds
done
echo >done
END
touch /keep/rounds
sh /keep/work >/dev/null 2>&1 &`);
        const passed = (rounds: number): string =>
          `for i in $(seq 900); do [ $(wc -l </keep/rounds) -gt ${rounds} ] && break; ` +
          "[ -e /keep/failed ] && break; usleep 100000; done";
        await source.guest.check(passed(0));
        assertEquals(
          (await source.guest.run("cat /keep/failed")).status,
          1,
          "right before the move",
        );
        await using target = await startQemu({
          ...options,
          folder: await served.guestFolder(),
          devices: [...qemuBlk(sockets[1]!, { packed }), "-incoming", incoming],
        });
        await source.qmp.execute("migrate-set-parameters", { "max-bandwidth": 400 * MIB });
        const since = target.qmp.events.length;
        await source.qmp.execute("migrate", { uri: incoming });
        await target.qmp.event(({ event }) => event === "RESUME", since, 60_000).catch(
          async (error) => {
            throw new Error(
              `${error.message}: ${JSON.stringify(await source.qmp.execute("query-migrate"))}`,
            );
          },
        );
        const info = await source.qmp.execute<{ status: string }>("query-migrate");
        assertEquals(info.status, "completed");
        const { guest } = target;
        const rounds = Number(await guest.check("wc -l </keep/rounds"));
        await guest.check(
          `${passed(rounds + 1)}; touch /keep/stop; ` +
            "for i in $(seq 600); do [ -e /keep/done ] && break; usleep 100000; done",
          { timeout: 180_000 },
        );
        const failed = await guest.run(
          "cat /keep/failed /keep/now1 /keep/now2 /keep/sums; wc -l /keep/rounds",
        );
        assertEquals(failed.status, 0, failed.output);
        assert(Number(await guest.check("wc -l </keep/rounds")) > rounds, "it must go on");
        await fioVerify(guest, "/dev/vda", { megabytes: 8 });
        const kernel = await guest.check("dmesg | grep -ic 'error' || true");
        assertEquals(kernel.trim(), "0");
        assertEquals(served.errors, []);
      } finally {
        await served.end();
        await second.close();
      }
    },
  });
}

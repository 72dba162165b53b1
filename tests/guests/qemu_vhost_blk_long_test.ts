/**
 * What may happen to a machine in QEMU while it works on our disk by vhost-user: resets, being stopped, another disk in place of
 * it, a move to another QEMU, and a server that is killed.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import type { ProcessGuest } from "../../examples/guest/process_guest.ts";
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
const FIO = "/usr/bin/fio";

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

/** A server as its user starts it. */
class Server {
  readonly #args: readonly string[];
  #process: Deno.ChildProcess | null = null;

  constructor(args: readonly string[]) {
    this.#args = args;
  }

  start(): void {
    this.#process = dependentCommand(Deno.execPath(), {
      args: [
        ...["run", "-A", "--quiet", "--no-check"],
        new URL("../../examples/serve_blk.ts", import.meta.url).pathname,
        ...this.#args,
      ],
      stdin: "null",
      stdout: "null",
      stderr: "inherit",
    }).spawn();
  }

  async end(signal: Deno.Signal): Promise<number> {
    const process = this.#process!;
    try {
      process.kill(signal);
    } catch (error) {
      if (!(error instanceof TypeError)) throw error;
    }
    return (await process.status).code;
  }
}

/** fio in the background, again and again, until `/tmp/stop` is there. */
async function startFio(guest: ProcessGuest): Promise<void> {
  await guest.check(`cat >/tmp/work <<'END'
while [ ! -e /tmp/stop ]; do
  ${FIO} --name=verify --filename=/dev/vda --rw=randwrite --bs=4k --size=8m --offset=80m --direct=1 \\
    --ioengine=libaio --iodepth=16 --verify=crc32c --verify_fatal=1 >/tmp/said 2>&1 || {
    cp /tmp/said /tmp/failed
    break
  }
  echo >>/tmp/rounds
done
echo >/tmp/done
END
touch /tmp/rounds
sh /tmp/work >/dev/null 2>&1 &`);
}

for (const packed of [false, true]) {
  Deno.test({
    name: `the server is killed 20 times under verification, ${
      packed ? "packed" : "split"
    } rings: no error in the guest, nothing lost`,
    ignore,
    async fn() {
      await using served = await ServedDevices.make();
      const image = `${served.folder}/disk.raw`;
      const socket = `${served.folder}/disk.sock`;
      const server = new Server([
        ...["--socket", socket, "--image", image, ...(packed ? ["--packed"] : [])],
      ]);
      await Deno.writeFile(image, new Uint8Array(0));
      await Deno.truncate(image, 96 * MIB);
      server.start();
      const exists = (): boolean => {
        try {
          return Deno.lstatSync(socket).isSocket === true;
        } catch {
          return false;
        }
      };
      try {
        await until("the socket", exists);
        await using machine = await bootQemu({
          files: world!.files,
          folder: await served.guestFolder(),
          initrd: { files: [...world!.programs, ...fio!] },
          megabytes: 512,
          devices: qemuBlk(socket, { packed, reconnect: true }),
        });
        const { guest } = machine;
        await appears(guest, MODULES, "/dev/vda");
        // Behind the file system is room for fio.
        const written = await writeFiles(guest, "/dev/vda", "64M");
        await guest.check("umount /mnt");
        await startFio(guest);
        for (let kill = 0; kill < 20; kill++) {
          await pause(300 + 70 * kill);
          await server.end("SIGKILL");
          server.start();
          await until("the socket", exists);
          // A connection again, or the next kill would find nothing in flight.
          await pause(1_200);
        }
        await guest.check(
          "touch /tmp/stop; for i in $(seq 1200); do [ -e /tmp/done ] && exit 0; usleep 100000; done; exit 1",
          { timeout: 180_000 },
        );
        const failed = await guest.run("cat /tmp/failed");
        assertEquals(failed.status, 1, failed.output);
        assertMatch(await guest.check("wc -l </tmp/rounds"), /^[1-9]/);
        assertEquals(await guest.check("dmesg | grep -c 'I/O error' || true"), "0");
        await checkFiles(guest, "/dev/vda", written);
        await guest.shutdown();
        assertEquals(await server.end("SIGTERM"), 0);
        assertEquals(exists(), false, "the socket goes with the server");
        await checkImage(image, written);
      } finally {
        await server.end("SIGKILL");
      }
    },
  });
}

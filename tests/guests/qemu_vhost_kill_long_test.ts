/**
 * serve:blk is killed again and again while a machine in QEMU writes and verifies: what it had taken and not done is found by the
 * next one, and done once.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import type { ProcessGuest } from "../../examples/guest/process_guest.ts";
import { bootQemu, qemuBlk } from "../../examples/guest/qemu.ts";
import { ServedDevices } from "./vhost_user_serve.ts";
import {
  appears,
  checkFiles,
  checkImage,
  fioFiles,
  qemuWorld,
  writeFiles,
} from "./vhost_user_work.ts";

const world = await qemuWorld();
const fio = world === null ? null : await fioFiles();
const ignore = fio === null;
const MIB = 2 ** 20;
const MODULES = "virtio_pci virtio_blk";
const FIO = "/usr/bin/fio";
const KILLS = 20;

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

/** The notes of requests in flight, as QEMU keeps them: the file of its process. */
function notesOf(pid: number): string {
  for (const { name } of Deno.readDirSync(`/proc/${pid}/fd`)) {
    const path = `/proc/${pid}/fd/${name}`;
    try {
      if (Deno.readLinkSync(path).startsWith("/memfd:virtio-inflight")) return path;
    } catch {
      // It was closed meanwhile.
    }
  }
  throw new Error("QEMU has no notes of requests in flight");
}

/** How many requests of the first queue are noted as in flight. */
function inFlight(pid: number, packed: boolean): number {
  const bytes = Deno.readFileSync(notesOf(pid));
  const entries = new DataView(bytes.buffer).getUint16(10, true);
  const [first, size] = packed ? [32, 32] : [16, 16];
  let count = 0;
  for (let entry = 0; entry < entries; entry++) count += bytes[first + size * entry]!;
  return count;
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
    name: `the server is killed with requests in flight 20 times under verification, ${
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
        const found: number[] = [];
        for (let kill = 0; found.length < KILLS; kill++) {
          assert(kill < 4 * KILLS, `requests were in flight at ${found.length} of ${kill} kills`);
          await pause(100 + 20 * kill);
          await until("requests in flight", () => inFlight(guest.pid, packed) > 0);
          await server.end("SIGKILL");
          // Nobody writes there any more. Those of the last batch may be noted though they were done.
          const count = inFlight(guest.pid, packed);
          if (count > 0) found.push(count);
          server.start();
          await until("the socket", exists);
          // Until QEMU is back the notes tell of the server before.
          await pause(1_200);
        }
        assert(Math.max(...found) > 1, `in flight at the kills: ${found.join()}`);
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

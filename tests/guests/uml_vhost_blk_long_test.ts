/**
 * serve:blk with every engine and in every place, under fio's verification in User Mode Linux. Where there is no such Linux this is
 * ignored, but not in CI.
 */
import { assert, assertEquals } from "@std/assert";
import { DeviceId } from "@virtio/device";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { bootUml } from "../../examples/guest/uml.ts";
import {
  appears,
  checkImage,
  fioFiles,
  fioVerify,
  umlWorld,
  writeFiles,
} from "./vhost_user_work.ts";

const world = await umlWorld();
const fio = world === null ? null : await fioFiles();
const SERVER = new URL("../../examples/serve_blk.ts", import.meta.url).pathname;

for (
  const args of [
    ["--engine", "sync"],
    ["--engine", "io_uring"],
    ["--engine", "sync", "--direct"],
    ["--engine", "io_uring", "--direct", "--in", "worker"],
    ["--queues", "4", "--in", "worker-per-queue", "--packed"],
  ]
) {
  Deno.test({
    name: `fio verifies what serve:blk ${args.join(" ")} keeps for User Mode Linux`,
    ignore: fio === null,
    async fn() {
      // Not in memory: direct access needs a file system that has it.
      const folder = await Deno.makeTempDir({ prefix: "vu-" });
      const image = `${folder}/disk.raw`;
      const socket = `${folder}/disk.sock`;
      const server = dependentCommand(Deno.execPath(), {
        args: [
          ...["run", "-A", "--quiet", SERVER, "--socket", socket, "--image", image],
          ...["--create", "128M", "--json", ...args],
        ],
        stdin: "null",
        stdout: "piped",
        stderr: "inherit",
      }).spawn();
      const output = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
      try {
        assert((await output.read()).value!.includes('"listening"'));
        const lines = (async () => {
          let text = "";
          for (let read; !(read = await output.read()).done;) text += read.value;
          return text.trimEnd().split("\n").map((line) => JSON.parse(line));
        })();
        await Deno.mkdir(`${folder}/guest`);
        await using guest = await bootUml({
          files: world!.files,
          folder: `${folder}/guest`,
          initrd: { files: [...world!.programs, ...fio!] },
          megabytes: 384,
          devices: [{ socket, id: DeviceId.block }],
        });
        await appears(guest, "virtio_blk", "/dev/vda");
        const written = await writeFiles(guest, "/dev/vda", "64M");
        await guest.check("umount /mnt");
        await fioVerify(guest, "/dev/vda", {
          megabytes: 24,
          depth: 32,
          extra: "--offset=80m --iodepth_batch_submit=16 --iodepth_batch_complete_min=8",
        });
        assertEquals(await guest.check("dmesg | grep -c 'I/O error' || true"), "0");
        await guest.shutdown();
        server.kill("SIGTERM");
        assertEquals((await server.status).code, 0);
        const last = (await lines).at(-1);
        assertEquals([last.ok, last.totals[0].more.errors], [true, 0]);
        assert(last.totals[0].bytesWritten > 60 * 2 ** 20);
        await checkImage(image, written);
      } finally {
        try {
          server.kill("SIGKILL");
        } catch {
          // It has ended, as it should.
        }
        await server.status;
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

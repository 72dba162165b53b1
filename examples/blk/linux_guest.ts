/** The example's run with a stock Linux in v86. */
import { BlkStats } from "@virtio/blk";
import type { Device } from "@virtio/device";
import { V86Machine } from "@virtio/v86";
import { COMMAND_LINE, Guest } from "../guest/guest.ts";
import { terminalInput } from "../guest/terminal.ts";
import { type BootFiles, bootFiles, readUserFile } from "../shared/boot_files.ts";
import { Checks, type Outcome, type Progress, RunError } from "../shared/run.ts";
import { serveInspector } from "../shared/inspect/serve.ts";
import { attach as attachTo, type Attached, seatName } from "../shared/seat.ts";
import { openDisk } from "./disk.ts";
import { type Figures, readFigures } from "./figures.ts";
import { hashFilesInImage } from "./host_check.ts";
import type { Image } from "./image.ts";
import type { Options } from "./options.ts";
import { attachRemote } from "./remote.ts";

const MIB = 2 ** 20;
const MODULES = "virtio_pci virtio_mmio virtio_blk ext4";

/** What to boot, ours or the user's. @throws {FetchError} Where there is nothing to be had. */
async function filesOf({ kernel, initrd }: Options, progress: Progress): Promise<BootFiles> {
  if (kernel === null || initrd === null) return await bootFiles(progress, kernel);
  return { kernel: await readUserFile(kernel), initrd: await readUserFile(initrd) };
}

/**
 * Boots Linux on the image and has it work there.
 *
 * @param judge Told how the work went, before the user gets the shell.
 * @returns What `judge` says; true for a system of the user's own, which only the user can judge.
 */
export async function runLinux(
  options: Options,
  image: Image,
  progress: Progress,
  judge: (outcome: Outcome<Figures>) => boolean,
): Promise<boolean> {
  const { kernel, initrd } = await filesOf(options, progress);
  const { vhostUser } = options;
  using disk = vhostUser === null ? await openDisk(options, image) : null;
  // Workers, and other programs, see the guest's memory only if it is shared.
  const shared = options.in !== "process" || vhostUser !== null;
  let attached: Attached<Device> | null = null;
  const attach = (machine: V86Machine): void => {
    if (disk !== null) attached = attachTo(machine, options, disk.device);
  };
  if (options.initrd !== null) {
    await runOwnSystem(kernel, initrd, attach, shared);
    return true;
  }
  progress.step(`booting Linux in v86, disk on ${seatName(options)}`);
  await using inspection = new AsyncDisposableStack();
  const start = performance.now();
  const guest = await Guest.boot({ kernel, initrd, attach, machine: { shared } });
  const bootMs = performance.now() - start;
  progress.step(`Linux takes commands after ${(bootMs / 1000).toFixed(1)} s`);
  if (vhostUser !== null) {
    progress.step(`it finds the disk of ${vhostUser}`);
    attached = inspection.use(await attachRemote(guest, options, vhostUser));
  }
  const { errors } = attached!;
  if (options.inspect && disk !== null && disk.local !== null) {
    const device = disk.local;
    const { memory } = guest.machine;
    const queueNames = device.queueSizes.map((_, i) => `requests ${i}`);
    const server = await serveInspector([{ name: "Disk", device, memory, queueNames }]);
    inspection.use(server);
    progress.step(`its rings are at ${server.address}`);
  }
  const checks = new Checks();
  try {
    await work(guest, options, image, checks, progress);
    const workMs = performance.now() - start - bootMs;
    checks.addErrors(errors);
    const counted = disk?.counted() ?? { stats: new BlkStats(), queueCounters: [] };
    const figures = readFigures(counted, guest.machine.exits.total);
    const ok = judge({ guest: "linux", checks: checks.list, figures, bootMs, workMs });
    if (options.shell) await lendShell(guest, progress);
    return ok;
  } finally {
    await guest.destroy();
  }
}

async function work(
  guest: Guest,
  options: Options,
  image: Image,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  await guest.check(`modprobe -a ${MODULES}`);
  // The driver probes in the background of its module.
  const found = await guest.run(
    "for i in 1 2 3 4 5 6 7 8 9 10; do [ -b /dev/vda ] && exit 0; sleep 0.2; done; exit 1",
  );
  if (found.status !== 0) {
    const log = await guest.run("dmesg | grep -i -e virtio -e vda | tail -n 5");
    throw new RunError(`Linux found no disk. It says: ${log.output}`);
  }
  const driver = await guest.check("basename $(readlink -f /sys/block/vda/device/driver)");
  const sectors = Number(await guest.check("cat /sys/block/vda/size"));
  const bits = await guest.check("cat /sys/block/vda/device/features");
  checks.add(`Linux drives /dev/vda with its own ${driver}`, driver === "virtio_blk");
  checks.add(
    `it sees ${sectors} sectors, as the image has`,
    sectors * 512 === image.backend.capacity,
  );
  checks.add(
    `it took ${options.ring} rings`,
    (bits[34] === "1") === (options.ring === "packed"),
  );
  if (options.readonly) await workReadonly(guest, image, checks, progress);
  else await workWritable(guest, options, image, checks, progress);
}

async function workWritable(
  guest: Guest,
  options: Options,
  image: Image,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  if (image.scratch || options.format) {
    progress.step("the guest makes a file system");
    const made = await guest.run("blkdiscard /dev/vda 2>/dev/null; mke2fs -b 4096 /dev/vda");
    if (made.status !== 0) throw new RunError(`mke2fs failed in the guest: ${made.output}`);
  }
  const mounted = await guest.run("mount -t ext4 /dev/vda /mnt");
  if (mounted.status !== 0) {
    throw new RunError(
      `${image.path} holds no file system that the guest can mount (ext2, ext3, ext4): give --format to make one`,
    );
  }
  const folder = `virtio-example-${crypto.randomUUID().slice(0, 8)}`;
  const size = options.megabytes;
  const room = Number(await guest.check("df -m /mnt | tail -n 1 | awk '{print $4}'"));
  if (room < size + 1) {
    throw new RunError(
      `${image.path} has ${room} MiB free, too few for --megabytes ${size}`,
    );
  }
  progress.step(`it writes ${size} MiB, syncs, drops its caches and reads them back`);
  const text = `A file that Linux wrote on a disk made of TypeScript, ${folder}.`;
  const before = (await guest.check(
    `mkdir /mnt/${folder} && cd /mnt/${folder} && echo '${text}' > note && ` +
      `dd if=/dev/urandom of=data bs=64k count=${size * 16} 2>/dev/null && ` +
      "sha256sum note data && sync",
    { timeout: 60_000 + size * 10_000 },
  )).split("\n");
  await guest.check("echo 3 > /proc/sys/vm/drop_caches");
  const after = (await guest.check(
    `cd /mnt/${folder} && sha256sum note data`,
    { timeout: 60_000 + size * 10_000 },
  )).split("\n");
  checks.add(
    `${size} MiB read back are what was written`,
    after.length === 2 && before.join() === after.join(),
  );
  await guest.check("fstrim /mnt 2>/dev/null; umount /mnt");
  progress.step("the host opens the image itself");
  await compareWithImage(
    image,
    checks,
    before.map((line) => ({
      hash: line.split(/\s+/)[0]!,
      path: `/${folder}/${line.split(/\s+/)[1]}`,
    })),
  );
  // The user's own disk is left as it was, but for what the file system notes of being used.
  if (!image.scratch) {
    await guest.check(`mount -t ext4 /dev/vda /mnt && rm -r /mnt/${folder} && umount /mnt`);
  }
}

async function workReadonly(
  guest: Guest,
  image: Image,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  const flag = await guest.check("cat /sys/block/vda/ro");
  checks.add("Linux sees that it may not write", flag === "1");
  const mounted = await guest.run("mount -t ext4 -o ro,noload /dev/vda /mnt");
  if (mounted.status !== 0) {
    throw new RunError(
      `${image.path} holds no file system that the guest can mount (ext2, ext3, ext4)`,
    );
  }
  const written = await guest.run("dd if=/dev/zero of=/dev/vda bs=512 count=1 conv=fsync");
  checks.add("a write is refused", written.status !== 0);
  progress.step("the guest reads up to 50 files, then the host does");
  const listed = await guest.check(
    'cd /mnt && find . -type f -size -4096k | sort | head -n 50 | while read -r f; do sha256sum "$f"; done',
    { timeout: 300_000 },
  );
  await guest.check("umount /mnt");
  const files = listed.split("\n").filter((line) => line !== "").map((line) => ({
    hash: line.slice(0, 64),
    path: line.slice(66).replace(/^\./, ""),
  }));
  await compareWithImage(image, checks, files);
}

async function compareWithImage(
  image: Image,
  checks: Checks,
  files: readonly { hash: string; path: string }[],
): Promise<void> {
  const same = `the host finds the same ${files.length} files in the image`;
  try {
    const hashes = await hashFilesInImage(image.path, files.map(({ path }) => path));
    checks.add(same, files.every(({ hash }, i) => hash === hashes[i]));
  } catch (error) {
    checks.add(`${same} (${(error as Error).message})`, false);
  }
}

async function lendShell(guest: Guest, progress: Progress): Promise<void> {
  progress.step('the guest\'s shell; "exit" leaves it. The disk is /dev/vda');
  using input = terminalInput();
  const encoder = new TextEncoder();
  await guest.shell(input.chunks, (text) => Deno.stdout.writeSync(encoder.encode(text)));
}

/** A system of the user's own: its serial console is this terminal, until it powers off. */
async function runOwnSystem(
  kernel: Uint8Array,
  initrd: Uint8Array,
  attach: (machine: V86Machine) => void,
  shared: boolean,
): Promise<void> {
  const { promise: ended, resolve } = Promise.withResolvers<void>();
  const machine = await V86Machine.create({
    memorySize: 256 * MIB,
    shared,
    onSerial: (byte) => Deno.stdout.writeSync(new Uint8Array([byte])),
    onStopped: () => resolve(),
  });
  attach(machine);
  await machine.bootLinux({ kernel, initrd, commandLine: COMMAND_LINE });
  machine.run();
  using input = terminalInput();
  const pump = (async () => {
    for await (const bytes of input.chunks) machine.sendSerial(bytes);
  })();
  await Promise.race([ended, pump]);
  await machine.destroy();
}

/** The run of example:vhost-user. */
import { hashFilesInImage } from "../blk/host_check.ts";
import { consoleSystem } from "../console/init.ts";
import { Conversation } from "../console/conversation.ts";
import { fetchPc, fetchUml } from "../guest/fetch_host.ts";
import type { ProcessGuest } from "../guest/process_guest.ts";
import { QEMU, startQemu } from "../guest/qemu.ts";
import { startUml } from "../guest/uml.ts";
import { fetchHttp, serveHttp } from "../net/host/http.ts";
import { md5, randomBytes } from "../shared/bytes.ts";
import { queueFigures, ratio, table } from "../shared/figures.ts";
import { Checks, type Outcome, type Progress } from "../shared/run.ts";
import { type Devices, GUEST_IP, HOST_IP, qemuWords, serveDevices } from "./devices.ts";
import type { Options } from "./options.ts";

/** What a device counted. */
export interface DeviceFigures {
  readonly name: string;
  readonly requests: number;
  readonly kicks: number;
  readonly interrupts: number;
}

/** What a run counted. */
export interface Figures {
  readonly devices: readonly DeviceFigures[];
}

/** The figures as a table. */
export function figureTable({ devices }: Figures): string {
  return table([
    ["", ...devices.map(({ name }) => name)],
    ["requests", ...devices.map(({ requests }) => `${requests}`)],
    ["kicks", ...devices.map(({ kicks }) => `${kicks}`)],
    ["kicks a request", ...devices.map(({ kicks, requests }) => ratio(kicks, requests))],
    ["interrupts", ...devices.map(({ interrupts }) => `${interrupts}`)],
    ["interrupts a request", ...devices.map((one) => ratio(one.interrupts, one.requests))],
  ]);
}

/** A running machine. */
interface Machine extends AsyncDisposable {
  readonly guest: ProcessGuest;
  /** Modules to load. */
  readonly modules: string;
}

async function start(
  { vm, ring }: Options,
  devices: Devices,
  folder: string,
  progress: Progress,
): Promise<Machine> {
  const step = { progress: (line: string) => progress.step(line) };
  const initrd = { files: consoleSystem().files };
  if (vm === "uml") {
    const files = await fetchUml(step);
    progress.step(`booting User Mode Linux ${files.kernelRelease}, as Debian ships it`);
    const guest = await startUml({
      files,
      folder,
      initrd,
      devices: devices.list.map(({ socket, device }) => ({ socket, id: device.type })),
    });
    return {
      guest,
      modules: "virtio_blk virtio_net virtio_console",
      [Symbol.asyncDispose]: () => guest[Symbol.asyncDispose](),
    };
  }
  const files = await fetchPc(step);
  progress.step(`booting Linux ${files.kernelRelease} in ${QEMU}`);
  const machine = await startQemu({
    files,
    folder,
    initrd,
    devices: devices.list.flatMap((served) => qemuWords(served, ring === "packed")),
  });
  return {
    guest: machine.guest,
    modules: "virtio_pci virtio_blk virtio_net virtio_rng",
    [Symbol.asyncDispose]: () => machine[Symbol.asyncDispose](),
  };
}

/** Boots the machine and checks its devices. */
export async function run(options: Options, progress: Progress): Promise<Outcome<Figures>> {
  // A short path: that of a socket has a limit.
  const folder = await Deno.makeTempDir({ prefix: "vhost-user-" });
  const began = performance.now();
  try {
    await using devices = serveDevices(options, folder);
    await using machine = await start(options, devices, folder, progress);
    const { guest } = machine;
    await guest.ready();
    const bootMs = performance.now() - began;
    progress.step(`Linux takes commands after ${(bootMs / 1000).toFixed(1)} s`);
    const checks = new Checks();
    await guest.check(`modprobe -a ${machine.modules}`);
    const written = await checkDisk(guest, options, checks, progress);
    await checkNetwork(guest, devices, options, checks, progress);
    if (options.vm === "uml") await checkConsole(guest, devices, checks, progress);
    else await checkEntropy(guest, devices, checks);
    checkRings(options, devices, checks);
    await guest.shutdown();
    const figures = readFigures(devices);
    await devices.end();
    progress.step("the host opens the image itself");
    const [found] = await hashFilesInImage(devices.image, ["/file"]);
    checks.add("the host finds the same file in the image", found === written);
    checks.addErrors(devices.errors);
    const workMs = performance.now() - began - bootMs;
    return { guest: "linux", checks: checks.list, figures, bootMs, workMs };
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** @returns The SHA-256 of what the guest wrote. */
async function checkDisk(
  guest: ProcessGuest,
  { megabytes }: Options,
  checks: Checks,
  progress: Progress,
): Promise<string> {
  progress.step(`the guest makes a file system, and writes and reads ${megabytes} MiB`);
  const text = await guest.check(`
    for i in $(seq 100); do [ -e /dev/vda ] && break; usleep 50000; done
    set -e
    cat /sys/block/vda/serial
    echo
    mkdir -p /mnt
    mke2fs /dev/vda >/dev/null
    mount -t ext2 /dev/vda /mnt
    dd if=/dev/urandom bs=1M count=${megabytes} 2>/dev/null | tee /mnt/file | sha256sum
    umount /mnt
    echo 3 >/proc/sys/vm/drop_caches
    mount -t ext2 /dev/vda /mnt
    sha256sum </mnt/file
    umount /mnt`);
  const [serial, written, back] = text.split("\n").map((line) => line.split(" ")[0]!);
  checks.add("Linux drives /dev/vda with its own virtio_blk", serial === "virtio-ts");
  checks.add(`${megabytes} MiB read back are what was written`, written === back);
  return written ?? "";
}

async function checkNetwork(
  guest: ProcessGuest,
  { station }: Devices,
  { megabytes }: Options,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  progress.step(`it and the host fetch ${megabytes} MiB from each other`);
  const file = randomBytes(megabytes * 2 ** 20);
  serveHttp(station, new Map([["/file", file]]));
  const text = await guest.check(`
    for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; usleep 50000; done
    set -e
    ip addr add ${GUEST_IP}/24 dev eth0
    ip link set lo up
    ip link set eth0 up
    mkdir -p /www
    wget -q -O /www/file http://${HOST_IP}/file
    md5sum </www/file
    httpd -h /www`);
  checks.add("the guest fetches what the host serves", text.split(" ")[0] === md5(file));
  const back = await fetchHttp(station, GUEST_IP, "/file");
  checks.add("the host fetches what the guest serves", md5(back) === md5(file));
}

async function checkConsole(
  guest: ProcessGuest,
  { console }: Devices,
  checks: Checks,
  progress: Progress,
): Promise<void> {
  progress.step("somebody logs in at the console");
  await guest.check(
    "for i in $(seq 100); do [ -c /dev/hvc0 ] && break; usleep 50000; done; " +
      "setsid getty -L 0 hvc0 vt100 </dev/null >/dev/null 2>&1 &",
  );
  const talk = new Conversation(console);
  await talk.logIn(20_000);
  const { status, output } = await talk.run("tty; id -u");
  checks.add(
    "a login at the console ends in a shell on /dev/hvc0",
    status === 0 && output === "/dev/hvc0\n0",
  );
}

async function checkEntropy(
  guest: ProcessGuest,
  { entropy }: Devices,
  checks: Checks,
): Promise<void> {
  const text = await guest.check(
    "cat /sys/class/misc/hw_random/rng_current; head -c 4096 /dev/hwrng | wc -c",
  );
  checks.add(
    "Linux reads random bytes by its own virtio_rng",
    text === "virtio_rng.0\n4096" && entropy.bytes >= 4096,
  );
}

function checkRings({ ring }: Options, { list }: Devices, checks: Checks): void {
  const packed = 1n << 34n;
  const right = list.every(({ server }) =>
    ((server.status.features & packed) !== 0n) === (ring === "packed")
  );
  checks.add(`it took ${ring} rings`, right);
}

function readFigures({ list }: Devices): Figures {
  return {
    devices: list.map(({ name, device }) => {
      const counters = device.queueCounters;
      const requests = counters.reduce((sum, { chains }) => sum + chains, 0);
      const { kicks, interrupts } = queueFigures(counters);
      return { name, requests, kicks, interrupts };
    }),
  };
}

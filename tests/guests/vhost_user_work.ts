/** What guests do with a disk that another program serves, and what the host finds on it afterwards. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import {
  FetchError,
  fetchPc,
  fetchUml,
  type HostGuestFiles,
} from "../../examples/guest/fetch_host.ts";
import type { ProcessGuest } from "../../examples/guest/process_guest.ts";
import { type HostProgramFiles, hostPrograms } from "../../examples/guest/programs.ts";
import { QEMU } from "../../examples/guest/qemu.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";
import { installPackages } from "../../tools/debian.ts";

const FSCK = "/sbin/e2fsck";
const MKFS = "/sbin/mkfs.ext4";
const FIO = "/usr/bin/fio";
const SPLIT = "/usr/bin/split";

/** Files that a guest writes onto a file system, and their size: 40 MB in all. */
const FILES = 200;
const FILE_KIB = 200;

/** What a test with such guests needs. */
export interface GuestWorld {
  /** The kernel and what goes with it. */
  readonly files: HostGuestFiles;
  /** Programs that busybox has not. */
  readonly programs: HostProgramFiles;
}

async function world(
  fetch: () => Promise<HostGuestFiles>,
  what: string,
): Promise<GuestWorld | null> {
  try {
    await installTool(MKFS, "e2fsprogs");
    return { files: await fetch(), programs: await hostPrograms([MKFS, SPLIT]) };
  } catch (error) {
    if (!(error instanceof FetchError) || Deno.env.has("CI")) throw error;
    console.error(`TESTS WITH ${what} ARE SKIPPED: ${error.message}`);
    return null;
  }
}

/** User Mode Linux, or null where it cannot be had; not in CI. */
export function umlWorld(): Promise<GuestWorld | null> {
  return world(fetchUml, "USER MODE LINUX");
}

/** QEMU and a kernel for it, or null where they cannot be had; not in CI. */
export async function qemuWorld(): Promise<GuestWorld | null> {
  await installTool(QEMU, "qemu-system-x86");
  if (!await hasTool(QEMU, ["--version"], "vhost-user with QEMU")) return null;
  return await world(fetchPc, "QEMU");
}

/** fio for the guest, or null where it cannot be had; not in CI. */
export async function fioFiles(): Promise<HostProgramFiles | null> {
  await installPackages(["fio"]);
  if (!await hasTool(FIO, ["--version"], "fio in a guest")) return null;
  return await hostPrograms([FIO]);
}

/** Loads drivers, and waits for what they make of the device. */
export async function appears(guest: ProcessGuest, modules: string, path: string): Promise<void> {
  await guest.check(
    `modprobe -a ${modules}; for i in $(seq 100); do [ -e ${path} ] && exit 0; usleep 50000; done; ` +
      "dmesg | tail -20; exit 1",
  );
}

/** What was written: the sums of all files, one line each. */
export interface Written {
  readonly sums: string;
}

/**
 * Makes an ext4, fills it with files, and compares them after their blocks left the guest's memory.
 *
 * @param disk Path of the disk in the guest.
 * @param size Of the file system, as mkfs takes it; the disk's unless given.
 */
export async function writeFiles(
  guest: ProcessGuest,
  disk: string,
  size = "",
): Promise<Written> {
  await guest.check(`
    set -e
    mkdir -p /mnt
    ${MKFS} -q -F ${disk} ${size} >/dev/null 2>&1
    mount -t ext4 ${disk} /mnt
    # One process for all files: starting one takes longer than writing one.
    dd if=/dev/urandom bs=${FILE_KIB}k count=${FILES} iflag=fullblock 2>/dev/null |
      ${SPLIT} -a 3 -b ${FILE_KIB}k - /mnt/file
    sync`);
  const sums = await guest.check(`
    set -e
    cd /mnt
    md5sum file* >/tmp/sums
    cd /
    umount /mnt
    echo 3 >/proc/sys/vm/drop_caches
    mount -t ext4 ${disk} /mnt
    cd /mnt
    md5sum -c -s /tmp/sums
    cat /tmp/sums`);
  assertEquals(sums.split("\n").length, FILES);
  return { sums };
}

/** Whether files of `writeFiles` are still the same; reads them from the disk. */
export async function checkFiles(
  guest: ProcessGuest,
  disk: string,
  { sums }: Written,
): Promise<void> {
  const found = await guest.check(`
    set -e
    mkdir -p /mnt
    umount /mnt 2>/dev/null || true
    echo 3 >/proc/sys/vm/drop_caches
    mount -t ext4 ${disk} /mnt
    cd /mnt
    md5sum file*`);
  assertEquals(found, sums);
}

/** The host's own look: the file system has no fault, and the files are what the guest wrote. The guest has unmounted it. */
export async function checkImage(image: string, { sums }: Written): Promise<void> {
  const fsck = await new Deno.Command(FSCK, { args: ["-f", "-n", image], stdin: "null" }).output();
  const decoder = new TextDecoder();
  assert(fsck.success, decoder.decode(fsck.stdout) + decoder.decode(fsck.stderr));
  const folder = await Deno.makeTempDir();
  try {
    const dump = await new Deno.Command("/sbin/debugfs", {
      args: ["-R", `rdump / ${folder}`, image],
      stdin: "null",
    }).output();
    assert(dump.success, decoder.decode(dump.stderr));
    const lines = [];
    for (const line of sums.split("\n")) {
      const [, name] = line.split("  ");
      const { createHash } = await import("node:crypto");
      const hash = createHash("md5").update(await Deno.readFile(`${folder}/${name}`)).digest("hex");
      lines.push(`${hash}  ${name}`);
    }
    assertEquals(lines.join("\n"), sums);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

/** Random writes that fio verifies by their checksums; the disk's first `megabytes` are overwritten. */
export async function fioVerify(
  guest: ProcessGuest,
  disk: string,
  options: { megabytes?: number; depth?: number; jobs?: number; extra?: string } = {},
): Promise<void> {
  const { megabytes = 16, depth = 16, jobs = 1, extra = "" } = options;
  const output = await guest.check(
    `${FIO} --name=verify --filename=${disk} --rw=randwrite --bs=4k --size=${megabytes}m ` +
      `--numjobs=${jobs} --offset_increment=${megabytes}m --direct=1 --ioengine=libaio ` +
      `--iodepth=${depth} --verify=crc32c --verify_fatal=1 --group_reporting ${extra} 2>&1`,
    { timeout: 300_000 },
  );
  assertMatch(output, /err= 0/);
  assertMatch(output, /READ: .*WRITE: /s);
}

/** One Linux with v86's own IDE disk and virtio disks of the same size and contents. */
import { FileBackend } from "@virtio/blk/file";
import { MemoryBackend } from "@virtio/blk/memory";
import type { BlkBackend, BlkDevice } from "@virtio/blk";
import { attachDisk } from "../../examples/blk/attach.ts";
import type { GuestFiles } from "../../examples/guest/fetch.ts";
import { Guest } from "../../examples/guest/guest.ts";
import { buildInitrd } from "../../examples/guest/initrd.ts";
import type { Attached, Seat } from "../../examples/shared/seat.ts";
import {
  LOOP_PATH,
  loopParameters,
  loopProgram,
  type LoopTimes,
  loopTimes,
  type Work,
} from "./loop.ts";

/** Bytes of each disk. */
export const DISK_SIZE = 64 * 2 ** 20;

/** A disk of the guest. */
export interface Disk {
  /** Short, for JSON; the name of the row. */
  readonly name: string;
  /** For people. */
  readonly label: string;
  /** Name of the block device in the guest. */
  readonly node: string;
  /** What the guest calls its interrupt for requests. */
  readonly interrupt: RegExp;
}

/** What a disk did so far, by the guest's own count and by the machine's. */
export interface DiskCounts {
  /** Requests that the guest's block layer completed. */
  readonly requests: number;
  /** Interrupts that the guest took from the disk. */
  readonly interrupts: number;
  /** Register accesses that left the guest's processor for the host. */
  readonly exits: number;
}

interface Row {
  readonly name: string;
  readonly label: string;
  readonly seat: Seat;
  readonly place: number;
  readonly file?: true;
}

const PCI: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "split" };
const ROWS: readonly Row[] = [
  { name: "pci", label: "virtio-pci, memory BAR, MSI-X", seat: PCI, place: 0 },
  {
    name: "pci-packed",
    label: "the same with a packed ring",
    seat: { ...PCI, ring: "packed" },
    place: 1,
  },
  { name: "pci-io", label: "virtio-pci, I/O BAR, MSI-X", seat: { ...PCI, bar: "io" }, place: 2 },
  { name: "mmio", label: "virtio-mmio", seat: { ...PCI, transport: "mmio" }, place: 0 },
  {
    name: "pci-file",
    label: "virtio-pci, memory BAR, on a file",
    seat: PCI,
    place: 3,
    file: true,
  },
];

/** A disk's contents: no two sectors are the same. */
export function pattern(size: number): Uint8Array<ArrayBuffer> {
  const words = new Uint32Array(size / 4);
  let state = 1;
  for (let i = 0; i < words.length; i++) {
    state = Math.imul(state, 1_664_525) + 1_013_904_223 | 0;
    words[i] = state;
  }
  return new Uint8Array(words.buffer);
}

/** The booted guest and its disks. */
export class Disks implements AsyncDisposable {
  /** In order of the table; v86's own IDE disk is the first. */
  readonly list: readonly Disk[];
  /** Release of the guest's kernel. */
  readonly kernel: string;
  /** Seconds until the guest took commands. */
  readonly bootSeconds: number;
  readonly #guest: Guest;
  readonly #attached: readonly Attached<BlkDevice>[];
  readonly #file: FileBackend;

  private constructor(
    guest: Guest,
    list: readonly Disk[],
    attached: readonly Attached<BlkDevice>[],
    file: FileBackend,
    kernel: string,
    bootSeconds: number,
  ) {
    this.#guest = guest;
    this.list = list;
    this.#attached = attached;
    this.#file = file;
    this.kernel = kernel;
    this.bootSeconds = bootSeconds;
  }

  /**
   * Boots the guest, and checks that each disk is there and holds what it should.
   *
   * @param path An empty file for the disk on a file.
   */
  static async boot(files: GuestFiles, path: string): Promise<Disks> {
    const contents = pattern(DISK_SIZE);
    await Deno.writeFile(path, contents);
    const file = FileBackend.open(path);
    const attached: Attached<BlkDevice>[] = [];
    const start = performance.now();
    const guest = await Guest.boot({
      kernel: files.kernel,
      initrd: buildInitrd({
        ...files,
        files: [{ path: LOOP_PATH, mode: 0o755, bytes: loopProgram() }],
      }),
      machine: { memorySize: 128 * 2 ** 20, ide: { buffer: contents.slice().buffer } },
      attach: (machine) => {
        for (const row of ROWS) {
          const backend: BlkBackend = row.file ? file : new MemoryBackend(contents.slice());
          attached.push(attachDisk(machine, row.seat, { backend, id: row.name }, row.place));
        }
      },
    });
    try {
      const bootSeconds = (performance.now() - start) / 1000;
      const list = await findDisks(guest);
      const disks = new Disks(guest, list, attached, file, files.kernelRelease, bootSeconds);
      await disks.#checkContents(contents);
      return disks;
    } catch (error) {
      await guest.destroy();
      file.close();
      throw error;
    }
  }

  /** Has the guest do works on disks, one directly after the other. */
  async run(turns: readonly { disk: Disk; work: Work }[]): Promise<LoopTimes[]> {
    const all = turns.map(({ disk, work }) => loopParameters(`/dev/${disk.node}`, work));
    const parameters = new Uint8Array(all.flatMap((bytes) => [...bytes])).toBase64();
    const output = await this.#guest.check(
      `set -o pipefail; echo ${parameters} | base64 -d >/tmp/works; ` +
        `${LOOP_PATH} </tmp/works | od -An -v -t u4`,
      { timeout: 600_000 },
    );
    return loopTimes(output, turns.length);
  }

  /** What a disk did so far. */
  async counts(disk: Disk): Promise<DiskCounts> {
    const output = await this.#guest.check(`cat /sys/block/${disk.node}/stat /proc/interrupts`);
    const lines = output.split("\n");
    // The kernel's Documentation/block/stat.rst: fields 1 and 5 are completed reads and writes.
    const fields = lines[0]!.trim().split(/\s+/).map(Number);
    let interrupts = 0;
    for (const line of lines.slice(1)) {
      if (disk.interrupt.test(line)) interrupts += Number(line.trim().split(/\s+/)[1]);
    }
    const { exits, ideExits } = this.#guest.machine;
    return {
      requests: fields[0]! + fields[4]!,
      interrupts,
      // The other disks rest while one is measured.
      exits: disk.name === "ide" ? ideExits!.total : exits.total,
    };
  }

  /** @throws {Error} If a device failed meanwhile. */
  checkDevices(): void {
    for (const { device, errors } of this.#attached) {
      if (errors.length > 0) throw errors[0]!;
      const { stats } = device;
      if (stats.errors + stats.unsupported > 0) throw new Error("A virtio disk refused requests");
    }
  }

  /** Each disk reads in the guest as it was made on the host. */
  async #checkContents(contents: Uint8Array<ArrayBuffer>): Promise<void> {
    const size = 2 ** 18;
    const digest = await crypto.subtle.digest("SHA-256", contents.subarray(0, size));
    const expected = new Uint8Array(digest).toHex();
    for (const { name, node } of this.list) {
      const command = `dd if=/dev/${node} bs=64k count=${size / 65536} 2>/dev/null | sha256sum`;
      const found = await this.#guest.check(command);
      if (!found.startsWith(expected)) throw new Error(`The disk ${name} does not read as made`);
    }
  }

  /** Ends the guest. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest.destroy();
    this.#file.close();
  }
}

/** Loads the drivers, waits for the disks, and finds out which is which. */
async function findDisks(guest: Guest): Promise<Disk[]> {
  await guest.check("modprobe -a ata_piix sd_mod virtio_pci virtio_mmio virtio_blk");
  const last = String.fromCharCode("a".charCodeAt(0) + ROWS.length - 1);
  const found = await guest.run(
    `for i in $(seq 100); do [ -b /dev/sda ] && [ -b /dev/vd${last} ] && exit 0; sleep 0.2; done
    dmesg | tail -n 20; exit 1`,
    { timeout: 60_000 },
  );
  if (found.status !== 0) throw new Error(`The guest found not all disks: ${found.output}`);
  const list: Disk[] = [{
    name: "ide",
    label: "v86's own IDE",
    node: "sda",
    interrupt: /^ *14:.*ata_piix/,
  }];
  const lines = await guest.check(
    "cd /sys/block; for d in vd*; do " +
      "echo $d $(cat $d/serial) $(basename $(readlink -f $d/device)); done",
  );
  const nodes = new Map(
    lines.split("\n").map((line) => {
      const [node, serial, device] = line.split(" ");
      return [serial!, { node: node!, device: device! }];
    }),
  );
  for (const { name, label } of ROWS) {
    const { node, device } = nodes.get(name)!;
    // With MSI-X the queue has an interrupt of its own, else there is one for all.
    list.push({ name, label, node, interrupt: new RegExp(` ${device}(-req\\.\\d+)?$`) });
  }
  return list;
}

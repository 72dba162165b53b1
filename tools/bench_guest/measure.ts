/** Measures all disks of one guest in alternation, and the host's own direct I/O between them. */
import { ratios, type Spread, spread } from "../../bench/harness.ts";
import { fetchGuest } from "../../examples/guest/fetch.ts";
import { countCopies } from "./copies.ts";
import { type Disk, DISK_SIZE, Disks, pattern } from "./disks.ts";
import { DirectFile } from "./host.ts";
import type { Work } from "./loop.ts";

/** How to measure. */
export interface BenchOptions {
  /** Rounds that count. */
  readonly rounds: number;
  /** Rounds before them, which let v86 compile what runs often. */
  readonly warmUp: number;
  /** 4 KiB reads of one run. */
  readonly reads: number;
  /** Megabytes (2^20 bytes) of one sequential run. */
  readonly megabytes: number;
  /** Folder for the two files that are needed, on a real disk; it is made if it is not there. */
  readonly folder: string;
  /** Told what happens, a line at a time. */
  readonly progress: (line: string) => void;
}

/** Kinds of work, in the order of the table. */
export const WORKS = ["read4k", "read", "write"] as const;

/** A kind of work: 4 KiB reads, or sequential reads and writes of 1 MiB each. */
export type WorkName = typeof WORKS[number];

/** Something for each kind of work. */
export type PerWork<T> = Readonly<Record<WorkName, T>>;

/** What one request of the guest's block layer costs. */
export interface PerRequest {
  /** Bytes of a request. */
  readonly bytes: number;
  /** Register accesses for which the guest left to the host. */
  readonly exits: number;
  /** Interrupts that the guest took. */
  readonly interrupts: number;
  /** Bytes that the host's process copied, by byte of the disk. */
  readonly copies: number;
}

/** A row: a disk in the guest, or the host's own file. */
export interface Row {
  readonly name: string;
  readonly label: string;
  /** Reads a second for `read4k`, megabytes (10^6 bytes) a second for the others. */
  readonly speed: PerWork<Spread>;
  /** Speed against IDE's in the same round. */
  readonly overIde: PerWork<Spread>;
  /** Null for the host's own I/O, which nobody emulates. */
  readonly perRequest: PerWork<PerRequest> | null;
}

/** What came out. */
export interface GuestBench {
  readonly kernel: string;
  readonly rounds: number;
  readonly reads: number;
  readonly megabytes: number;
  readonly diskBytes: number;
  /** Seconds until the guest took commands. */
  readonly bootSeconds: number;
  /** The guest's clock against the host's over the whole measurement; 1 if they agree. */
  readonly guestClock: number;
  /** v86's own IDE first, then virtio, then the host. */
  readonly rows: readonly Row[];
  /** Why the host's row is missing, or null. */
  readonly noHost: string | null;
}

const MIB = 2 ** 20;

function works(options: BenchOptions): PerWork<Work> {
  const { reads, megabytes } = options;
  const span = megabytes * MIB;
  return {
    read4k: { kind: "read", block: 4096, count: reads, span: DISK_SIZE },
    read: { kind: "read", block: MIB, count: megabytes, span },
    write: { kind: "write", block: MIB, count: megabytes, span },
  };
}

function speed(name: WorkName, work: Work, seconds: number): number {
  return name === "read4k" ? work.count / seconds : work.count * work.block / 1e6 / seconds;
}

function perWork<T>(make: (name: WorkName) => T): PerWork<T> {
  return { read4k: make("read4k"), read: make("read"), write: make("write") };
}

function shuffle<T>(items: T[]): void {
  for (let i = items.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [items[i], items[j]] = [items[j]!, items[i]!];
  }
}

/** Samples of one contender. */
class Samples {
  readonly values: PerWork<number[]> = perWork(() => []);
  readonly name: string;
  readonly label: string;

  constructor(name: string, label: string) {
    this.name = name;
    this.label = label;
  }

  row(ide: Samples, perRequest: PerWork<PerRequest> | null): Row {
    return {
      name: this.name,
      label: this.label,
      speed: perWork((work) => spread(this.values[work])),
      overIde: perWork((work) => spread(ratios(this.values[work], ide.values[work]))),
      perRequest,
    };
  }
}

/** One run of a kind of work by one contender. */
interface Turn {
  readonly samples: Samples;
  readonly name: WorkName;
  run(): Promise<number>;
}

/** Boots the guest and measures. @throws {FetchError} Where there is no guest to be had. */
export async function benchGuest(options: BenchOptions): Promise<GuestBench> {
  const { rounds, warmUp, folder, progress } = options;
  const files = await fetchGuest({ progress });
  await Deno.mkdir(folder, { recursive: true });
  const guestPath = await Deno.makeTempFile({ dir: folder, prefix: "guest-", suffix: ".raw" });
  const hostPath = await Deno.makeTempFile({ dir: folder, prefix: "host-", suffix: ".raw" });
  try {
    await Deno.writeFile(hostPath, pattern(DISK_SIZE));
    progress("booting Linux with all disks");
    await using disks = await Disks.boot(files, guestPath);
    const opened = DirectFile.open(hostPath);
    using host = opened instanceof DirectFile ? opened : null;
    const work = works(options);
    await disks.prepare(work);

    const turns: Turn[] = [];
    const all = disks.list.map((disk) => new Samples(disk.name, disk.label));
    const hostSamples = new Samples("host", "the host itself, O_DIRECT");
    const clock = { hostStart: 0, guestStart: 0, hostEnd: 0, guestEnd: 0 };
    for (const name of WORKS) {
      disks.list.forEach((disk, i) =>
        turns.push({
          samples: all[i]!,
          name,
          run: async () => {
            const { start, end } = await disks.run(disk, name);
            clock.hostEnd = performance.now() / 1000;
            clock.guestEnd = end;
            if (clock.hostStart === 0) {
              clock.hostStart = clock.hostEnd;
              clock.guestStart = end;
            }
            return end - start;
          },
        })
      );
      if (host !== null) {
        turns.push({
          samples: hostSamples,
          name,
          run: () => Promise.resolve(host.run(work[name])),
        });
      }
    }
    for (let round = -warmUp; round < rounds; round++) {
      progress(round < 0 ? `warming up, ${-round} more` : `round ${round + 1} of ${rounds}`);
      shuffle(turns);
      for (const { samples, name, run } of turns) {
        const seconds = await run();
        if (round >= 0) samples.values[name].push(speed(name, work[name], seconds));
      }
    }

    progress("counting exits, interrupts and copies");
    const rows: Row[] = [];
    for (const [i, disk] of disks.list.entries()) {
      rows.push(all[i]!.row(all[0]!, await costs(disks, disk, work)));
    }
    if (host !== null) rows.push(hostSamples.row(all[0]!, null));
    disks.checkDevices();
    return {
      kernel: disks.kernel,
      rounds,
      reads: options.reads,
      megabytes: options.megabytes,
      diskBytes: DISK_SIZE,
      bootSeconds: disks.bootSeconds,
      guestClock: (clock.guestEnd - clock.guestStart) / (clock.hostEnd - clock.hostStart),
      rows,
      noHost: typeof opened === "string" ? opened : null,
    };
  } finally {
    await Deno.remove(guestPath);
    await Deno.remove(hostPath);
  }
}

/** Counts what requests to a disk cost, apart from the timed runs. */
async function costs(
  disks: Disks,
  disk: Disk,
  works: PerWork<Work>,
): Promise<PerWork<PerRequest>> {
  const found: Record<string, PerRequest> = {};
  let before = await disks.counts(disk);
  for (const name of WORKS) {
    const copied = await countCopies(async () => void await disks.run(disk, name));
    const after = await disks.counts(disk);
    const requests = after.requests - before.requests;
    const bytes = works[name].count * works[name].block;
    found[name] = {
      bytes: bytes / requests,
      exits: (after.exits - before.exits) / requests,
      interrupts: (after.interrupts - before.interrupts) / requests,
      copies: copied / bytes,
    };
    before = after;
  }
  return found as PerWork<PerRequest>;
}

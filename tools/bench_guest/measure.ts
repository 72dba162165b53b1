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
  /** Processors of the host, and how many programs wanted one meanwhile, on average over a minute. */
  readonly processors: number;
  readonly load: number;
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

function shuffled<T>(items: readonly T[]): T[] {
  const order = [...items];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Compares the guest's clock with the host's. */
class Clock {
  #first: { host: number; guest: number } | null = null;
  #last = { host: 0, guest: 0 };

  /** It was `guest` seconds in the guest a moment ago. */
  note(guest: number): void {
    this.#last = { host: performance.now() / 1000, guest };
    this.#first ??= this.#last;
  }

  /** Seconds of the guest in one of the host; 1 before two moments were noted. */
  get ratio(): number {
    const host = this.#last.host - (this.#first?.host ?? 0);
    return host > 0 ? (this.#last.guest - (this.#first?.guest ?? 0)) / host : 1;
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
    const all = disks.list.map((disk) => new Samples(disk.name, disk.label));
    const hostSamples = new Samples("host", "the host itself, O_DIRECT");
    const clock = new Clock();
    for (let round = -warmUp; round < rounds; round++) {
      progress(round < 0 ? `warming up, ${-round} more` : `round ${round + 1} of ${rounds}`);
      const turns = shuffled(WORKS).flatMap((name) =>
        shuffled([...disks.list.keys()]).map((i) => ({
          samples: all[i]!,
          disk: disks.list[i]!,
          name,
          work: work[name],
        }))
      );
      const times = await disks.run(turns);
      clock.note(times.at(-1)!.end);
      // The guest rests between two commands: that is the host's turn.
      const hostSeconds = host === null ? null : perWork((name) => host.run(work[name]));
      if (round < 0) continue;
      turns.forEach(({ samples, name }, i) => {
        const { start, end } = times[i]!;
        samples.values[name].push(speed(name, work[name], end - start));
      });
      if (hostSeconds === null) continue;
      for (const name of WORKS) {
        hostSamples.values[name].push(speed(name, work[name], hostSeconds[name]));
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
      guestClock: clock.ratio,
      processors: navigator.hardwareConcurrency,
      load: Deno.loadavg()[0]!,
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
    const copied = await countCopies(async () =>
      void await disks.run([{ disk, work: works[name] }])
    );
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

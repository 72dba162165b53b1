/** Measures all cards and lines of one guest in alternation. */
import { ratios, type Spread, spread } from "../../bench/harness.ts";
import { fetchGuest } from "../../examples/guest/fetch.ts";
import { type Card, type Line, NetGuest } from "./guest.ts";
import type { Work } from "./program.ts";

/** How to measure. */
export interface GuestOptions {
  /** Rounds that count. */
  readonly rounds: number;
  /** Rounds before them, which let v86 compile what runs often. */
  readonly warmUp: number;
  /** How much is done at a time: 1 is some ten milliseconds. */
  readonly size: number;
  /** Told what happens, a line at a time. */
  readonly progress: (line: string) => void;
}

/** Kinds of work with cards, and the one with lines, in the order of the table. */
export const WORKS = ["ping", "udp", "tcp send", "tcp receive", "write"] as const;

/** A kind of work. */
export type WorkName = typeof WORKS[number];

/** One comparison: a card or line of ours, or v86's own. */
export interface GuestRow {
  readonly work: WorkName;
  readonly name: string;
  readonly label: string;
  /** Round trips or packets a second; megabytes (10^6 bytes) a second for TCP and consoles. */
  readonly speed: Spread;
  /** Speed against v86's own in the same round. */
  readonly overV86: Spread;
}

/** What came out. */
export interface GuestResult {
  readonly kernel: string;
  readonly rounds: number;
  readonly rows: readonly GuestRow[];
}

/** A round is cut into slices, in which all have their turn, and the fastest counts: time slices of a shared machine get lost. */
const SLICES = 8;
const BLOCK = 32_768;
const DATAGRAM = 64;

interface Contender {
  readonly name: string;
  readonly label: string;
  readonly work: Work;
  /** What the host has seen of it. */
  readonly seen: () => number;
  /** What the host must have seen of one slice; more for TCP, which ends by itself. */
  readonly expected: number;
  /** Work of one slice, in units of speed. */
  readonly units: number;
  readonly samples: number[];
}

function cardWork(card: Card, name: WorkName, size: number): Contender {
  const { ip, responder: { counts }, label } = card;
  const base = { name: card.name, label, samples: [] };
  const bytes = Math.max(1, Math.round(48 * size)) * BLOCK;
  const stream = { ip, block: BLOCK, count: bytes / BLOCK };
  if (name === "ping") {
    const count = Math.max(2, Math.round(20 * size));
    const work = { kind: name, ip, count } as const;
    return { ...base, work, units: count, seen: () => 0, expected: 0 };
  }
  if (name === "udp") {
    const count = Math.max(2, Math.round(150 * size));
    const work = { kind: name, ip, block: DATAGRAM, count } as const;
    return { ...base, work, units: count, seen: () => counts.datagrams, expected: count };
  }
  if (name === "tcp send") {
    const work = { kind: name, ...stream };
    return { ...base, work, units: bytes / 1e6, seen: () => counts.received, expected: bytes };
  }
  const work = { kind: "tcp receive", ...stream } as const;
  return { ...base, work, units: bytes / 1e6, seen: () => counts.sent, expected: bytes };
}

function lineWork(line: Line, size: number): Contender {
  const count = Math.max(1, Math.round(3 * size)) * (line.name === "port" ? 16 : 1);
  return {
    name: line.name,
    label: line.label,
    work: { kind: "write", path: line.path, block: BLOCK, count },
    seen: () => line.bytes(),
    expected: count * BLOCK,
    units: count * BLOCK / 1e6,
    samples: [],
  };
}

function shuffled<T>(items: readonly T[]): T[] {
  const order = [...items];
  for (let i = order.length - 1; i > 0; i--) {
    const j = Math.floor(Math.random() * (i + 1));
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  return order;
}

/** Boots the guest and measures. @throws {FetchError} Where there is no guest to be had. */
export async function measureGuest(options: GuestOptions): Promise<GuestResult> {
  const { rounds, warmUp, size, progress } = options;
  const files = await fetchGuest({ progress });
  progress("booting Linux with all cards and consoles");
  await using guest = await NetGuest.boot(files);
  const works = WORKS.map((name) =>
    name === "write"
      ? guest.lines.map((line) => lineWork(line, size))
      : guest.cards.map((card) => cardWork(card, name, size))
  );
  for (let round = -warmUp; round < rounds; round++) {
    progress(round < 0 ? `warming up, ${-round} more` : `round ${round + 1} of ${rounds}`);
    for (const contenders of works) {
      const order = shuffled(contenders);
      const before = order.map(({ seen }) => seen());
      const works = order.map(({ work }) => work);
      const times = await guest.run(Array<Work[]>(SLICES).fill(works).flat());
      order.forEach(({ work, seen, expected, units, samples, label }, i) => {
        const came = seen() - before[i]!;
        const sure = work.kind === "udp" || work.kind === "tcp send" || work.kind === "write";
        if (sure ? came !== SLICES * expected : came < SLICES * expected) {
          throw new Error(`${work.kind}, ${label}: ${came} of ${SLICES * expected} came`);
        }
        if (round < 0) return;
        const slices = times.filter((_, k) => k % order.length === i);
        samples.push(units / Math.min(...slices.map(({ start, end }) => end - start)));
      });
    }
  }
  guest.checkDevices();
  const rows = works.flatMap((contenders, i) =>
    contenders.map(({ name, label, samples }): GuestRow => ({
      work: WORKS[i]!,
      name,
      label,
      speed: spread(samples),
      overV86: spread(ratios(samples, contenders[0]!.samples)),
    }))
  );
  return { kernel: guest.kernel, rounds, rows };
}

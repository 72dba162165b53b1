/** States of two sides that share memory: what was done, what is there, and how it came to that. */

/** One shared access. */
export interface Access {
  /** Which kind. */
  readonly kind: "load" | "store" | "wait" | "signal";
  /** Whether through `Atomics`. */
  readonly atomic: boolean;
  /** Offset in the memory; for wait and signal the number of the flag. */
  readonly at: number;
  /** Bytes. */
  readonly size: number;
}

/** An order in which something goes wrong. */
export class InterleavingError extends Error {
  override readonly name = "InterleavingError";
}

/** How many flags there are to wait for. */
export const FLAGS = 2;

/** The steps so far, the last one first. */
interface Trace {
  readonly before: Trace | null;
  readonly side: number;
  readonly access: Access;
  readonly value: number;
}

/** Where both sides are. */
export interface State {
  bytes: Uint8Array;
  flags: boolean[];
  /** What the last checkpoint of each side said. */
  notes: (string | null)[];
  /** Values of all loads since then, by side; a store logs 0. */
  logs: number[][];
  /** Accesses of each side that happens-before is about. */
  clocks: number[];
  /** How many of the other side's are known to have happened. */
  knows: number[];
  /** Last access of each byte by category and side: plain read, plain write, atomic read, atomic write. */
  last: Int32Array;
  /** What is known to whoever reads an atomic store: by byte, the clock of each side, and the width. */
  released: Int32Array;
  done: boolean[];
  /** The access before which each side waits. */
  next: (Access | null)[];
  trace: Trace | null;
}

/** An access, in words. */
export function show(side: number, access: Access): string {
  const how = access.atomic ? "atomic " : "";
  const place = access.kind === "wait" || access.kind === "signal"
    ? `flag ${access.at}`
    : `${access.size} bytes at ${access.at}`;
  return `side ${side}: ${how}${access.kind} of ${place}`;
}

/** The same state, to go on from in another order. */
export function copy(state: State): State {
  return {
    bytes: state.bytes.slice(),
    flags: [...state.flags],
    notes: [...state.notes],
    clocks: [...state.clocks],
    logs: state.logs.map((log) => [...log]),
    knows: [...state.knows],
    last: state.last.slice(),
    released: state.released.slice(),
    done: [...state.done],
    next: [...state.next],
    trace: state.trace,
  };
}

/** 53 bits over everything that the future depends on. */
export function keyOf(state: State): number {
  let a = 0x811c9dc5;
  let b = 0x1234567;
  const mix = (value: number): void => {
    a = Math.imul(a ^ value, 0x01000193);
    a ^= a >>> 15;
    b = Math.imul(b + value + 0x9e3779b9, 0x85ebca6b);
    b ^= b >>> 13;
  };
  for (const log of state.logs) {
    mix(log.length);
    for (const value of log) mix(value);
  }
  for (const note of state.notes) {
    mix(note?.length ?? -1);
    for (let i = 0; i < (note?.length ?? 0); i++) mix(note!.charCodeAt(i));
  }
  for (const clock of state.clocks) mix(clock);
  for (const byte of state.bytes) mix(byte);
  for (const known of state.knows) mix(known);
  for (const clock of state.released) mix(clock);
  for (const flag of state.flags) mix(flag ? 1 : 0);
  return (a >>> 0) * 0x20_0000 + ((b >>> 0) & 0x1f_ffff);
}

/** What went wrong, and the order in which it did. */
export function explain(state: State, error: unknown): InterleavingError {
  const lines: string[] = [];
  for (let step = state.trace; step !== null; step = step.before) {
    const { side, access, value } = step;
    if (!access.atomic && access.kind === "load") continue;
    lines.unshift(`  ${show(side, access)}${access.kind === "load" ? ` gives ${value}` : ""}`);
  }
  const reason = error instanceof Error ? error.message : String(error);
  return new InterleavingError(`${reason}\n${lines.join("\n")}`, { cause: error });
}

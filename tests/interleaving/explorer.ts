/**
 * Runs two programs over shared memory in every order of their shared accesses, and looks for data races.
 *
 * The programs are ordinary synchronous code: the project's queues, unchanged. JavaScript cannot stop a function in the
 * middle, so a program is run again from its start for each of its steps: accesses that it made before are answered from a
 * log, and the first new one is performed; the next one ends the run with an exception. Private state needs no copies that
 * way: it follows from what was read. (Where a program can say what its private state is, at a checkpoint, the log starts anew
 * there.)
 *
 * Only accesses that synchronise are points where the other side may come in: atomics, and those plain ones that the caller
 * calls racy by design. For all other plain accesses happens-before is tracked (through an atomic load that reads what an
 * atomic store of the same place and width left), and a pair that is not ordered is an error. A program without such pairs
 * has no behaviours but the ones that are explored here.
 */
import { GuestMemory } from "@virtio/memory";
import {
  type Access,
  copy,
  explain,
  FLAGS,
  InterleavingError,
  keyOf,
  show,
  type State,
} from "./state.ts";
import { traced, TracedView, tracedWords, type Tracer } from "./tracing.ts";

export { type Access, InterleavingError };

/** What a program gets. */
export interface Side {
  /** Memory of its own views, over the shared bytes. */
  readonly memory: GuestMemory;
  /** Waits until the flag is set, and clears it. */
  wait(flag: number): void;
  /** Sets the flag. */
  signal(flag: number): void;
  /**
   * Says that the program's state is described by `note` alone: the next run of it starts with the note in place of null, and
   * orders that led to the same note are one. To be called right before `wait`, which the next run begins with.
   */
  checkpoint(note: string): void;
  /** Runs `body` with memory of its own in place of the shared bytes: to bring private state to what a note says. */
  offline(body: (memory: GuestMemory) => void): void;
}

/** A program; `note` is what its last checkpoint said, or null. */
export type Program = (side: Side, note: string | null) => void;

/** What to explore. */
export interface Exploration {
  /** Bytes of memory, all zero at first. */
  readonly bytes: number;
  /** The two programs. The exploration ends when the first one does; the second may wait for ever. */
  readonly programs: readonly [Program, Program];
  /** The bytes of a plain access that are meant to race, from and to, or null: it is a step then, and they are no error. */
  readonly racy: (access: Access, side: number) => readonly [number, number] | null;
  /**
   * Atomic stores that order what is around them. Where this says no, a load learns nothing from the store: that can make
   * up races, but hides none, and there are fewer states.
   */
  readonly publishes: (access: Access) => boolean;
  /** What a side takes a value for that it loads, or what becomes of one that it stores: to let it count from elsewhere. */
  readonly translate?: (access: Access, side: number, value: number) => number;
  /**
   * Breaks a program on purpose: what becomes of an access. "late": a store is performed after the next access that is not
   * late itself; "plain": an atomic access that orders nothing. A number is what a load gives instead of what is there.
   */
  readonly plant?: (
    access: Access,
    side: number,
    value: number,
  ) => "late" | "plain" | number | null;
  /** States at most. */
  readonly limit?: number;
}

/** What was explored. */
export interface Explored {
  /** States. */
  readonly states: number;
  /** Orders that came to the end of the first program. */
  readonly ends: number;
}

/** Ends a run in the middle. */
const SUSPEND = Symbol("suspend");

/** Runs one side once: the log first, then one step. */
class Runner implements Side, Tracer {
  readonly memory: GuestMemory;
  readonly #what: Exploration;
  readonly #state: State;
  readonly #side: number;
  /** Accesses so far in this run. */
  #count = 0;
  /** Accesses that are answered from the log. */
  #logged: number;
  /** The bytes behind `memory`, which are used offline only. */
  readonly #own: Uint8Array<ArrayBuffer>;
  #offline = false;
  /** Whether the step of this run was begun. */
  #stepped = false;
  #late: { access: Access; value: number }[] = [];

  constructor(what: Exploration, state: State, side: number) {
    this.#what = what;
    this.#state = state;
    this.#side = side;
    this.#logged = state.logs[side]!.length;
    const buffer = new ArrayBuffer(what.bytes);
    this.memory = new GuestMemory([{ base: 0, buffer }]);
    const region = this.memory.regions[0]!;
    region.view = new TracedView(this, buffer);
    region.bytes = tracedWords(this, region.bytes);
    region.u16 = tracedWords(this, region.u16);
    region.i32 = tracedWords(this, region.i32);
    this.#own = new Uint8Array(buffer);
  }

  /** Runs. */
  run(): void {
    try {
      this.#what.programs[this.#side]!(this, this.#state.notes[this.#side]!);
      this.#flushLate();
      this.#state.done[this.#side] = true;
      this.#state.next[this.#side] = null;
    } catch (error) {
      if (error !== SUSPEND) throw error;
    }
  }

  load(at: number, size: number, atomic: boolean): number {
    const access: Access = { kind: "load", atomic, at, size };
    const translate = this.#what.translate;
    const bytes = this.#offline ? this.#own : this.#state.bytes;
    let value = 0;
    for (let i = size - 1; i >= 0; i--) value = value * 256 + bytes[at + i]!;
    if (this.#offline) return value;
    // Stores that are late are this side's own: it sees them.
    for (const late of this.#late) {
      if (late.access.at === at && late.access.size === size) value = late.value;
    }
    const plant = this.#what.plant?.(access, this.#side, value) ?? null;
    const got = this.#perform(
      access,
      () => {
        const got = typeof plant === "number" ? plant : value;
        return translate === undefined ? got : translate(access, this.#side, got);
      },
      plant === "plain",
    );
    this.#flushLate();
    return got;
  }

  store(at: number, size: number, value: number, atomic: boolean): void {
    if (this.#offline) {
      put(this.#own, at, size, value);
      return;
    }
    const access: Access = { kind: "store", atomic, at, size };
    value = this.#what.translate?.(access, this.#side, value) ?? value;
    const plant = this.#what.plant?.(access, this.#side, value) ?? null;
    if (plant === "late") {
      this.#late.push({ access, value });
      return;
    }
    this.#write(access, value, plant === "plain");
    this.#flushLate();
  }

  wait(flag: number): void {
    this.#perform({ kind: "wait", atomic: true, at: flag, size: 0 }, () => {
      this.#state.flags[flag] = false;
      return 0;
    });
  }

  signal(flag: number): void {
    this.#perform({ kind: "signal", atomic: true, at: flag, size: 0 }, () => {
      this.#state.flags[flag] = true;
      return 0;
    });
  }

  checkpoint(note: string): void {
    this.#flushLate();
    if (this.#count < this.#logged) throw new Error("a checkpoint in the middle of a log");
    this.#state.notes[this.#side] = note;
    this.#state.logs[this.#side]!.length = 0;
    this.#count = this.#logged = 0;
    this.#stepped = true;
  }

  offline(body: (memory: GuestMemory) => void): void {
    this.#offline = true;
    try {
      body(new GuestMemory([{ base: 0, buffer: this.#own.buffer }]));
    } finally {
      this.#offline = false;
    }
  }

  #flushLate(): void {
    for (const { access, value } of this.#late.splice(0)) this.#write(access, value, false);
  }

  #write(access: Access, value: number, plain: boolean): void {
    this.#perform(access, () => {
      put(this.#state.bytes, access.at, access.size, value);
      return 0;
    }, plain);
  }

  #perform(access: Access, action: () => number, plain = false): number {
    const state = this.#state;
    const side = this.#side;
    const log = state.logs[side]!;
    const index = this.#count++;
    if (index < this.#logged) return log[index]!;
    const racy = access.atomic ? null : this.#what.racy(access, side);
    if (access.atomic || racy !== null) {
      if (this.#stepped) {
        state.next[side] = access;
        throw SUSPEND;
      }
      this.#stepped = true;
    }
    const value = action();
    log.push(value);
    state.trace = { before: state.trace, side, access, value };
    if (access.size > 0) this.#order(access, racy, plain);
    return value;
  }

  /** Happens-before: what this access must not race with, and what it makes known. */
  #order(access: Access, racy: readonly [number, number] | null, plain: boolean): void {
    const { last, released, knows, clocks } = this.#state;
    const side = this.#side;
    const other = 1 - side;
    const { at, size } = access;
    const writes = access.kind === "store";
    const atomic = access.atomic && !plain;
    const publishes = atomic && writes && this.#what.publishes(access);
    // What orders nothing and races with nothing does not count, so that a look in vain leaves no trace.
    if (publishes || !atomic) clocks[side]!++;
    const now = clocks[side]!;
    for (let i = at; i < at + size; i++) {
      // What is racy by design is not held against the accesses that it races with.
      if (racy !== null && i >= racy[0] && i < racy[1]) continue;
      {
        // Two atomic accesses never race.
        let newest = last[8 * i + 2 * 1 + other]!;
        if (writes) newest = Math.max(newest, last[8 * i + other]!);
        if (!atomic) newest = Math.max(newest, last[8 * i + 2 * 3 + other]!);
        if (!atomic && writes) newest = Math.max(newest, last[8 * i + 2 * 2 + other]!);
        if (newest > knows[side]!) {
          throw new InterleavingError(`a data race on byte ${i}: ${show(side, access)}`);
        }
      }
      // What is racy by design is not held against the accesses that it races with.
      if (!racy && (!atomic || publishes)) {
        last[8 * i + 2 * ((atomic ? 2 : 0) + (writes ? 1 : 0)) + side] = now;
      }
    }
    if (writes) {
      for (let i = Math.max(0, at - 3); i < at + size; i++) {
        if (i + released[4 * i + 2]! > at) released[4 * i + 2] = 0;
      }
      if (publishes) {
        released[4 * at + side] = now;
        released[4 * at + other] = knows[side]!;
        released[4 * at + 2] = size;
        released[4 * at + 3] = side;
      }
    } else if (atomic) {
      for (let i = Math.max(0, at - 3); i < at + size; i++) {
        const width = released[4 * i + 2]!;
        if (width === 0 || i + width <= at || released[4 * i + 3] === side) continue;
        if (i === at && width === size) {
          knows[side] = Math.max(knows[side]!, released[4 * i + other]!);
        } else {
          throw new InterleavingError(
            `${
              show(side, access)
            } meets an atomic store of ${width} bytes at ${i}: atomics of unequal ranges order nothing`,
          );
        }
      }
    }
  }
}

function put(bytes: Uint8Array, at: number, size: number, value: number): void {
  for (let i = 0; i < size; i++) bytes[at + i] = Math.floor(value / 2 ** (8 * i));
}

/**
 * Explores every order.
 *
 * @throws {InterleavingError} If in some order both sides wait for ever, accesses race, or a program throws; with the steps
 * that lead there.
 */
export function explore(what: Exploration): Explored {
  return traced(() => exploreTraced(what));
}

function exploreTraced(what: Exploration): Explored {
  const start: State = {
    bytes: new Uint8Array(what.bytes),
    flags: new Array<boolean>(FLAGS).fill(false),
    notes: [null, null],
    clocks: [0, 0],
    logs: [[], []],
    knows: [0, 0],
    last: new Int32Array(8 * what.bytes),
    released: new Int32Array(4 * what.bytes),
    done: [false, false],
    next: [null, null],
    trace: null,
  };
  const seen = new Set<number>();
  const stack: State[] = [start];
  const limit = what.limit ?? 1_000_000;
  let ends = 0;
  while (stack.length > 0) {
    const state = stack.pop()!;
    if (state.done[0]) {
      ends++;
      continue;
    }
    let moved = false;
    for (const side of [0, 1]) {
      const next = state.next[side]!;
      if (state.done[side]) continue;
      if (next?.kind === "wait" && !state.flags[next.at]) continue;
      moved = true;
      const after = copy(state);
      try {
        new Runner(what, after, side).run();
      } catch (error) {
        throw explain(after, error);
      }
      const key = keyOf(after);
      if (seen.has(key)) continue;
      seen.add(key);
      stack.push(after);
    }
    if (!moved) throw explain(state, new InterleavingError("both sides wait for ever"));
    if (seen.size > limit) throw new Error(`More than ${limit} states: make the case smaller`);
  }
  return { states: seen.size, ends };
}

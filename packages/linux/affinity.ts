import { check, fixedBytes, loadLibc } from "./libc.ts";

const SYMBOLS = {
  sched_setaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
  sched_getaffinity: { parameters: ["i32", "usize", "buffer"], result: "i32" },
} as const;

/** Bytes of `cpu_set_t`. */
const SET_SIZE = 128;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** Processors that this thread may run on. */
export function threadProcessors(): number[] {
  const set = fixedBytes(SET_SIZE);
  check(libc().sched_getaffinity(0, BigInt(SET_SIZE), set), "sched_getaffinity");
  const found: number[] = [];
  for (let cpu = 0; cpu < 8 * SET_SIZE; cpu++) {
    if ((set[cpu >> 3]! & (1 << (cpu & 7))) !== 0) found.push(cpu);
  }
  return found;
}

/**
 * Has this thread, a worker's for instance, run on these processors alone.
 *
 * @throws {RangeError} If there is none, or a number cannot be one.
 * @throws {SystemError} If the machine has none of them.
 */
export function pinThread(processors: readonly number[]): void {
  const set = fixedBytes(SET_SIZE);
  for (const cpu of processors) {
    if (!(Number.isInteger(cpu) && cpu >= 0 && cpu < 8 * SET_SIZE)) {
      throw new RangeError(`There is no processor ${cpu}`);
    }
    set[cpu >> 3]! |= 1 << (cpu & 7);
  }
  if (processors.length === 0) {
    throw new RangeError("A thread needs a processor: give one at least");
  }
  check(libc().sched_setaffinity(0, BigInt(SET_SIZE), set), "sched_setaffinity");
}

import { loadLibc } from "./libc.ts";

const SYMBOLS = {
  gettid: { parameters: [], result: "i32" },
  tgkill: { parameters: ["i32", "i32", "i32"], result: "i32" },
} as const;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** The system's number of this thread: each worker has one. */
export function threadId(): number {
  return libc().gettid();
}

/**
 * Whether a thread of this process is still there. One that is not touches no memory any more, and nothing that it began with
 * io_uring is under way: the system waits for that before a thread is gone.
 *
 * @param id What `threadId` told there.
 */
export function threadExists(id: number): boolean {
  // No signal is sent, only asked whether one could be.
  return libc().tgkill(Deno.pid, id, 0) === 0;
}

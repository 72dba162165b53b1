import { closeDescriptor, openDescriptor, OpenFlag } from "./descriptor.ts";
import { Errno, SystemError } from "./errno.ts";
import { errno, loadLibc } from "./libc.ts";

const SYMBOLS = { flock: { parameters: ["i32", "i32"], result: "i32" } } as const;

const LOCK_EX = 2;
const LOCK_NB = 4;
const LOCK_UN = 8;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/**
 * Takes a lock that other processes see, and that ends with this one however it ends: a file of its own.
 *
 * @returns What gives it back and removes the file; null if another process, or this one, has the lock.
 * @throws {SystemError} If the system refuses.
 */
export function lockFile(path: string): (() => void) | null {
  for (;;) {
    const descriptor = openDescriptor(path, OpenFlag.readWrite | OpenFlag.create);
    if (libc().flock(descriptor, LOCK_EX | LOCK_NB) !== 0) {
      const code = errno();
      closeDescriptor(descriptor);
      if (code === Errno.EAGAIN) return null;
      throw new SystemError("flock", code, path);
    }
    // Whoever had it may have removed the file between the two calls: then this locks a file that nobody finds.
    if (isAt(descriptor, path)) {
      return () => {
        try {
          Deno.removeSync(path);
        } catch {
          // Somebody did it already.
        }
        // A process that this one is just starting has the descriptor too, for a moment.
        libc().flock(descriptor, LOCK_UN);
        closeDescriptor(descriptor);
      };
    }
    closeDescriptor(descriptor);
  }
}

function isAt(descriptor: number, path: string): boolean {
  try {
    const file = Deno.statSync(`/proc/self/fd/${descriptor}`);
    const there = Deno.statSync(path);
    return file.ino === there.ino && file.dev === there.dev;
  } catch {
    return false;
  }
}

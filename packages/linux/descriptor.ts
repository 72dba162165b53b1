import { check, cString, errno, loadLibc } from "./libc.ts";
import { Errno } from "./errno.ts";

const SYMBOLS = {
  open: { parameters: ["buffer", "i32", "u32"], result: "i32" },
  close: { parameters: ["i32"], result: "i32" },
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
} as const;

const F_GETFD = 1;
const F_GETFL = 3;
const F_SETFL = 4;
const F_DUPFD_CLOEXEC = 1030;

let symbols: ReturnType<typeof loadLibc<typeof SYMBOLS>> | null = null;
const libc = (): NonNullable<typeof symbols> => symbols ??= loadLibc(SYMBOLS);

/** Flags of `openDescriptor`. */
export const OpenFlag: Readonly<
  Record<"readOnly" | "readWrite" | "create" | "nonblocking" | "direct" | "directory", number>
> = {
  readOnly: 0,
  readWrite: 2,
  create: 0o100,
  nonblocking: 0o4000,
  /** Past the page cache (O_DIRECT). Its number depends on the processor. */
  direct: typeof Deno !== "undefined" && Deno.build.arch === "aarch64" ? 0o200000 : 0o40000,
  directory: typeof Deno !== "undefined" && Deno.build.arch === "aarch64" ? 0o40000 : 0o200000,
};

const O_CLOEXEC = 0o2000000;

/**
 * Opens a file by path; closed in programs that are started.
 *
 * @param flags Of `OpenFlag`, joined.
 * @returns The descriptor.
 * @throws {SystemError} If the system refuses.
 */
export function openDescriptor(path: string, flags: number, mode = 0o600): number {
  return check(libc().open(cString(path), flags | O_CLOEXEC, mode), "open", path);
}

/** Closes a descriptor. Nothing happens if it is not open. */
export function closeDescriptor(descriptor: number): void {
  if (descriptor >= 0) libc().close(descriptor);
}

/**
 * Another descriptor for the same thing, closed in programs that are started.
 *
 * @throws {SystemError} If there are too many.
 */
export function duplicateDescriptor(descriptor: number): number {
  return check(libc().fcntl(descriptor, F_DUPFD_CLOEXEC, 0n), "fcntl");
}

/** Whether a number is an open descriptor. */
export function isDescriptor(descriptor: number): boolean {
  return libc().fcntl(descriptor, F_GETFD, 0n) >= 0 || errno() !== Errno.EBADF;
}

/**
 * Has reads and writes return at once where they would wait. Descriptors of other processes for the same open file, socket or
 * event file are concerned too.
 *
 * @throws {SystemError} If it is not open.
 */
export function setNonblocking(descriptor: number): void {
  const flags = check(libc().fcntl(descriptor, F_GETFL, 0n), "fcntl");
  if ((flags & OpenFlag.nonblocking) === 0) {
    check(libc().fcntl(descriptor, F_SETFL, BigInt(flags | OpenFlag.nonblocking)), "fcntl");
  }
}

/** What a descriptor is of: an event file, a pipe, a socket, or another thing. */
export function descriptorKind(descriptor: number): "event" | "pipe" | "socket" | "other" {
  const target = linkOf(descriptor);
  if (target === EVENT_FILE) return "event";
  if (target.startsWith("pipe:")) return "pipe";
  return target.startsWith("socket:") ? "socket" : "other";
}

/**
 * A text that is the same for descriptors of the same event file, pipe or socket of the system, and no others; null if the
 * system does not tell.
 */
export function descriptorTarget(descriptor: number): string | null {
  const target = linkOf(descriptor);
  if (target === "") return null;
  // All event files share one inode, but have numbers (as of Linux 5.2).
  if (target !== EVENT_FILE) return target;
  try {
    const facts = Deno.readTextFileSync(`/proc/self/fdinfo/${descriptor}`);
    return /^eventfd-id:\s*(\d+)$/m.exec(facts)?.[0] ?? null;
  } catch {
    return null;
  }
}

const EVENT_FILE = "anon_inode:[eventfd]";

function linkOf(descriptor: number): string {
  try {
    return Deno.readLinkSync(`/proc/self/fd/${descriptor}`);
  } catch {
    return "";
  }
}

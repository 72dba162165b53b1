/** The kernel and initial RAM disk of an example's guest. */
import { fetchGuest, type GuestFiles } from "../guest/fetch.ts";
import { buildInitrd, type InitrdParts } from "../guest/initrd.ts";
import { type Progress, RunError } from "./run.ts";

/** Files that boot. */
export interface BootFiles {
  readonly kernel: Uint8Array;
  readonly initrd: Uint8Array;
}

/** Reads a file of the user's. @throws {RunError} If it cannot be read. */
export async function readUserFile(path: string): Promise<Uint8Array> {
  try {
    return await Deno.readFile(path);
  } catch (error) {
    throw new RunError(`${path} cannot be read: ${(error as Error).message}`);
  }
}

/** Gets Debian's kernel, modules and busybox. @throws {FetchError} Where there are none to be had. */
export async function guestParts(progress: Progress): Promise<GuestFiles> {
  const files = await fetchGuest({ progress: (line) => progress.detail(line) });
  progress.step(`kernel ${files.kernelRelease}, as Debian ships it`);
  return files;
}

/**
 * Gets kernel and initial RAM disk.
 *
 * @param kernel Path of a kernel of the user's.
 * @param parts What the RAM disk of ours has beside what every guest has.
 * @throws {FetchError} Where there are none to be had.
 */
export async function bootFiles(
  progress: Progress,
  kernel: string | null = null,
  parts: Partial<InitrdParts> = {},
): Promise<BootFiles> {
  const own = kernel === null ? null : await readUserFile(kernel);
  const files = await guestParts(progress);
  return { kernel: own ?? files.kernel, initrd: buildInitrd({ ...files, ...parts }) };
}

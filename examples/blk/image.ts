/** The disk image of a run: the user's own, or one that lives as long as the run. */
import { FileBackend } from "@virtio/blk/file";
import type { Options } from "./options.ts";

/** An open image. */
export interface Image extends Disposable {
  /** Path, for the host's own look. */
  readonly path: string;
  /** What the device works on. */
  readonly backend: FileBackend;
  /** Whether it is the example's own and empty. */
  readonly scratch: boolean;
}

const CACHE = new URL("../../.cache/", import.meta.url).pathname;

/**
 * Opens the image that the user named, or makes one.
 *
 * @throws {ImageError} If the user's image cannot be a disk; it is untouched then.
 */
export function openImage(options: Options): Image {
  if (options.image !== null && options.vhostUser !== null) return othersImage(options.image);
  if (options.image !== null) {
    const backend = FileBackend.open(options.image, { readonly: options.readonly });
    return {
      path: options.image,
      backend,
      scratch: false,
      [Symbol.dispose]: () => backend.close(),
    };
  }
  Deno.mkdirSync(CACHE, { recursive: true });
  const path = Deno.makeTempFileSync({ dir: CACHE, prefix: "example-blk-", suffix: ".raw" });
  Deno.removeSync(path);
  const size = Math.max(64, 4 * options.megabytes) * 2 ** 20;
  const backend = FileBackend.open(path, { create: true, size });
  return {
    path,
    backend,
    scratch: true,
    [Symbol.dispose]: () => {
      backend.close();
      Deno.removeSync(path);
    },
  };
}

/** The image of another program's disk: only to be looked at, and locked by that program. */
function othersImage(path: string): Image {
  const backend = FileBackend.open(path, { readonly: true, lock: false });
  return { path, backend, scratch: false, [Symbol.dispose]: () => backend.close() };
}

/**
 * The host's own look at a disk image: reads files out of its ext2, ext3 or ext4 file system without mounting it, by
 * e2fsprogs compiled to WebAssembly (package ext2fs), which knows nothing of this project.
 */
import { createHash } from "node:crypto";
import { withMountedDisk } from "ext2fs";

/** What `ext2fs` reads and writes through. */
interface Disk {
  read(
    buffer: Uint8Array,
    bufferOffset: number,
    length: number,
    position: number,
  ): Promise<{ bytesRead: number; buffer: Uint8Array }>;
  write(
    buffer: Uint8Array,
    bufferOffset: number,
    length: number,
    position: number,
  ): Promise<{ bytesWritten: number; buffer: Uint8Array }>;
  discard(offset: number, length: number): Promise<void>;
  flush(): Promise<void>;
  getCapacity(): Promise<number>;
}

/** The part of `ext2fs` that is used here; the package brings no types. */
interface Ext2Files {
  readonly promises: {
    open(path: string, flags: string): Promise<{
      read(
        buffer: Uint8Array,
        offset: number,
        length: number,
        position: number,
      ): Promise<{ bytesRead: number }>;
      close(): Promise<void>;
    }>;
  };
}

/** An image as a disk that takes no writes: mounting counts itself in the superblock, which must not reach the image. */
function readOnlyDisk(file: Deno.FsFile): Disk {
  return {
    read(buffer, bufferOffset, length, position) {
      file.seekSync(position, Deno.SeekMode.Start);
      let bytesRead = 0;
      while (bytesRead < length) {
        const at = bufferOffset + bytesRead;
        const n = file.readSync(buffer.subarray(at, bufferOffset + length));
        if (n === null) break;
        bytesRead += n;
      }
      return Promise.resolve({ bytesRead, buffer });
    },
    write: (buffer, _offset, length) => Promise.resolve({ bytesWritten: length, buffer }),
    discard: () => Promise.resolve(),
    flush: () => Promise.resolve(),
    getCapacity: () => Promise.resolve(file.statSync().size),
  };
}

/**
 * The SHA-256 of files in the image's file system, in hexadecimal digits.
 *
 * @param image Path of a raw image with an ext2, ext3 or ext4 file system.
 * @param paths Absolute paths of files there.
 * @throws {Error} If there is no such file system, or no such file.
 */
export async function hashFilesInImage(image: string, paths: string[]): Promise<string[]> {
  using file = Deno.openSync(image, { read: true });
  const hashes: string[] = [];
  const piece = new Uint8Array(2 ** 20);
  await withMountedDisk(readOnlyDisk(file), 0, async ({ promises: fs }: Ext2Files) => {
    for (const path of paths) {
      const handle = await fs.open(path, "r");
      const hash = createHash("sha256");
      for (let at = 0;;) {
        const { bytesRead } = await handle.read(piece, 0, piece.length, at);
        if (bytesRead === 0) break;
        hash.update(piece.subarray(0, bytesRead));
        at += bytesRead;
      }
      await handle.close();
      hashes.push(hash.digest("hex"));
    }
  });
  return hashes;
}

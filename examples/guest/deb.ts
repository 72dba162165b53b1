/** Takes single files out of Debian packages, without installing or unpacking the rest. */
import { FetchError } from "./apt.ts";

const BLOCK = 512;

/** Reads exact amounts from a stream of chunks. */
class ByteStream {
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #chunk = new Uint8Array(0);

  constructor(stream: ReadableStream<Uint8Array>) {
    this.#reader = stream.getReader();
  }

  /** The next `length` bytes, or null at the end. */
  async take(length: number): Promise<Uint8Array | null> {
    const bytes = new Uint8Array(length);
    let done = 0;
    while (done < length) {
      if (!await this.#fill()) return null;
      const part = this.#chunk.subarray(0, length - done);
      bytes.set(part, done);
      done += part.length;
      this.#chunk = this.#chunk.subarray(part.length);
    }
    return bytes;
  }

  /** Passes over `length` bytes. */
  async skip(length: number): Promise<void> {
    let left = length;
    while (left > 0 && await this.#fill()) {
      const part = Math.min(left, this.#chunk.length);
      this.#chunk = this.#chunk.subarray(part);
      left -= part;
    }
  }

  async #fill(): Promise<boolean> {
    while (this.#chunk.length === 0) {
      const { value, done } = await this.#reader.read();
      if (done) return false;
      this.#chunk = value as Uint8Array<ArrayBuffer>;
    }
    return true;
  }
}

/** Text up to the first NUL. */
function text(bytes: Uint8Array): string {
  const end = bytes.indexOf(0);
  return new TextDecoder().decode(end < 0 ? bytes : bytes.subarray(0, end));
}

/**
 * Reads a tar archive and keeps the regular files that `wanted` accepts.
 *
 * @param wanted Given the path without a leading `./`.
 */
export async function readTar(
  stream: ReadableStream<Uint8Array>,
  wanted: (path: string) => boolean,
): Promise<Map<string, Uint8Array>> {
  const files = new Map<string, Uint8Array>();
  const input = new ByteStream(stream);
  let longName: string | null = null;
  for (;;) {
    const header = await input.take(BLOCK);
    if (header === null) return files;
    if (header.every((byte) => byte === 0)) continue;
    const size = parseInt(text(header.subarray(124, 136)), 8) || 0;
    const padded = Math.ceil(size / BLOCK) * BLOCK;
    const type = String.fromCharCode(header[156]!);
    const prefix = text(header.subarray(257, 263)).startsWith("ustar")
      ? text(header.subarray(345, 500))
      : "";
    const short = text(header.subarray(0, 100));
    const name = (longName ?? (prefix === "" ? short : `${prefix}/${short}`)).replace(/^\.\//, "");
    longName = null;
    if (type === "L") { // GNU: the name of the next entry
      longName = text(await input.take(padded) ?? new Uint8Array(0));
    } else if ((type === "0" || type === "\0") && wanted(name)) {
      const bytes = await input.take(padded);
      if (bytes === null) return files;
      files.set(name, bytes.slice(0, size));
    } else {
      await input.skip(padded);
    }
  }
}

/**
 * The wanted files of a package.
 *
 * @throws {FetchError} If the package cannot be read.
 */
export async function readDeb(
  path: string,
  wanted: (path: string) => boolean,
): Promise<Map<string, Uint8Array>> {
  let child: Deno.ChildProcess;
  try {
    child = new Deno.Command("dpkg-deb", {
      args: ["--fsys-tarfile", path],
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
  } catch (error) {
    if (!(error instanceof Deno.errors.NotFound)) throw error;
    throw new FetchError("There is no dpkg-deb on this machine to open Debian packages with");
  }
  const errors = new Response(child.stderr).text();
  const files = await readTar(child.stdout, wanted);
  const message = await errors;
  if (!(await child.status).success) {
    throw new FetchError(`dpkg-deb cannot open ${path}: ${message.trim().split("\n")[0]}`);
  }
  return files;
}

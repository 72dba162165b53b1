/**
 * The half of `OpfsBackend` that runs in a worker: there browsers give files synchronous access, without copying a file as a
 * whole. A worker's module imports this and nothing else.
 *
 * This module is for browsers' workers.
 *
 * @module
 */
import type { OpfsAnswer, OpfsOpen, OpfsRequest } from "./opfs_messages.ts";

/** What is used of a FileSystemSyncAccessHandle. */
interface FileAccess {
  getSize(): number;
  truncate(size: number): void;
  read(bytes: Uint8Array, options: { at: number }): number;
  write(bytes: Uint8Array, options: { at: number }): number;
  flush(): void;
  close(): void;
}

/** A worker's global scope, as far as it is used. */
interface Scope {
  postMessage(message: OpfsAnswer, transfer: ArrayBuffer[]): void;
  addEventListener(type: "message", listener: (event: { data: unknown }) => void): void;
}

/** Zeroes are written in pieces of this. */
const ZEROES = new Uint8Array(1 << 20);

async function open({ path, size }: OpfsOpen): Promise<FileAccess> {
  const names = path.split("/").filter((name) => name !== "");
  const name = names.pop();
  if (name === undefined) throw new TypeError("The path of a disk must name a file");
  let folder = await navigator.storage.getDirectory();
  for (const each of names) {
    folder = await folder.getDirectoryHandle(each, { create: size !== null });
  }
  const file = await folder.getFileHandle(name, { create: size !== null });
  const access = await (file as unknown as { createSyncAccessHandle(): Promise<FileAccess> })
    .createSyncAccessHandle();
  if (access.getSize() > 0 || size === null) return access;
  access.truncate(size);
  const got = access.getSize();
  if (got === size) return access;
  // Private windows keep files in memory, and say nothing.
  access.close();
  throw new RangeError(`The browser gives ${got} of ${size} bytes: is this a private window?`);
}

function answer(access: FileAccess, request: OpfsRequest): Uint8Array<ArrayBuffer> | null {
  const { position, length } = request;
  switch (request.opfs) {
    case "read": {
      const bytes = new Uint8Array(length);
      const count = access.read(bytes, { at: position });
      if (count !== length) throw new RangeError(`Read ${count} of ${length} bytes`);
      return bytes;
    }
    case "write":
      writeAll(access, request.bytes!, position);
      return null;
    case "zero":
      for (let done = 0; done < length; done += ZEROES.length) {
        const count = Math.min(ZEROES.length, length - done);
        writeAll(access, ZEROES.subarray(0, count), position + done);
      }
      return null;
    case "flush":
      access.flush();
      return null;
    case "resize":
      access.truncate(position);
      return null;
    case "close":
      access.flush();
      access.close();
      return null;
  }
}

function writeAll(access: FileAccess, bytes: Uint8Array, at: number): void {
  const count = access.write(bytes, { at });
  if (count !== bytes.length) throw new RangeError(`Wrote ${count} of ${bytes.length} bytes`);
}

function failed(id: number, error: unknown): OpfsAnswer {
  const { name, message } = error instanceof Error
    ? error
    : { name: "Error", message: String(error) };
  return { opfs: "failed", id, size: 0, bytes: null, name, message };
}

const scope = globalThis as unknown as Scope;
let access: Promise<FileAccess> | null = null;
scope.addEventListener("message", async ({ data }) => {
  const message = data as OpfsOpen | OpfsRequest;
  const id = message.opfs === "open" ? 0 : message.id;
  try {
    if (message.opfs === "open") {
      access = open(message);
      const size = (await access).getSize();
      scope.postMessage({ opfs: "opened", id, size, bytes: null, name: "", message: "" }, []);
      return;
    }
    if (access === null) throw new TypeError("No file was opened");
    // Messages come in order, and so do the answers: everything from here on is done at once.
    const bytes = answer(await access, message);
    scope.postMessage(
      { opfs: "done", id, size: 0, bytes, name: "", message: "" },
      bytes === null ? [] : [bytes.buffer],
    );
  } catch (error) {
    scope.postMessage(failed(id, error), []);
  }
});

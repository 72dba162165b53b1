/** Our own driver in a worker, before a device in another one: the run of example:blk, while its main thread does nothing. */
import { FileBackend } from "@virtio/blk/file";
import type { Options } from "../../blk/options.ts";
import { runTs } from "../../blk/ts_guest.ts";
import type { FromGuest } from "./guest.ts";

/** What is to be run. */
export interface BlkGuestData {
  readonly options: Options;
  readonly path: string;
  readonly scratch: boolean;
}

self.addEventListener("message", (event) => {
  const { options, path, scratch } = (event as MessageEvent<BlkGuestData>).data;
  const post = (message: FromGuest): void =>
    (self as unknown as { postMessage(message: FromGuest): void }).postMessage(message);
  const progress = {
    step: (line: string) => post({ step: line }),
    detail: (line: string) => post({ detail: line }),
  };
  // Whoever made this worker holds the lock of the image.
  const backend = FileBackend.open(path, { readonly: options.readonly, lock: false });
  const image = { path, backend, scratch, [Symbol.dispose]: () => backend.close() };
  runTs(options, image, progress).then(
    (outcome) => post({ outcome }),
    (error) => post({ error: String(error) }),
  ).finally(() => backend.close());
});

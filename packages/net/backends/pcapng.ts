/**
 * Captures of frames, as files that Wireshark and tshark read (pcapng), with the device, the direction and the queue of each
 * frame, and what its net header says.
 *
 * The writer runs everywhere; `openPcapng` needs Deno.
 *
 * @module
 */
import { type PcapngOptions, PcapngWriter } from "./pcapng_writer.ts";

export { type PcapngOptions, PcapngWriter } from "./pcapng_writer.ts";
export type { Direction, FrameTap } from "../options.ts";

/** Milliseconds after which what was captured is in the file, for those who watch. */
const FLUSH_EVERY = 200;

/** A capture in a file. */
export interface PcapngFile {
  /** The capture: `add` gives the taps. */
  readonly writer: PcapngWriter;
  /** Writes the rest, and closes the file. What the taps see afterwards is nowhere. */
  close(): void;
}

/**
 * Begins a capture in a file; one that is there is replaced. Needs Deno, and the permission to write the file.
 *
 * If the disk is full the capture ends, and nothing else: `onError` is told.
 *
 * @param onError Told if the file takes no more; it is called once.
 * @throws What `Deno.openSync` throws if the file cannot be made.
 *
 * @example
 * ```ts
 * import { openPcapng } from "@virtio/net/pcapng";
 * import { assertEquals } from "@std/assert";
 *
 * const path = await Deno.makeTempFile();
 * const capture = openPcapng(path);
 * capture.writer.add("guest 1");
 * capture.close();
 * assertEquals((await Deno.readFile(path)).length, capture.writer.bytes);
 * await Deno.remove(path);
 * ```
 */
export function openPcapng(
  path: string,
  options: PcapngOptions = {},
  onError: (error: unknown) => void = () => {},
): PcapngFile {
  const file = Deno.openSync(path, { write: true, create: true, truncate: true });
  let open = true;
  const end = (): void => {
    if (!open) return;
    open = false;
    clearInterval(timer);
    file.close();
  };
  const writer = new PcapngWriter((bytes) => {
    if (!open) return;
    try {
      for (let done = 0; done < bytes.length;) done += file.writeSync(bytes.subarray(done));
    } catch (error) {
      end();
      onError(error);
    }
  }, options);
  const timer = setInterval(() => writer.flush(), FLUSH_EVERY);
  // A capture is no reason to go on.
  Deno.unrefTimer(timer);
  return {
    writer,
    close: () => {
      writer.flush();
      end();
    },
  };
}

/** GET_CONFIG and SET_CONFIG. */
import { decodeConfig, encodeConfig } from "../protocol/payloads.ts";
import type { Served } from "./served.ts";

/** What GET_CONFIG answers: what lies beyond the device's configuration is 0, as for a driver that expects more. */
export function readConfig(served: Served, request: Uint8Array): Uint8Array {
  const { offset, flags, bytes } = decodeConfig(request);
  const config = served.config();
  bytes.fill(0);
  if (offset < config.length) bytes.set(config.subarray(offset, offset + bytes.length));
  return encodeConfig({ offset, flags, bytes });
}

/** The driver's writes to the configuration, as it would do them: by 1, 2 or 4 bytes. The device ignores what it must. */
export function writeConfig(served: Served, request: Uint8Array): void | Promise<void> {
  const { offset, bytes } = decodeConfig(request);
  const view = new DataView(bytes.buffer);
  let done: void | Promise<void> = undefined;
  for (let at = 0; at < bytes.length;) {
    const left = bytes.length - at;
    const size = left >= 4 && (offset + at) % 4 === 0
      ? 4
      : left >= 2 && (offset + at) % 2 === 0
      ? 2
      : 1;
    const value = size === 4
      ? view.getUint32(at, true)
      : size === 2
      ? view.getUint16(at, true)
      : bytes[at]!;
    const from = offset + at;
    if (done === undefined) done = served.writeConfig(from, size, value);
    else done = done.then(() => served.writeConfig(from, size, value));
    at += size;
  }
  return done;
}

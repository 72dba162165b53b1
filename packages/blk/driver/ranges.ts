import { RANGE_SIZE } from "../constants.ts";
import type { BlkRangeInfo } from "./limits.ts";

/** A range of sectors. */
export interface BlkRange {
  /** First sector, of 512 bytes. */
  readonly sector: number;
  /** How many. */
  readonly sectors: number;
}

/** Pieces of one call at most: the device says how small they are, and it may say anything. */
const MOST_PIECES = 2 ** 20;

/**
 * The data of the requests that name these ranges, cut as the device's limits say.
 *
 * @param most Bytes of one request at most.
 * @throws {RangeError} If the device's limits make too many requests of them.
 */
export function rangeRequests(
  ranges: readonly BlkRange[],
  limits: BlkRangeInfo,
  flags: number,
  most: number,
): Uint8Array[] {
  const pieces: BlkRange[] = [];
  const count = ranges.reduce(
    (sum, { sectors }) => sum + Math.ceil(sectors / limits.maxSectors),
    0,
  );
  if (count > MOST_PIECES) {
    throw new RangeError(
      `The device takes ${limits.maxSectors} sectors in a range: name less than ${MOST_PIECES} times that at once`,
    );
  }
  for (const { sector, sectors } of ranges) {
    for (let done = 0; done < sectors; done += limits.maxSectors) {
      const part = Math.min(limits.maxSectors, sectors - done);
      pieces.push({ sector: sector + done, sectors: part });
    }
  }
  const step = Math.min(limits.maxSegments, Math.floor(most / RANGE_SIZE));
  const requests: Uint8Array[] = [];
  for (let at = 0; at < pieces.length; at += step) {
    requests.push(encodeRanges(pieces.slice(at, at + step), flags));
  }
  return requests;
}

function encodeRanges(ranges: readonly BlkRange[], flags: number): Uint8Array {
  const bytes = new Uint8Array(RANGE_SIZE * ranges.length);
  const view = new DataView(bytes.buffer);
  ranges.forEach(({ sector, sectors }, i) => {
    view.setUint32(RANGE_SIZE * i, sector % 0x1_0000_0000, true);
    view.setUint32(RANGE_SIZE * i + 4, Math.floor(sector / 0x1_0000_0000), true);
    view.setUint32(RANGE_SIZE * i + 8, sectors, true);
    view.setUint32(RANGE_SIZE * i + 12, flags, true);
  });
  return bytes;
}

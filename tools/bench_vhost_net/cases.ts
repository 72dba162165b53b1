/** What bench:vhost-net sends through each device. */

/** One kind of load. */
export interface Case {
  /** The format of the rings. */
  readonly packed: boolean;
  /** Bytes of a frame. */
  readonly bytes: number;
}

/** All of them. */
export const CASES: readonly Case[] = [false, true].flatMap((packed) =>
  [64, 1514].map((bytes) => ({ packed, bytes }))
);

/** The case for people. */
export function nameOf({ packed, bytes }: Case): string {
  return `${packed ? "packed" : "split"}, ${bytes} bytes`;
}

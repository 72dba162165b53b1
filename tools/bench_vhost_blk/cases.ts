/** What bench:vhost-blk does to each server. */

/** One kind of load. */
export interface Case {
  readonly direction: "read" | "write";
  readonly order: "random" | "sequential";
  /** Bytes of a request. */
  readonly bytes: number;
  /** Requests in flight, of each queue. */
  readonly depth: number;
  readonly queues: number;
  /** Past the page cache. */
  readonly direct: boolean;
}

function small(
  direction: "read" | "write",
  depth: number,
  queues: number,
  direct: boolean,
): Case {
  return { direction, order: "random", bytes: 4096, depth, queues, direct };
}

function large(direction: "read" | "write", direct: boolean): Case {
  return { direction, order: "sequential", bytes: 131072, depth: 4, queues: 1, direct };
}

/** All of them. */
export const CASES: readonly Case[] = [
  ...[1, 32, 128].map((depth) => small("read", depth, 1, true)),
  ...[1, 32, 128].map((depth) => small("write", depth, 1, true)),
  large("read", true),
  large("write", true),
  small("read", 32, 4, true),
  ...[1, 32, 128].map((depth) => small("read", depth, 1, false)),
  large("read", false),
  small("read", 32, 4, false),
  ...[1, 32, 128].map((depth) => small("write", depth, 1, false)),
  large("write", false),
  small("write", 32, 4, false),
];

/** The case for people. */
export function nameOf({ direction, bytes, depth, queues, order }: Case): string {
  return `${bytes / 1024}k ${order} ${direction}, ${
    queues === 1 ? "" : `${queues} queues, `
  }depth ${depth}`;
}

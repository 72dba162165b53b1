import type { IpOutput } from "../ip/packet.ts";
import type { Connection } from "./connection.ts";
import type { RingShares } from "./shares.ts";
import type { Timers } from "./timers.ts";

/** Where a connection is. What RFC 9293 tells apart beyond that follows from which FIN was sent, acknowledged, received. */
export const State = {
  /** The guest's SYN waits until somebody says whether there is a connection. */
  asked: 0,
  /** Our SYN was sent. */
  synSent: 1,
  /** Both SYNs were sent; the guest has not acknowledged ours. */
  synReceived: 2,
  /** Bytes flow, one way at least. */
  open: 3,
  /** All is said; what still comes is answered for a while. */
  timeWait: 4,
  /** Over. */
  closed: 5,
} as const;

/**
 * Why a connection is over: `finished` by both sides in order, `reset` by the guest, `refused` by it, it did not answer for too
 * long (`timeout`), it is `gone`, or it was `aborted` on this side.
 */
export type CloseReason = "finished" | "reset" | "refused" | "timeout" | "gone" | "aborted";

/** Told what happens to a connection. Segments of a batch are handled first, so one call tells of many. */
export interface ConnectionHandler {
  /** The connection stands. */
  opened?(): void;
  /** There are bytes to read, or the guest has said all: see `ended`. */
  readable(): void;
  /** There is more room for bytes to be sent. */
  writable(): void;
  /** Over; `release` it when its buffers are needed no more. What was received can still be read, if it is `finished`. */
  closed(reason: CloseReason): void;
}

/** Milliseconds and counts; see `TcpOptions`. */
export interface ConnectionTimes {
  /** Silence after which the guest is asked whether it is there. */
  readonly keepAliveIdle: number;
  /** Time between such questions. */
  readonly keepAliveInterval: number;
  /** Questions without answer after which it is not. */
  readonly keepAliveProbes: number;
  /** How long all remains in mind after an orderly end. */
  readonly timeWait: number;
}

/** What a connection needs of its engine. */
export interface ConnectionHost {
  readonly output: IpOutput;
  readonly timers: Timers;
  readonly rings: RingShares;
  readonly times: ConnectionTimes;
  readonly counts: Float64Array;
  /** Milliseconds, as of `tick`: in an array, so that no number is boxed. */
  readonly clock: Float64Array;
  /** Reads the clock, once per batch. */
  tick(): void;
  /** Has `flush` called when the batch is done. */
  touch(connection: Connection): void;
  /** It is in TIME-WAIT now. */
  waits(connection: Connection): void;
  /** It is over. */
  remove(connection: Connection): void;
}

/** Indexes of what is counted. */
export const Count = {
  segmentsIn: 0,
  segmentsOut: 1,
  bytesIn: 2,
  bytesOut: 3,
  repeated: 4,
  resets: 5,
};

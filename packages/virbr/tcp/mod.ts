/**
 * TCP's end, without a network around it: for an IP layer of one's own, such as a station of tests.
 *
 * This module is browser compatible.
 *
 * @module
 */
export type { Connection } from "./connection.ts";
export type {
  CloseReason,
  ConnectionHandler,
  ConnectionHost,
  ConnectionTimes,
} from "./connection_types.ts";
export { type Incoming, type TcpCounters, TcpEngine, type TcpOptions } from "./engine.ts";
export type { Timing } from "./timing.ts";

/**
 * Frames over a socket, as QEMU's `-netdev stream` sends them: a QEMU guest, passt, or a switch on another machine. Unix and
 * TCP, server and client. Needs Deno, and the permission for the socket.
 *
 * @module
 */
export type { StreamAddress, StreamOptions } from "./stream_address.ts";
export {
  type Reconnect,
  StreamBackend,
  type StreamClientOptions,
  type StreamCounters,
} from "./stream_backend.ts";
export { StreamError, type StreamProblem } from "./stream_error.ts";
export { StreamServer, type StreamServerOptions } from "./stream_server.ts";

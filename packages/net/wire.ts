/**
 * Parts for programs that read and make frames themselves: checksums, where the headers of a frame are, MAC addresses, frames
 * that wait, rates.
 *
 * This module is browser compatible.
 *
 * @module
 */
export { type Clock, coarseClock } from "./backends/clock.ts";
export { formatMac, type MacAddress, parseStationMac } from "./backends/mac_address.ts";
export { TokenBucket } from "./backends/token_bucket.ts";
export {
  completeChecksum,
  copyAndSum,
  finish,
  finishUdp,
  fold,
  ipv4HeaderChecksum,
  sumBytes,
} from "./offload/checksum.ts";
export { WaitingFrames } from "./waiting.ts";

import type { Path } from "../ip/packet.ts";
import { type ConnectionHost, Count } from "./connection_types.ts";
import type { Receiver } from "./receiver.ts";
import type { Ring } from "./ring.ts";
import {
  CHECKSUM_OFFSET,
  HEADER_SIZE,
  MAX_SACK_BLOCKS,
  writeHeader,
  writeSackHeader,
  writeSynOptions,
} from "./segment.ts";

/** Writes the segments of one connection, in place, into packets of the IP layer. */
export class Emitter {
  /** The largest payload that fits into a packet. */
  readonly mss: number;
  readonly #host: ConnectionHost;
  readonly #path: Path;
  readonly #localPort: number;
  readonly #guestPort: number;

  /** Makes one for a path. */
  constructor(host: ConnectionHost, path: Path, localPort: number, guestPort: number) {
    this.#host = host;
    this.#path = path;
    this.#localPort = localPort;
    this.#guestPort = guestPort;
    this.mss = path.mtu - path.ipHeaderSize - HEADER_SIZE;
  }

  /**
   * Sends a SYN, with ACK or not.
   *
   * @param scale The shift of our windows; -1 to say nothing of it.
   * @param sack Whether selective acknowledgements are understood.
   */
  syn(
    seq: number,
    ack: number,
    flags: number,
    window: number,
    scale: number,
    sack: boolean,
  ): void {
    const { output } = this.#host;
    if (!output.begin(this.#path)) return;
    const { start, view } = output;
    const size = HEADER_SIZE + writeSynOptions(view, start + HEADER_SIZE, this.mss, scale, sack);
    this.#finish(seq, ack, flags, window, size, 0, 0);
  }

  /**
   * Sends a segment without data.
   *
   * @param receiver Whose ranges are told; null for none.
   */
  bare(seq: number, ack: number, flags: number, window: number, receiver: Receiver | null): void {
    const { output } = this.#host;
    if (!output.begin(this.#path)) return;
    let size = HEADER_SIZE;
    const blocks = receiver === null ? 0 : Math.min(MAX_SACK_BLOCKS, receiver.early.count);
    if (blocks > 0) {
      writeBlocks(output.view, output.start + size, blocks, receiver!);
      size += 4 + 8 * blocks;
    }
    this.#finish(seq, ack, flags, window, size, 0, 0);
  }

  /**
   * Sends bytes of a ring, in one frame, segmented on the way if they are more than `mss`.
   *
   * @returns Whether there is a way to the guest.
   */
  data(
    seq: number,
    ack: number,
    flags: number,
    window: number,
    ring: Ring,
    at: number,
    length: number,
    mss: number,
  ): boolean {
    const { output } = this.#host;
    if (!output.begin(this.#path)) return false;
    if (length > 0) ring.read(at, output.buffer, output.start + HEADER_SIZE, length);
    this.#finish(seq, ack, flags, window, HEADER_SIZE, length, length > mss ? mss : 0);
    return true;
  }

  #finish(
    seq: number,
    ack: number,
    flags: number,
    window: number,
    headerSize: number,
    length: number,
    gsoSize: number,
  ): void {
    const { output, counts } = this.#host;
    writeHeader(
      output.view,
      output.start,
      this.#localPort,
      this.#guestPort,
      seq,
      ack,
      flags,
      window,
      headerSize,
    );
    counts[Count.segmentsOut]!++;
    output.finish(headerSize + length, CHECKSUM_OFFSET, gsoSize);
  }
}

/** The block that the last segment went to is the first (RFC 2018, 4). */
function writeBlocks(view: DataView, at: number, blocks: number, receiver: Receiver): void {
  const { early, latest } = receiver;
  writeSackHeader(view, at, blocks);
  const first = latest >= 0 && latest < early.count ? latest : 0;
  for (let i = 0; i < blocks; i++) {
    const index = (first + i) % early.count;
    view.setInt32(at + 4 + 8 * i, early.start(index));
    view.setInt32(at + 8 + 8 * i, early.end(index));
  }
}

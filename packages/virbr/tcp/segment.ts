/** TCP segments as bytes (RFC 9293, 3.1; window scale: RFC 7323; selective acknowledgement: RFC 2018). */

/** No more data from the sender. */
export const FIN = 1;
/** Sequence numbers begin. */
export const SYN = 2;
/** The connection is refused or over. */
export const RST = 4;
/** The receiver should be told at once. */
export const PSH = 8;
/** The acknowledgement number means something. */
export const ACK = 16;

/** Bytes of a header without options. */
export const HEADER_SIZE = 20;
/** Where the checksum is. */
export const CHECKSUM_OFFSET = 16;
/** The most blocks that fit into a header. */
export const MAX_SACK_BLOCKS = 4;

const OPTION_END = 0;
const OPTION_NOP = 1;
const OPTION_MSS = 2;
const OPTION_WINDOW_SCALE = 3;
const OPTION_SACK_PERMITTED = 4;
const OPTION_SACK = 5;
/** A larger shift than this means this (RFC 7323, 2.3). */
const MAX_WINDOW_SCALE = 14;

/**
 * A segment that came in. One object is used again and again; the bytes stay where they are.
 *
 * What is urgent is data like any other (RFC 6093 advises against it); timestamps are not asked for.
 */
export class Segment {
  /** Port of the sender. */
  sourcePort = 0;
  /** Port of the receiver. */
  destinationPort = 0;
  /** Sequence number of the first byte, or of SYN. */
  seq = 0;
  /** Acknowledgement number; see ACK. */
  ack = 0;
  /** FIN, SYN, RST, PSH, ACK. */
  flags = 0;
  /** As it stands there, not scaled. */
  window = 0;
  /** The bytes that `payload` counts in. */
  buffer: Uint8Array = EMPTY;
  /** Where the payload begins. */
  payload = 0;
  /** Bytes of the payload. */
  length = 0;
  /** Largest segment that the sender takes; 0 if it does not say. */
  mss = 0;
  /** Shift of the sender's windows; -1 if it cannot scale. */
  windowScale = -1;
  /** Whether the sender understands selective acknowledgements. */
  sackPermitted = false;
  /** Blocks in `sack`. */
  sackCount = 0;
  /** Start and end of each block. */
  readonly sack: Int32Array = new Int32Array(2 * MAX_SACK_BLOCKS);

  /** Sequence numbers that it takes. */
  get space(): number {
    return this.length + (this.flags & SYN) / SYN + (this.flags & FIN);
  }

  /**
   * Reads a header.
   *
   * @param buffer Holds the segment.
   * @param view The same bytes.
   * @param at Where it begins.
   * @param length Bytes of it.
   * @returns Whether it is one.
   */
  parse(buffer: Uint8Array, view: DataView, at: number, length: number): boolean {
    if (length < HEADER_SIZE) return false;
    const header = (view.getUint8(at + 12) >>> 4) * 4;
    if (header < HEADER_SIZE || header > length) return false;
    this.sourcePort = view.getUint16(at);
    this.destinationPort = view.getUint16(at + 2);
    this.seq = view.getInt32(at + 4);
    this.ack = view.getInt32(at + 8);
    this.flags = view.getUint8(at + 13) & 0x1f;
    this.window = view.getUint16(at + 14);
    this.buffer = buffer;
    this.payload = at + header;
    this.length = length - header;
    this.mss = 0;
    this.windowScale = -1;
    this.sackPermitted = false;
    this.sackCount = 0;
    if (header > HEADER_SIZE) this.#options(view, at + HEADER_SIZE, at + header);
    return true;
  }

  #options(view: DataView, from: number, to: number): void {
    let at = from;
    while (at < to) {
      const kind = view.getUint8(at);
      if (kind === OPTION_END) return;
      if (kind === OPTION_NOP) {
        at++;
        continue;
      }
      if (at + 2 > to) return;
      const size = view.getUint8(at + 1);
      // One that does not fit spoils the rest, not the segment.
      if (size < 2 || at + size > to) return;
      if (kind === OPTION_SACK) this.#blocks(view, at + 2, (size - 2) >> 3);
      else if ((this.flags & SYN) !== 0) {
        if (kind === OPTION_MSS && size === 4) this.mss = view.getUint16(at + 2);
        else if (kind === OPTION_WINDOW_SCALE && size === 3) {
          this.windowScale = Math.min(MAX_WINDOW_SCALE, view.getUint8(at + 2));
        } else if (kind === OPTION_SACK_PERMITTED && size === 2) this.sackPermitted = true;
      }
      at += size;
    }
  }

  #blocks(view: DataView, from: number, count: number): void {
    this.sackCount = Math.min(MAX_SACK_BLOCKS, count);
    for (let i = 0; i < 2 * this.sackCount; i++) this.sack[i] = view.getInt32(from + 4 * i);
  }
}

const EMPTY = new Uint8Array(0);

/** Writes the first 20 bytes of a header; the checksum remains 0, and is the IP layer's business. */
export function writeHeader(
  view: DataView,
  at: number,
  sourcePort: number,
  destinationPort: number,
  seq: number,
  ack: number,
  flags: number,
  window: number,
  headerSize: number,
): void {
  view.setUint16(at, sourcePort);
  view.setUint16(at + 2, destinationPort);
  view.setInt32(at + 4, seq);
  view.setInt32(at + 8, ack);
  view.setUint8(at + 12, headerSize << 2);
  view.setUint8(at + 13, flags);
  view.setUint16(at + 14, window);
  view.setUint32(at + 16, 0);
}

/**
 * Writes the options of a SYN.
 *
 * @param windowScale -1 for none.
 * @returns Bytes that they take.
 */
export function writeSynOptions(
  view: DataView,
  at: number,
  mss: number,
  windowScale: number,
  sackPermitted: boolean,
): number {
  let next = at;
  view.setUint16(next, OPTION_MSS << 8 | 4);
  view.setUint16(next + 2, mss);
  next += 4;
  if (windowScale >= 0) {
    view.setUint32(next, (OPTION_NOP << 24) | (OPTION_WINDOW_SCALE << 16) | (3 << 8) | windowScale);
    next += 4;
  }
  if (sackPermitted) {
    view.setUint32(
      next,
      (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK_PERMITTED << 8) | 2,
    );
    next += 4;
  }
  return next - at;
}

/** Begins an option with blocks; each takes 8 bytes behind these 4. */
export function writeSackHeader(view: DataView, at: number, blocks: number): void {
  view.setUint32(
    at,
    (OPTION_NOP << 24) | (OPTION_NOP << 16) | (OPTION_SACK << 8) | (2 + 8 * blocks),
  );
}

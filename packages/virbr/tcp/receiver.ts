import { Ranges } from "./ranges.ts";
import type { Ring } from "./ring.ts";
import type { Segment } from "./segment.ts";
import { FIN } from "./segment.ts";
import { advance, ahead } from "./sequence.ts";

/** Ranges that may wait for what is before them; what makes one more is dropped, and comes again. */
const MAX_RANGES = 32;

/** What became of a segment's data. */
export const Taken = {
  /** There was none. */
  nothing: 0,
  /** It is next, and nothing is missing. */
  next: 1,
  /** It was there already, or comes out of order, or filled a gap: the sender wants to know at once. */
  odd: 2,
} as const;

/**
 * What comes in on a connection: bytes go to their places in the ring, in order or not, and no further than the ring.
 */
export class Receiver {
  /** The next sequence number that is missing. */
  nxt = 0;
  /** End of the window that the sender was told of. */
  edge = 0;
  /** Shift of the windows that it is told. */
  scale = 0;
  /** Bytes that came since the last acknowledgement. */
  unacknowledged = 0;
  /** The sender's end was reached. */
  finished = false;
  /** What came out of order. */
  readonly early: Ranges = new Ranges(MAX_RANGES);
  /** The range of `early` that the last segment went to; -1 for none. */
  latest = -1;
  /** Whether the number of FIN is known, though what is before it may be missing. */
  #ends = false;
  #end = 0;

  /** Begins behind the sender's SYN. */
  begin(irs: number): void {
    this.nxt = advance(irs, 1);
    this.edge = this.nxt;
  }

  /** The window as it goes into a header; the sender may rely on it from now on. */
  advertise(ring: Ring): number {
    const window = Math.min(0xffff, ring.free >>> this.scale);
    const edge = advance(this.nxt, window << this.scale);
    if (ahead(edge, this.edge) > 0) this.edge = edge;
    this.unacknowledged = 0;
    return window;
  }

  /** The window as it goes into a SYN. */
  advertiseUnscaled(ring: Ring): number {
    const window = Math.min(0xffff, ring.free);
    this.edge = advance(this.nxt, window);
    return window;
  }

  /** Whether so much more room is there than the sender knows of that it is worth telling. */
  shouldOpen(ring: Ring, mss: number): boolean {
    const known = Math.max(0, ahead(this.edge, this.nxt));
    const more = Math.min(ring.free, 0xffff << this.scale) - known;
    // Silly windows are not told (RFC 9293, 3.8.6.2.2).
    return more >= Math.min(ring.size >>> 1, Math.max(2 * mss, ring.size >>> 3));
  }

  /**
   * Takes a segment's data and FIN, which is known to touch the window.
   *
   * @returns One of `Taken`.
   */
  take(segment: Segment, ring: Ring): number {
    const fin = (segment.flags & FIN) !== 0;
    if (segment.length === 0 && !fin) return Taken.nothing;
    if (fin) {
      const end = advance(segment.seq, segment.length);
      if (this.#ends ? end !== this.#end : ahead(end, this.nxt) < 0) return Taken.odd;
      if (ahead(end, this.nxt) > ring.free) return this.#store(segment, ring);
      this.#ends = true;
      this.#end = end;
    }
    const taken = this.#store(segment, ring);
    if (this.#ends && !this.finished && this.nxt === this.#end) {
      this.finished = true;
      this.nxt = advance(this.nxt, 1);
      return Taken.odd;
    }
    return taken;
  }

  #store(segment: Segment, ring: Ring): number {
    if (this.finished) return Taken.odd;
    let skip = ahead(this.nxt, segment.seq);
    if (skip < 0) skip = 0;
    let from = advance(segment.seq, skip);
    let length = segment.length - skip;
    const at = ahead(from, this.nxt);
    let room = ring.free - at;
    // Nothing lies behind the end.
    if (this.#ends) room = Math.min(room, ahead(this.#end, from));
    length = Math.min(length, room);
    if (length <= 0) return Taken.odd;
    const { early } = this;
    this.latest = -1;
    if (at > 0) {
      const index = early.add(from, advance(from, length));
      if (index < 0) return Taken.odd;
      ring.write(ring.used + at, segment.buffer, segment.payload + skip, length);
      this.latest = index;
      return Taken.odd;
    }
    ring.write(ring.used, segment.buffer, segment.payload + skip, length);
    if (early.count === 0) {
      ring.commit(length);
      this.nxt = advance(this.nxt, length);
      this.unacknowledged += length;
      return skip > 0 ? Taken.odd : Taken.next;
    }
    from = advance(this.nxt, length);
    if (ahead(from, early.start(0)) >= 0 && ahead(early.end(0), from) > 0) from = early.end(0);
    length = ahead(from, this.nxt);
    early.dropBefore(from);
    ring.commit(length);
    this.nxt = from;
    this.unacknowledged += length;
    return Taken.odd;
  }
}

import { Ranges } from "./ranges.ts";
import type { Ring } from "./ring.ts";
import { type Segment, SYN } from "./segment.ts";
import { advance, ahead } from "./sequence.ts";

/** Segments that may be out at first (RFC 6928). */
const INITIAL_SEGMENTS = 10;
/** Answers that say the same, from which a loss is concluded (RFC 5681). */
const DUPLICATES = 3;
/** Ranges of what the receiver holds that are remembered. */
const MAX_SACKED = 32;
/** The congestion window never needs to be larger than what is ever out. */
const MAX_WINDOW = 0x100_0000;

/**
 * What goes out on a connection: which bytes were sent, which arrived, how many more may be out (NewReno, RFC 5681 and 6582,
 * with selective acknowledgements, RFC 6675, where the receiver sends them). It decides what is sent next; `Connection` sends.
 */
export class Sender {
  /** Oldest number that was not acknowledged; the ring's first byte. */
  una = 0;
  /** Next number to send; behind `max` while what was lost is sent again. */
  nxt = 0;
  /** Behind the highest number that was sent. */
  max = 0;
  /** Bytes behind `una` that the receiver takes. */
  window = 0;
  /** The largest of those. */
  maxWindow = 0;
  /** Shift of the receiver's windows. */
  scale = 0;
  /** Bytes of the payload of a full segment. */
  mss = 536;
  /** Whether the receiver tells what it holds. */
  sackPermitted = false;
  /** All bytes are in the ring: FIN follows. */
  ending = false;
  /** FIN was acknowledged. */
  ended = false;
  /** Bytes that may be out. */
  congestionWindow = 0;
  /** Times that the same was sent again without any answer. */
  retries = 0;
  /** The segment to be sent: its number and bytes. See `choose`. */
  from = 0;
  length = 0;
  readonly #sacked: Ranges = new Ranges(MAX_SACKED);
  #threshold = MAX_WINDOW;
  #duplicates = 0;
  #recovering = false;
  /** What was out when a loss was last noticed. */
  #recover = 0;
  /** What is missing before this was sent again. */
  #repaired = 0;
  /** Numbers of the segments by which the window was last updated. */
  #windowSeq = 0;
  #windowAck = 0;

  /** Begins with SYN. */
  begin(iss: number): void {
    this.una = iss;
    this.nxt = this.max = advance(iss, 1);
    this.#recover = iss;
  }

  /** SYN was acknowledged. */
  open(segment: Segment): void {
    this.una = this.nxt;
    this.#recover = this.una;
    this.congestionWindow = Math.min(MAX_WINDOW, INITIAL_SEGMENTS * this.mss);
    this.#setWindow(segment);
  }

  /** Whether something is out that was not acknowledged. */
  get outstanding(): boolean {
    return this.una !== this.max;
  }

  /** Bytes in the ring that were not sent, or are to be sent again. */
  unsent(ring: Ring): number {
    return ring.used - ahead(this.nxt, this.una);
  }

  /** Takes over the window of a segment, if none is newer. */
  updateWindow(segment: Segment): boolean {
    const newer = ahead(segment.seq, this.#windowSeq);
    if (newer < 0 || newer === 0 && ahead(segment.ack, this.#windowAck) < 0) return false;
    this.#setWindow(segment);
    return true;
  }

  #setWindow(segment: Segment): void {
    // A SYN's window is not scaled (RFC 7323, 2.2).
    this.window = (segment.flags & SYN) !== 0 ? segment.window : segment.window << this.scale;
    if (this.window > this.maxWindow) this.maxWindow = this.window;
    this.#windowSeq = segment.seq;
    this.#windowAck = segment.ack;
  }

  /** Remembers what the receiver holds. @returns Whether any of it is news. */
  #remember(segment: Segment): boolean {
    const before = this.#sacked.total;
    for (let i = 0; i < segment.sackCount; i++) {
      const start = segment.sack[2 * i]!;
      const end = segment.sack[2 * i + 1]!;
      // Blocks before `una` tell of duplicates (RFC 2883); others that were never sent tell lies.
      if (
        ahead(start, this.una) > 0 && ahead(end, start) > 0 && ahead(end, this.max) <= 0
      ) this.#sacked.add(start, end);
    }
    return this.#sacked.total !== before;
  }

  /**
   * Takes an acknowledgement, which is known not to be beyond `max`.
   *
   * @param duplicate Whether the segment had nothing else to say.
   * @returns Bytes and FIN that it acknowledges for the first time.
   */
  acknowledge(segment: Segment, ring: Ring, duplicate: boolean): number {
    const acked = ahead(segment.ack, this.una);
    if (acked < 0) return 0;
    const news = this.sackPermitted && segment.sackCount > 0 && this.#remember(segment);
    if (acked === 0) {
      if (this.outstanding && (news || duplicate && !this.sackPermitted)) this.#duplicate();
      return 0;
    }
    this.una = segment.ack;
    if (ahead(this.nxt, this.una) < 0) this.nxt = this.una;
    if (acked > ring.used) this.ended = true;
    ring.consume(Math.min(acked, ring.used));
    this.#sacked.dropBefore(this.una);
    this.retries = 0;
    this.#duplicates = 0;
    if (this.#recovering) this.#recovered(acked);
    else this.#grow(acked);
    return acked;
  }

  #grow(acked: number): void {
    const { mss } = this;
    const more = this.congestionWindow < this.#threshold
      ? acked
      : Math.max(1, Math.floor(mss * acked / this.congestionWindow));
    this.congestionWindow = Math.min(MAX_WINDOW, this.congestionWindow + more);
  }

  #duplicate(): void {
    this.#duplicates++;
    if (this.#recovering) {
      // Something left the network (RFC 5681, 3.2, 4); with SACK that is counted exactly.
      if (!this.sackPermitted) this.congestionWindow += this.mss;
      return;
    }
    const lost = this.#duplicates >= DUPLICATES ||
      this.#sacked.total > (DUPLICATES - 1) * this.mss;
    if (!lost || ahead(this.una, this.#recover) < 0) return;
    this.#recovering = true;
    this.#recover = this.max;
    this.#repaired = this.una;
    this.#shrink();
    this.congestionWindow = this.#threshold +
      (this.sackPermitted ? 0 : DUPLICATES * this.mss);
  }

  #recovered(acked: number): void {
    if (ahead(this.una, this.#recover) >= 0) {
      this.#recovering = false;
      this.congestionWindow = this.#threshold;
      return;
    }
    if (this.sackPermitted) {
      if (ahead(this.una, this.#repaired) > 0) this.#repaired = this.una;
      // What is first was lost again, or too: nothing behind it is known to have arrived.
      if (this.#sacked.count === 0) this.#repaired = this.una;
      return;
    }
    this.#repaired = this.una;
    this.congestionWindow = Math.max(this.mss, this.congestionWindow - acked + this.mss);
  }

  #shrink(): void {
    this.#threshold = Math.max(ahead(this.max, this.una) >>> 1, 2 * this.mss);
  }

  /** Nothing came for long: all that is out is taken for lost, and sent again (RFC 5681, 3.1). */
  expire(): void {
    if (this.retries === 0) this.#shrink();
    this.retries++;
    this.congestionWindow = this.mss;
    this.#recovering = false;
    this.#recover = this.max;
    this.#duplicates = 0;
    // What the receiver said that it holds it may drop (RFC 2018, 8).
    this.#sacked.clear();
    this.nxt = this.una;
  }

  /**
   * Chooses what to send next: `from` and `length`.
   *
   * @param most The most bytes at once: some full segments.
   * @returns Whether there is anything; FIN is the caller's business.
   */
  choose(ring: Ring, most: number): boolean {
    const out = ahead(this.nxt, this.una);
    let pipe = out;
    if (this.#recovering) {
      pipe -= this.#sacked.total;
      const lost = this.#lost(ring);
      pipe -= lost;
      if (this.length > 0) {
        const room = this.congestionWindow - pipe;
        // The first is sent in any case: it is what everybody waits for.
        if (room >= this.mss || this.from === this.una) {
          this.length = Math.min(
            this.length,
            Math.max(this.mss, Math.min(most, room - room % this.mss)),
          );
          this.#repaired = advance(this.from, this.length);
          return true;
        }
        return false;
      }
    }
    return this.#chooseNew(ring, most, out, pipe);
  }

  /** Bytes that are taken for lost and were not sent again; `from` and `length` are the first of them. */
  #lost(ring: Ring): number {
    const sacked = this.#sacked;
    let from = this.#repaired;
    if (ahead(this.una, from) > 0) from = this.una;
    this.length = 0;
    if (sacked.count === 0) {
      if (from !== this.una) return 0;
      this.from = from;
      this.length = Math.min(this.mss, ring.used, ahead(this.nxt, this.una));
      return this.length;
    }
    let lost = 0;
    for (let i = 0; i < sacked.count; i++) {
      const gap = ahead(sacked.start(i), from);
      if (gap > 0) {
        if (lost === 0) {
          this.from = from;
          this.length = gap;
        }
        lost += gap;
      }
      if (ahead(sacked.end(i), from) > 0) from = sacked.end(i);
    }
    return lost;
  }

  #chooseNew(ring: Ring, most: number, out: number, pipe: number): boolean {
    const unsent = ring.used - out;
    if (unsent <= 0) return false;
    // What was sent once was in the window then.
    const window = Math.max(this.window, ahead(this.max, this.una));
    const room = Math.min(window - out, this.congestionWindow - pipe);
    let length = Math.min(unsent, room, most);
    if (length <= 0) return false;
    // What was sent once is sent again, however small.
    if (length < unsent && this.nxt === this.max) {
      if (length < this.mss) {
        // No silly segments (RFC 9293, 3.8.6.2.1), but half of what the receiver ever takes is not silly.
        if (length < this.maxWindow >>> 1 || window - out > length) return false;
      } else {
        length -= length % this.mss;
        // A little more time makes one large frame of what would be several; answers are on their way.
        if (
          length < most && out > 0 && length < Math.min(this.congestionWindow, this.window) >>> 2
        ) {
          return false;
        }
      }
    }
    this.from = this.nxt;
    this.length = length;
    return true;
  }

  /**
   * Chooses a segment that breaks the rules of `choose`: a small one, since nothing else came to pass for long.
   *
   * @returns Whether the receiver takes one.
   */
  force(ring: Ring): boolean {
    this.from = this.nxt;
    this.length = Math.min(this.unsent(ring), this.window - ahead(this.nxt, this.una), this.mss);
    return this.length > 0;
  }

  /** What was chosen was sent, and FIN with it or not. @returns Whether it was sent for the first time. */
  sent(fin: boolean): boolean {
    const end = advance(this.from, this.length + (fin ? 1 : 0));
    if (ahead(end, this.nxt) > 0) this.nxt = end;
    if (ahead(end, this.max) <= 0) return false;
    const first = this.from === this.max;
    this.max = end;
    return first;
  }
}

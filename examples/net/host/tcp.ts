/**
 * A minimal TCP (RFC 9293), for a file to go over the example's network: everything that makes transfers correct (sequence
 * numbers, acknowledgements, retransmission, windows and their scaling, an orderly end), nothing that makes them fair or
 * fast on a network of others: no congestion control, no selective acknowledgements, what comes out of order is dropped and
 * comes again. Not for use outside of this example.
 */
import { Flag, type Segment } from "./wire.ts";

/** What a connection sends. */
export interface Outgoing {
  readonly sequence: number;
  readonly acknowledged: number;
  readonly flags: number;
  readonly window: number;
  /** Whether it is a SYN, which has options. */
  readonly options: boolean;
  /** Data beyond this many bytes must be split on the way. */
  readonly mss: number;
  readonly data: Uint8Array;
}

/** What a connection needs of the world. */
export interface TcpHost {
  /** Sends a segment. */
  send(segment: Outgoing): void;
  /** The most data that a segment may carry. */
  readonly mss: number;
  /** The most data that `send` takes at once, to be split by whoever is on the way; 0: no more than a segment carries. */
  readonly bulk: number;
  /** Milliseconds until something unacknowledged is sent again, the first time. */
  readonly patience: number;
}

/** Bytes of the receive window: a multiple of what the scale can say. */
const WINDOW = 1 << 20;
/** The scale that we announce. */
export const WINDOW_SCALE = 5;
/** Bytes in flight at most, so that no queue on the way overflows by our fault. */
const IN_FLIGHT = 256 * 1024;
/** How often something is sent again before the connection is given up. */
const ATTEMPTS = 10;
const NOTHING = new Uint8Array(0);

/** The distance between two sequence numbers, which count modulo 2^32. */
function distance(from: number, to: number): number {
  return to - from | 0;
}

/** A connection. Callbacks may be set before the next turn of the event loop. */
export class TcpConnection {
  /** Gets what the other side sends, in order; valid during the call. */
  onData: (data: Uint8Array) => void = () => {};
  /** The other side sends nothing more. */
  onEnd: () => void = () => {};
  /** Resolves when both sides have ended and know it; rejects if the connection broke. */
  readonly closed: Promise<void>;
  /** Resolves when the other side has answered; rejects if it refused. */
  readonly opened: Promise<void>;
  /** Segments that were sent again. */
  retransmissions = 0;
  readonly #host: TcpHost;
  readonly #open = Promise.withResolvers<void>();
  readonly #close = Promise.withResolvers<void>();
  #state: "listening" | "connecting" | "answering" | "established" | "over" = "listening";
  /** What is not acknowledged, or not sent yet; the first byte has the number `#firstUnacknowledged`. */
  readonly #queue: Uint8Array[] = [];
  #queued = 0;
  #firstUnacknowledged: number;
  #next: number;
  /** The highest number ever sent, plus one. */
  #sent: number;
  #window = 0;
  #scale = 0;
  #mss = 536;
  #received = 0;
  #ending = false;
  #endAcknowledged = false;
  #endReceived = false;
  #duplicates = 0;
  /** Where sending had come to when it last went back. */
  #recovered: number;
  #attempts = 0;
  #timer: ReturnType<typeof setTimeout> | undefined;

  constructor(host: TcpHost, initial: number) {
    this.#host = host;
    this.#firstUnacknowledged =
      this.#next =
      this.#sent =
      this.#recovered =
        initial >>> 0;
    this.opened = this.#open.promise;
    this.closed = this.#close.promise;
    // Whoever does not ask does not want to know.
    this.opened.catch(() => {});
    this.closed.catch(() => {});
  }

  /** Whether nothing more will happen. */
  get over(): boolean {
    return this.#state === "over";
  }

  /** Opens the connection from this side. */
  connect(): void {
    this.#state = "connecting";
    this.#sendControl(Flag.syn);
    this.#watch();
  }

  /** Queues data to be sent; `data` must stay as it is until then. */
  write(data: Uint8Array): void {
    if (this.#ending) throw new TypeError("This side has ended: nothing more can be written");
    if (data.length === 0) return;
    this.#queue.push(data);
    this.#queued += data.length;
    this.#pump();
  }

  /** Sends nothing more once everything queued is sent. */
  end(): void {
    if (this.#ending) return;
    this.#ending = true;
    this.#pump();
  }

  /** Takes a segment of the other side. */
  receive(segment: Segment): void {
    const { flags } = segment;
    if (this.#state === "over") {
      // Our last acknowledgement was lost, or late.
      if (this.#endReceived && (flags & Flag.fin) !== 0) this.#sendControl(Flag.ack);
      return;
    }
    if (this.#state === "listening") {
      if ((flags & Flag.syn) === 0) return;
      this.#takeSyn(segment);
      this.#state = "answering";
      this.#sendControl(Flag.syn | Flag.ack);
      this.#watch();
      return;
    }
    if (this.#state === "connecting") {
      const answers = segment.acknowledged === (this.#next >>> 0);
      if ((flags & Flag.rst) !== 0) {
        if (answers) this.#fail("was refused");
        return;
      }
      if ((flags & Flag.syn) === 0 || (flags & Flag.ack) === 0 || !answers) return;
      this.#takeSyn(segment);
      this.#established(segment);
      this.#sendControl(Flag.ack);
      this.#pump();
      return;
    }
    if ((flags & Flag.rst) !== 0) {
      if (segment.sequence === this.#received >>> 0) this.#fail("was reset by the other side");
      return;
    }
    if ((flags & Flag.syn) !== 0) {
      // Our answer was lost.
      if (this.#state === "answering") this.#sendAgain();
      return;
    }
    if ((flags & Flag.ack) === 0) return;
    if (this.#state === "answering") {
      if (segment.acknowledged !== this.#next >>> 0) return;
      this.#established(segment);
    }
    this.#takeAcknowledgement(segment);
    this.#takeData(segment);
    this.#pump();
    this.#finish();
  }

  /** Gives the connection up. */
  #fail(what: string): void {
    if (this.#state === "over") return;
    this.#state = "over";
    clearTimeout(this.#timer);
    const error = new Error(`The TCP connection ${what}`);
    this.#open.reject(error);
    this.#close.reject(error);
  }

  /** Tells the other side that there is no such connection any more. */
  abort(): void {
    if (this.#state === "over") return;
    this.#sendControl(Flag.rst | Flag.ack);
    this.#fail("was given up");
  }

  #takeSyn(segment: Segment): void {
    this.#received = segment.sequence + 1 >>> 0;
    this.#mss = Math.min(this.#host.mss, segment.mss ?? 536);
    this.#scale = segment.windowScale ?? -1;
  }

  #established(segment: Segment): void {
    this.#state = "established";
    this.#firstUnacknowledged = this.#next;
    this.#attempts = 0;
    // The window of a SYN is not scaled (RFC 7323, 2.2).
    this.#window = segment.window <<
      ((segment.flags & Flag.syn) !== 0 ? 0 : Math.max(this.#scale, 0));
    clearTimeout(this.#timer);
    this.#timer = undefined;
    this.#open.resolve();
  }

  #takeAcknowledgement(segment: Segment): void {
    const fresh = distance(this.#firstUnacknowledged, segment.acknowledged);
    if (fresh < 0 || distance(this.#sent, segment.acknowledged) > 0) return;
    const window = segment.window << Math.max(this.#scale, 0);
    if (fresh === 0) {
      const again = segment.data.length === 0 && window === this.#window &&
        this.#sent !== this.#firstUnacknowledged && (segment.flags & Flag.fin) === 0;
      this.#window = window;
      // Three times the same: what comes next was lost. Not again for what was on the way then: it says the same.
      if (
        again && ++this.#duplicates === 3 &&
        distance(this.#recovered, this.#firstUnacknowledged) >= 0
      ) this.#goBack();
      return;
    }
    this.#window = window;
    this.#duplicates = 0;
    this.#attempts = 0;
    // The end has a number too, behind all data.
    if (fresh > this.#queued) this.#endAcknowledged = true;
    this.#drop(Math.min(fresh, this.#queued));
    this.#firstUnacknowledged = segment.acknowledged;
    if (distance(this.#next, segment.acknowledged) > 0) this.#next = segment.acknowledged;
    clearTimeout(this.#timer);
    this.#timer = undefined;
    if (this.#firstUnacknowledged !== this.#sent) this.#watch();
  }

  #drop(count: number): void {
    this.#queued -= count;
    while (count > 0) {
      const first = this.#queue[0]!;
      if (first.length > count) {
        this.#queue[0] = first.subarray(count);
        return;
      }
      count -= first.length;
      this.#queue.shift();
    }
  }

  #takeData(segment: Segment): void {
    const fin = (segment.flags & Flag.fin) !== 0;
    if (segment.data.length === 0 && !fin) {
      // Something outside of the window, such as a probe, wants an answer.
      if (segment.sequence !== this.#received >>> 0) this.#sendControl(Flag.ack);
      return;
    }
    const known = distance(segment.sequence, this.#received);
    if (known < 0 || this.#endReceived) {
      this.#sendControl(Flag.ack);
      return;
    }
    if (known < segment.data.length) {
      const fresh = segment.data.subarray(known);
      this.#received = this.#received + fresh.length >>> 0;
      this.onData(fresh);
    }
    if (fin && known <= segment.data.length) {
      this.#received = this.#received + 1 >>> 0;
      this.#endReceived = true;
      this.onEnd();
    }
    if (this.#state !== "over") this.#sendControl(Flag.ack);
  }

  /** Sends what the other side's window has room for, then the end. */
  #pump(): void {
    while (this.#state === "established" && !this.#endAcknowledged) {
      const at = distance(this.#firstUnacknowledged, this.#next);
      if (at < this.#queued) {
        const room = Math.min(this.#window, IN_FLIGHT) - at;
        const length = Math.min(this.#queued - at, room, Math.max(this.#mss, this.#host.bulk));
        if (length <= 0) return this.#watch();
        this.#sendData(at, length);
      } else {
        if (at > this.#queued || !this.#ending) return;
        this.#sendControl(Flag.fin | Flag.ack);
        return this.#watch();
      }
    }
  }

  #sendData(at: number, length: number): void {
    const data = this.#slice(at, length);
    const sequence = this.#next;
    this.#next = this.#next + length >>> 0;
    if (distance(this.#sent, this.#next) > 0) this.#sent = this.#next;
    this.#emit(sequence, Flag.ack | Flag.psh, data);
    this.#watch();
  }

  #slice(at: number, length: number): Uint8Array {
    let index = 0;
    while (at >= this.#queue[index]!.length) at -= this.#queue[index++]!.length;
    const first = this.#queue[index]!;
    if (at + length <= first.length) return first.subarray(at, at + length);
    const bytes = new Uint8Array(length);
    for (let done = 0; done < length; index++, at = 0) {
      const piece = this.#queue[index]!.subarray(at, at + length - done);
      bytes.set(piece, done);
      done += piece.length;
    }
    return bytes;
  }

  /** A segment without data; SYN and FIN take a number each. */
  #sendControl(flags: number): void {
    const sequence = this.#next;
    if ((flags & (Flag.syn | Flag.fin)) !== 0) {
      this.#next = this.#next + 1 >>> 0;
      if (distance(this.#sent, this.#next) > 0) this.#sent = this.#next;
    }
    this.#emit(sequence, flags, NOTHING);
  }

  #emit(sequence: number, flags: number, data: Uint8Array): void {
    const syn = (flags & Flag.syn) !== 0;
    this.#host.send({
      sequence: sequence >>> 0,
      acknowledged: (flags & Flag.ack) !== 0 ? this.#received : 0,
      flags,
      // A peer without scaling gets a window that it can read.
      window: syn || this.#scale < 0 ? 0xffff : WINDOW >> WINDOW_SCALE,
      options: syn,
      mss: this.#mss,
      data,
    });
  }

  /** Everything after the last acknowledgement is sent again. */
  #goBack(): void {
    this.retransmissions++;
    this.#recovered = this.#sent;
    this.#next = this.#firstUnacknowledged;
    this.#duplicates = 0;
    this.#pump();
  }

  #watch(): void {
    this.#timer ??= setTimeout(() => {
      this.#timer = undefined;
      this.#sendAgain();
    }, this.#host.patience * 2 ** Math.min(this.#attempts, 4));
  }

  #sendAgain(): void {
    if (this.#state === "over") return;
    if (++this.#attempts > ATTEMPTS) return this.#fail("was not answered");
    if (this.#state === "connecting" || this.#state === "answering") {
      this.retransmissions++;
      this.#next = this.#firstUnacknowledged;
      this.#sendControl(this.#state === "connecting" ? Flag.syn : Flag.syn | Flag.ack);
    } else if (this.#window === 0 && this.#queued > 0) {
      // A probe: one byte, which the other side may take or refuse, but acknowledges.
      this.#next = this.#firstUnacknowledged;
      this.#sendData(0, 1);
    } else {
      this.#goBack();
    }
    this.#watch();
  }

  #finish(): void {
    if (!this.#endAcknowledged || !this.#endReceived || this.#state === "over") return;
    this.#state = "over";
    clearTimeout(this.#timer);
    this.#close.resolve();
  }
}

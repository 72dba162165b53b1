/**
 * A cable between the tabs and workers of one origin, by BroadcastChannel: everybody hears everybody.
 *
 * This module is browser compatible.
 *
 * @module
 */
import { ETHERNET_HEADER_SIZE, MAX_FRAME_SIZE } from "../constants.ts";
import { Frame } from "../frame.ts";
import { checkHeader } from "../offload/header.ts";
import { FrameLayout } from "../offload/parse.ts";
import { pass } from "../pass.ts";
import { type FrameSink, type NetBackend, Offload } from "../sink.ts";

/** A frame as it crosses. */
interface SentFrame {
  /** The frame's bytes. */
  readonly frame: Uint8Array;
  /** flags, gso_type, hdr_len, gso_size, csum_start, csum_offset. */
  readonly header: readonly number[];
}

/**
 * Joins network devices of different tabs, workers or processes of one origin to one segment of Ethernet, without a switch:
 * each device's own filter picks what is for it. Frames cross unsegmented and with partial checksums, as they were sent.
 *
 * What comes is checked as what a driver sends is: any script of the origin can write to the channel. Deno keeps no more than
 * 256 messages for a thread that is busy; frames beyond that are lost there, and nobody counts them. Browsers lose none.
 *
 * @example Two devices on one cable
 * ```ts
 * import { Frame } from "@virtio/net";
 * import { BroadcastBackend } from "@virtio/net/broadcast";
 * import { assertEquals } from "@std/assert";
 *
 * using here = new BroadcastBackend("a network");
 * using there = new BroadcastBackend("a network");
 * const got = new Promise<number>((resolve) =>
 *   there.connect({ offloads: 0, deliver: (frame) => resolve(frame.length) })
 * );
 * here.deliver(new Frame().fromBytes(new Uint8Array(60)));
 * assertEquals(await got, 60);
 * ```
 */
export class BroadcastBackend implements NetBackend, Disposable {
  /** Takes every frame as it is: who receives it finishes it if need be. */
  readonly offloads: number = Offload.all;
  /** Frames sent, received, and dropped because what came was no frame, or nobody was connected. */
  readonly counters: { sent: number; received: number; dropped: number } = {
    sent: 0,
    received: 0,
    dropped: 0,
  };
  readonly #channel: BroadcastChannel;
  readonly #frame: Frame = new Frame();
  readonly #layout: FrameLayout = new FrameLayout();
  #peer: FrameSink | null = null;

  /** @param name Name of the channel: whoever gives the same one is on the same cable. */
  constructor(name: string) {
    this.#channel = new BroadcastChannel(name);
    this.#channel.onmessage = (event) => this.#heard(event.data);
  }

  /** Plugs the cable in, or out. */
  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  /** Sends a frame to all others. */
  deliver(frame: Frame): void {
    const { flags, gsoType, headerLength, gsoSize, csumStart, csumOffset } = frame;
    const sent: SentFrame = {
      // Cloning takes a view's whole buffer along.
      frame: frame.bytes.slice(),
      header: [flags, gsoType, headerLength, gsoSize, csumStart, csumOffset],
    };
    this.counters.sent++;
    this.#channel.postMessage(sent);
  }

  /** Leaves the channel. */
  close(): void {
    this.#channel.close();
  }

  /** See `close`. */
  [Symbol.dispose](): void {
    this.close();
  }

  #heard(message: unknown): void {
    if (this.#peer !== null && this.#read(message) && pass(this.#frame, this.#peer)) {
      this.counters.received++;
    } else {
      this.counters.dropped++;
    }
  }

  /** Whether a message is a frame, which is then in `#frame`. */
  #read(message: unknown): boolean {
    const sent = message as Partial<SentFrame> | null;
    const bytes = sent?.frame;
    const header = sent?.header;
    if (
      !(bytes instanceof Uint8Array) || bytes.length < ETHERNET_HEADER_SIZE ||
      bytes.length > MAX_FRAME_SIZE || !Array.isArray(header) || header.length !== 6 ||
      !header.every((field) => Number.isInteger(field) && field >= 0 && field <= 0xffff)
    ) return false;
    const frame = this.#frame.fromBytes(bytes);
    const [flags, gsoType, headerLength, gsoSize, csumStart, csumOffset] = header as number[];
    frame.flags = flags!;
    frame.gsoType = gsoType!;
    frame.headerLength = headerLength!;
    frame.gsoSize = gsoSize!;
    frame.csumStart = csumStart!;
    frame.csumOffset = csumOffset!;
    this.#layout.parse(frame.view, frame.length);
    return checkHeader(frame, this.#layout, Offload.all) === null;
  }
}

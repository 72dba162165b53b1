import { type FeatureSet, hasFeature } from "@virtio/device";
import {
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_GSO_NONE,
} from "./constants.ts";
import type { Steering } from "./control/steering.ts";
import { ethernetSize } from "./ethernet.ts";
import type { Frame } from "./frame.ts";
import { pass } from "./pass.ts";
import { BufferFiller, Placed, type ReceiveHost } from "./receive.ts";
import type { NetSettings } from "./settings.ts";
import { type FrameSink, Offload } from "./sink.ts";
import type { NetStats } from "./stats.ts";
import { WaitingFrames } from "./waiting.ts";

/** The device, from where received frames are. */
export interface InboundHost extends ReceiveHost {
  /** The driver has got a frame. */
  received(frame: Frame, queue: number): void;
}

/**
 * Frames for the driver, from the moment that it is known which pair they go to: into its buffers, or into the waiting room
 * of that queue until it has some. Frames of one queue keep their order.
 */
export class Inbound {
  /** Bits of `Offload` that the driver takes now; all while there is no driver, and whatever comes is dropped as it is. */
  offloads: number = Offload.all;
  readonly #host: InboundHost;
  readonly #stats: NetStats;
  readonly #steering: Steering;
  readonly #filler: BufferFiller;
  readonly #waiting: readonly WaitingFrames[];
  /** Entries of each receive queue that is started; 0 of others. */
  readonly #sizes: number[];
  #live = false;
  #hashed = false;
  /** Longest packet that the driver may be given unsegmented; 0: any. */
  #mtu = 0;
  /** What became of the frame of each pair that was last to be placed. */
  readonly #outcomes: Uint8Array;
  /** The pair whose waiting frame is being cut, as the driver takes it no more as it is. */
  #cutFor = 0;
  readonly #cut: FrameSink;

  /** Made by `NetDevice`. */
  constructor(host: InboundHost, stats: NetStats, steering: Steering, settings: NetSettings) {
    this.#host = host;
    this.#stats = stats;
    this.#steering = steering;
    this.#filler = new BufferFiller(host);
    this.#sizes = new Array<number>(settings.pairs).fill(0);
    this.#outcomes = new Uint8Array(settings.pairs);
    this.#waiting = this.#sizes.map(() =>
      new WaitingFrames(settings.waitingFrames, settings.waitingBytes)
    );
    this.#cut = {
      offloads: 0,
      deliver: (frame) => {
        const pair = this.#cutFor;
        if (!this.#place(frame, pair)) this.#stats.received[pair]!.overruns++;
      },
    };
  }

  /** What the driver negotiated. */
  start(features: FeatureSet, mtu: number): void {
    this.#live = true;
    this.#filler.start(features);
    this.#hashed = hasFeature(features, VIRTIO_NET_F_HASH_REPORT);
    this.#mtu = hasFeature(features, VIRTIO_NET_F_MTU) ? mtu : 0;
  }

  /** The device was reset: nothing waits any more. */
  stop(): void {
    this.#live = false;
    this.offloads = Offload.all;
    this.#sizes.fill(0);
    this.#outcomes.fill(Placed.done);
    this.abandon(0);
  }

  /** A receive queue was started, with so many entries, or stopped (0). What waits for it stays. */
  setSize(pair: number, size: number): void {
    this.#sizes[pair] = size;
  }

  /** Whether the receive queue of a pair is started. */
  isStarted(pair: number): boolean {
    return this.#sizes[pair] !== 0;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#waiting.reduce((sum, { count }) => sum + count, 0);
  }

  /** Drops what waits for the pairs from `first` on: the driver does not use them any more (5.1.9.5.6.2). */
  abandon(first: number): void {
    for (let pair = first; pair < this.#waiting.length; pair++) {
      this.#stats.received[pair]!.abandoned += this.#waiting[pair]!.clear();
    }
  }

  /** Takes a frame that needs no more than the driver takes, whose hash `Steering` has just calculated. */
  receive(frame: Frame, pair: number): void {
    const stats = this.#stats.received[pair]!;
    if (
      this.#mtu !== 0 && frame.gsoType === VIRTIO_NET_HDR_GSO_NONE &&
      frame.length > this.#mtu + ethernetSize(frame)
    ) {
      stats.tooLong++;
      return;
    }
    const waiting = this.#waiting[pair]!;
    for (;;) {
      // Where there were too few buffers, which costs some to find out, a kick tells of more.
      if (waiting.count > 0 && this.#outcomes[pair] !== Placed.short) this.drain(pair);
      if (waiting.count === 0 && this.#place(frame, pair)) return;
      // What the driver did wrong with its buffers may have ended its device.
      if (!this.#live) return;
      if (waiting.push(frame)) {
        stats.waited++;
        return;
      }
      stats.overruns++;
      // Only the oldest may be too long for the buffers that there are: it must not keep the others waiting for ever.
      if (waiting.count === 0 || this.#outcomes[pair] !== Placed.short) return;
      waiting.peek();
      waiting.shift();
      this.#outcomes[pair] = Placed.empty;
    }
  }

  /** Gives the driver what waits for a pair, as far as there are buffers. */
  drain(pair: number): void {
    const waiting = this.#waiting[pair]!;
    for (let frame = waiting.peek(); frame !== null; frame = waiting.peek()) {
      if ((frame.needs & ~this.offloads) === 0) {
        if (!this.#place(frame, pair)) return;
      } else {
        // The driver has switched an offload off since.
        this.#cutFor = pair;
        pass(frame, this.#cut);
      }
      waiting.shift();
    }
  }

  /** @returns False if the frame has to wait. */
  #place(frame: Frame, pair: number): boolean {
    const stats = this.#stats.received[pair]!;
    const queue = 2 * pair;
    const filler = this.#filler;
    if (this.#hashed) {
      // Only the hash is of interest: a frame that waited may have been steered by other parameters.
      this.#steering.pairOf(frame);
      filler.hashValue = this.#steering.hashValue;
      filler.hashReport = this.#steering.hashReport;
    }
    const size = this.#sizes[pair]!;
    const outcome = filler.place(frame, queue, size, this.offloads, stats);
    this.#outcomes[pair] = outcome;
    if (outcome === Placed.done) this.#host.received(frame, queue);
    else if (outcome === Placed.never) stats.tooLong++;
    else return false;
    return true;
  }
}

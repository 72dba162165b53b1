import { type FeatureSet, hasFeature, type LazyQueue } from "@virtio/device";
import {
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_HDR_GSO_NONE,
} from "./constants.ts";
import type { Steering } from "./control/steering.ts";
import { ethernetSize } from "./ethernet.ts";
import type { Frame } from "./frame.ts";
import { pass } from "./pass.ts";
import { BufferFiller, Placed, type ReceiveQueue } from "./receive.ts";
import type { NetSettings } from "./settings.ts";
import { type FrameSink, Offload } from "./sink.ts";
import type { NetStats, ReceiveStats } from "./stats.ts";
import { WaitingFrames } from "./waiting.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const DONE = Placed.done;
const NEVER = Placed.never;

/** The device, from where received frames are. */
export interface InboundHost {
  /** The buffers of a receive queue. */
  buffers(queue: number): LazyQueue;
  /** The driver has got a frame. */
  received(frame: Frame, queue: number): void;
  /** The driver broke a rule. */
  fail(error: Error): void;
}

/** The receive queue of a pair, and what waits for it. */
class Receiver implements ReceiveQueue {
  /** Its index among all queues. */
  readonly index: number;
  readonly buffers: LazyQueue;
  readonly stats: ReceiveStats;
  readonly waiting: WaitingFrames;
  /** Entries while it is started; else 0. */
  size = 0;
  /** What became of the frame that was last to be placed. */
  outcome: number = DONE;

  constructor(index: number, buffers: LazyQueue, stats: ReceiveStats, waiting: WaitingFrames) {
    this.index = index;
    this.buffers = buffers;
    this.stats = stats;
    this.waiting = waiting;
  }
}

/**
 * Frames for the driver, from the moment that it is known which pair they go to: into its buffers, or into the waiting room
 * of that queue until it has some. Frames of one queue keep their order.
 */
export class Inbound {
  /** Bits of `Offload` that the driver takes now; all while there is no driver, and whatever comes is dropped as it is. */
  offloads: number = Offload.all;
  readonly #host: InboundHost;
  readonly #steering: Steering;
  readonly #filler: BufferFiller;
  readonly #receivers: readonly Receiver[];
  #live = false;
  #hashed = false;
  /** Longest packet that the driver may be given unsegmented; 0: any. */
  #mtu = 0;
  /** Whose waiting frame is being cut, as the driver takes it no more as it is. */
  #cutFor: Receiver | null = null;
  readonly #cut: FrameSink;

  /** Made by `NetDevice`. */
  constructor(host: InboundHost, stats: NetStats, steering: Steering, settings: NetSettings) {
    this.#host = host;
    this.#steering = steering;
    this.#filler = new BufferFiller((error) => host.fail(error));
    this.#receivers = Array.from({ length: settings.pairs }, (_, pair) =>
      new Receiver(
        2 * pair,
        host.buffers(2 * pair),
        stats.received[pair]!,
        new WaitingFrames(settings.waitingFrames, settings.waitingBytes),
      ));
    this.#cut = {
      offloads: 0,
      deliver: (frame) => {
        const receiver = this.#cutFor!;
        if (!this.#place(frame, receiver)) receiver.stats.overruns++;
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
    for (const receiver of this.#receivers) {
      receiver.size = 0;
      receiver.outcome = DONE;
    }
    this.abandon(0);
  }

  /** A receive queue was started, with so many entries, or stopped (0). What waits for it stays. */
  setSize(pair: number, size: number): void {
    this.#receivers[pair]!.size = size;
  }

  /** Whether the receive queue of a pair is started. */
  isStarted(pair: number): boolean {
    return this.#receivers[pair]!.size !== 0;
  }

  /** Frames that wait. */
  get waiting(): number {
    return this.#receivers.reduce((sum, { waiting }) => sum + waiting.count, 0);
  }

  /** Drops what waits for the pairs from `first` on: the driver does not use them any more (5.1.9.5.6.2). */
  abandon(first: number): void {
    for (let pair = first; pair < this.#receivers.length; pair++) {
      const { stats, waiting } = this.#receivers[pair]!;
      stats.abandoned += waiting.clear();
    }
  }

  /** Takes a frame that needs no more than the driver takes, whose hash `Steering` has just calculated. */
  receive(frame: Frame, pair: number): void {
    const receiver = this.#receivers[pair]!;
    if (this.#mtu !== 0 && this.#isTooLong(frame)) {
      receiver.stats.tooLong++;
      return;
    }
    if (receiver.waiting.count !== 0 || !this.#place(frame, receiver)) this.#wait(frame, receiver);
  }

  #isTooLong(frame: Frame): boolean {
    return frame.gsoType === VIRTIO_NET_HDR_GSO_NONE &&
      frame.length > this.#mtu + ethernetSize(frame);
  }

  /** Others wait already, or there was no room. */
  #wait(frame: Frame, receiver: Receiver): void {
    const { stats, waiting } = receiver;
    let tried = waiting.count === 0;
    for (;;) {
      // Where there were too few buffers, which costs some to find out, a kick tells of more.
      if (waiting.count > 0 && receiver.outcome !== Placed.short) this.#drain(receiver);
      if (waiting.count === 0 && !tried && this.#place(frame, receiver)) return;
      // What the driver did wrong with its buffers may have ended its device.
      if (!this.#live) return;
      if (waiting.push(frame)) {
        stats.waited++;
        return;
      }
      stats.overruns++;
      // Only the oldest may be too long for the buffers that there are: it must not keep the others waiting for ever.
      if (waiting.count === 0 || receiver.outcome !== Placed.short) return;
      waiting.peek();
      waiting.shift();
      receiver.outcome = Placed.empty;
      tried = false;
    }
  }

  /** Gives the driver what waits for a pair, as far as there are buffers. */
  drain(pair: number): void {
    this.#drain(this.#receivers[pair]!);
  }

  #drain(receiver: Receiver): void {
    const { waiting } = receiver;
    for (let frame = waiting.peek(); frame !== null; frame = waiting.peek()) {
      if ((frame.needs & ~this.offloads) === 0) {
        if (!this.#place(frame, receiver)) return;
      } else {
        // The driver has switched an offload off since.
        this.#cutFor = receiver;
        pass(frame, this.#cut);
      }
      waiting.shift();
    }
  }

  /** @returns False if the frame has to wait. */
  #place(frame: Frame, receiver: Receiver): boolean {
    const filler = this.#filler;
    if (this.#hashed) {
      // Only the hash is of interest: a frame that waited may have been steered by other parameters.
      this.#steering.pairOf(frame);
      filler.hashValue = this.#steering.hashValue;
      filler.hashReport = this.#steering.hashReport;
    }
    const outcome = filler.place(frame, receiver, this.offloads);
    receiver.outcome = outcome;
    if (outcome === DONE) this.#host.received(frame, receiver.index);
    else if (outcome === NEVER) receiver.stats.tooLong++;
    else return false;
    return true;
  }
}

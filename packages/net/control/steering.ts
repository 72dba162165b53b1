import type { ChainReader } from "@virtio/vring";
import type { Frame } from "../frame.ts";
import { PacketHash, VIRTIO_NET_HASH_REPORT_NONE } from "../offload/hash.ts";
import { FrameLayout } from "../offload/parse.ts";
import { flowOf, FlowTable } from "./flow_table.ts";
import { RssConfig, type RssLimits, type SavedRss } from "./rss.ts";
import { isCount, malformed, record } from "./saved.ts";

/** What steering needs to know of its device. */
export interface SteeringHost {
  /** Whether the receive queue of a pair is there to take frames: it is not while it is being reset (2.6.1). */
  receives(pair: number): boolean;
}

/** What steering may use. */
export interface SteeringLimits extends RssLimits {
  /** Flows that automatic steering remembers, a power of two. */
  readonly flows: number;
}

/** The state of steering as plain data. Flows are not in it: they are learned again. */
export interface SavedSteering {
  /** Pairs that VQ_PAIRS_SET enabled. */
  readonly pairs: number;
  /** Whether the indirection table steers. */
  readonly rss: boolean;
  /** Parameters of the hash, and the table. */
  readonly config: SavedRss;
}

/** No pair: the frame is dropped. */
export const NO_PAIR = -1;

/**
 * Which pair of queues a received frame goes to, and what its hash is: automatic receive steering (virtio 1.4, 5.1.9.5.6),
 * receive-side scaling (5.1.9.5.7), whichever was asked for last, and hash reports (5.1.9.4.5). Pairs are counted from 0.
 *
 * Hot path: nothing is allocated for a frame.
 */
export class Steering {
  readonly #host: SteeringHost;
  readonly #hash: PacketHash = new PacketHash();
  readonly #layout: FrameLayout = new FrameLayout();
  readonly #flows: FlowTable;
  /** What is in force. */
  #config: RssConfig;
  /** What a command is filling. */
  #next: RssConfig;
  #rss = false;
  #pairs = 1;
  /** Whether frames only go to the first pair, and nothing is hashed. */
  #single = true;
  #maxPairs = 1;

  /** Makes it. */
  constructor(host: SteeringHost, limits: SteeringLimits) {
    this.#host = host;
    this.#flows = new FlowTable(limits.flows);
    this.#config = new RssConfig(limits);
    this.#next = new RssConfig(limits);
  }

  /** Transmit queues that the driver may use. */
  get transmitPairs(): number {
    return this.#rss ? this.#config.transmitPairs : this.#pairs;
  }

  /** One more than the highest pair that frames may go to. */
  get receivePairs(): number {
    return this.#rss ? this.#config.receivePairs : this.#pairs;
  }

  /** Whether the indirection table steers. */
  get rss(): boolean {
    return this.#rss;
  }

  /** `hash_value` of the frame that `pairOf` was called with last; 0 if it has none. */
  get hashValue(): number {
    return this.#hash.value;
  }

  /** `hash_report` of the frame that `pairOf` was called with last. */
  get hashReport(): number {
    return this.#hash.report;
  }

  /** Only the first pair is used, and nothing is hashed (5.1.9.5.6.2). @param maxPairs How many there are. */
  reset(maxPairs: number): void {
    this.#maxPairs = maxPairs;
    this.#pairs = 1;
    this.#rss = false;
    this.#flows.clear();
    this.#config.reset();
    this.#setHash();
  }

  /** The pair that a received frame goes to, or NO_PAIR if it is to be dropped. */
  pairOf(frame: Frame): number {
    return this.#single ? this.#only(0) : this.#choose(frame);
  }

  #choose(frame: Frame): number {
    const hash = this.#hash;
    if (hash.types === 0) {
      if (this.#rss) return this.#only(this.#config.unclassified);
    }
    const { view } = frame;
    const layout = this.#layout.parse(view, frame.headLength, frame.length);
    if (hash.types !== 0) hash.calculate(view, layout);
    if (this.#rss) {
      const config = this.#config;
      return this.#only(
        hash.report === VIRTIO_NET_HASH_REPORT_NONE
          ? config.unclassified
          : config.table[hash.value & config.mask]!,
      );
    }
    return this.#pairs === 1 ? this.#only(0) : this.#automatic(flowOf(view, layout));
  }

  /** The driver sent a frame on a pair: what comes back shall go there too. */
  sentOn(frame: Frame, pair: number): void {
    if (this.#rss || this.#pairs === 1 || pair >= this.#pairs) return;
    const { view } = frame;
    const flow = flowOf(view, this.#layout.parse(view, frame.headLength, frame.length));
    if (flow >= 0) this.#flows.learn(flow, pair);
  }

  /** VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET. @returns Whether there are so many. */
  setPairs(pairs: number): boolean {
    if (pairs < 1 || pairs > this.#maxPairs) return false;
    this.#rss = false;
    this.#pairs = pairs;
    this.#setSingle();
    // Flows of pairs that are not used any more must not be found.
    this.#flows.clear();
    return true;
  }

  /** VIRTIO_NET_CTRL_MQ_RSS_CONFIG. @returns Whether it was right. */
  setRss(reader: ChainReader): boolean {
    if (!this.#next.readRss(reader, this.#maxPairs)) return false;
    this.#rss = true;
    this.#swap();
    return true;
  }

  /** VIRTIO_NET_CTRL_MQ_HASH_CONFIG: steering is automatic. @returns Whether it was right. */
  setHash(reader: ChainReader): boolean {
    if (!this.#next.readHash(reader)) return false;
    this.#rss = false;
    this.#swap();
    return true;
  }

  /** What `restore` takes. */
  save(): SavedSteering {
    return { pairs: this.#pairs, rss: this.#rss, config: this.#config.save() };
  }

  /** Checks what `save` gave. @throws {TypeError} If it is malformed, or asks for more than there is. */
  check(saved: unknown, maxPairs: number): SavedSteering {
    const state = record<SavedSteering>(saved, "steering");
    if (!isCount(state.pairs, maxPairs) || state.pairs < 1 || typeof state.rss !== "boolean") {
      throw malformed("steering");
    }
    this.#config.check(state.config, maxPairs);
    return state;
  }

  /** Takes over what `check` gave back; `reset` came before. */
  restore(state: SavedSteering): void {
    this.#pairs = state.pairs;
    this.#rss = state.rss;
    this.#config.restore(state.config);
    this.#setHash();
  }

  #swap(): void {
    [this.#config, this.#next] = [this.#next, this.#config];
    this.#setHash();
  }

  #setHash(): void {
    const hash = this.#hash;
    hash.types = this.#config.hashTypes;
    hash.value = 0;
    hash.report = VIRTIO_NET_HASH_REPORT_NONE;
    if (hash.types !== 0) hash.setKey(this.#config.key);
    this.#setSingle();
  }

  #setSingle(): void {
    this.#single = this.#hash.types === 0 && !this.#rss && this.#pairs === 1;
  }

  #only(pair: number): number {
    return this.#host.receives(pair) ? pair : NO_PAIR;
  }

  #automatic(flow: number): number {
    const pairs = this.#pairs;
    let pair = 0;
    if (flow >= 0) {
      pair = this.#flows.find(flow);
      // Never seen: any will do, but always the same, so that its frames stay in order.
      if (pair < 0) pair = (flow >>> 16) % pairs;
    }
    // The others in turn, while this one is being reset (5.1.9.5.6.2).
    for (let tried = 0; tried < pairs; tried++) {
      if (this.#host.receives(pair)) return pair;
      pair = pair + 1 === pairs ? 0 : pair + 1;
    }
    return NO_PAIR;
  }
}

import { type FeatureSet, hasFeature } from "@virtio/device";
import { type Chain, type ChainReader, VirtqueueError } from "@virtio/vring";
import {
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_DEVICE_STATS,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_NOTF_COAL,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_VQ_NOTF_COAL,
} from "../constants.ts";
import { HASH_KEY_SIZE, HASH_TYPES } from "../offload/hash.ts";
import { Coalescing, type CoalescingClock, type SavedCoalescing } from "./coalescing.ts";
import * as ctrl from "./constants.ts";
import { ReceiveFilter, type SavedFilter } from "./filter.ts";
import { GUEST_OFFLOADS, offloadsOf } from "./offloads.ts";
import { isCount, malformed, record } from "./saved.ts";
import {
  type SavedSteering,
  Steering,
  type SteeringHost,
  type SteeringLimits,
} from "./steering.ts";
import { Statistics, STATS_CAPABILITIES_SIZE, type StatsHost } from "./statistics.ts";

/** What the control queue needs of its device. */
export interface ControlHost extends SteeringHost, StatsHost {
  /** The MAC address as the device has it, 6 bytes; read at a reset. */
  readonly mac: Uint8Array;
  /** Pairs of queues that there are. */
  readonly maxPairs: number;
  /** The driver set the MAC address. The bytes are valid during the call. */
  setMac(mac: Uint8Array): void;
  /** The driver has seen VIRTIO_NET_S_ANNOUNCE. */
  announced(): void;
  /** Coalescing held a used buffer notification back that is due now; for the queue to send unless it is suppressed. */
  notify(queue: number): void;
}

/** What the driver may ask for; the device shows most of it in its configuration space. */
export interface ControlLimits extends SteeringLimits {
  /** MAC addresses in each of the two tables; with more of a kind, all of that kind are received. */
  readonly macEntries: number;
}

/** What there is room for unless somebody asks for more. */
export const CONTROL_LIMITS: ControlLimits = {
  macEntries: 256,
  hashTypes: HASH_TYPES,
  keySize: HASH_KEY_SIZE,
  tableLength: 128,
  flows: 4096,
};

/** All that the driver set through the control queue, as plain data that `structuredClone` takes. */
export interface SavedControl {
  /** Which layout this object has. */
  readonly version: 1;
  /** Feature bits of the offloads that are on. */
  readonly guestOffloads: bigint;
  /** What the driver wants to receive. */
  readonly filter: SavedFilter;
  /** Which queues it uses. */
  readonly steering: SavedSteering;
  /** How often it is notified. */
  readonly coalescing: SavedCoalescing;
  /** Commands so far. */
  readonly commands: number;
  /** Of those, the ones that succeeded. */
  readonly successes: number;
}

// How a command ended: not done; done; done, with a result that is still to be written.
const ERR = 0;
const OK = 1;
const STATS_QUERY = 2;
const STATS_GET = 3;
const COALESCING_GET = 4;

/** Bytes of `struct virtio_net_ctrl_coal`. */
const COAL_SIZE = 8;

/**
 * The control queue's commands (virtio 1.4, 5.1.9.5), and all state that the driver sets through them.
 *
 * A command is taken in any framing, each only with its feature, and exactly as long as the standard has it. What is wrong with
 * one is answered with VIRTIO_NET_ERR, and then nothing was changed.
 */
export class NetControl {
  /** Which frames the driver wants. */
  readonly filter: ReceiveFilter;
  /** Which pair a frame goes to, and its hash. */
  readonly steering: Steering;
  /** How often the driver is notified. */
  readonly coalescing: Coalescing;
  readonly #host: ControlHost;
  readonly #statistics: Statistics;
  #features: FeatureSet = 0n;
  /** Pairs that there are in this negotiation (5.1.2). */
  #maxPairs = 1;
  #guestOffloads: FeatureSet = 0n;
  #offloads = 0;
  /** The queue that VQ_GET asks about. */
  #asked = 0;

  /**
   * @param host The device.
   * @param limits What the driver may ask for.
   * @param clock Where coalescing gets its time from; the event loop unless given.
   */
  constructor(host: ControlHost, limits: ControlLimits = CONTROL_LIMITS, clock?: CoalescingClock) {
    this.#host = host;
    this.filter = new ReceiveFilter(limits.macEntries);
    this.steering = new Steering(host, limits);
    this.coalescing = new Coalescing(2 * host.maxPairs, (queue) => host.notify(queue), clock);
    this.#statistics = new Statistics(host);
    this.reset(0n);
  }

  /** Bits of `Offload` that the driver takes with received frames now. */
  get offloads(): number {
    return this.#offloads;
  }

  /** Pairs whose queues the driver may use, at least one of the two. */
  get pairs(): number {
    return Math.max(this.steering.transmitPairs, this.steering.receivePairs);
  }

  /** Index of the control queue (5.1.2). */
  get queue(): number {
    return 2 * this.#maxPairs;
  }

  /** Commands received. */
  get commands(): number {
    return this.#statistics.commands;
  }

  /** Whether the driver may use a receive or transmit queue. */
  enabled(queue: number): boolean {
    const pairs = (queue & 1) === 0 ? this.steering.receivePairs : this.steering.transmitPairs;
    return queue >> 1 < pairs;
  }

  /**
   * Everything is as after a reset. Call it when the features are known, before `restore` (`Device.accepts`), and with no
   * features when the device stops.
   */
  reset(features: FeatureSet): void {
    const many = (features & (VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS)) !== 0n;
    this.#features = features;
    this.#maxPairs = many ? this.#host.maxPairs : 1;
    this.filter.reset(features, this.#host.mac);
    this.steering.reset(this.#maxPairs);
    this.coalescing.reset();
    this.#statistics.reset(features, this.#maxPairs);
    this.#setOffloads(features & GUEST_OFFLOADS);
  }

  /**
   * Executes a command, and writes what the driver is to know.
   *
   * @throws {VirtqueueError} If there is no room for `ack`.
   */
  handle(chain: Chain): void {
    const { reader, writer } = chain;
    if (writer.remaining === 0) {
      throw new VirtqueueError(
        "5.1.9.5",
        "A control command cannot be answered: it has no device-writable byte for ack",
      );
    }
    const statistics = this.#statistics;
    statistics.commands++;
    const answer = this.#execute(reader, writer.remaining - 1);
    if (answer === ERR) {
      writer.u8(ctrl.VIRTIO_NET_ERR);
      return;
    }
    // Counts itself (5.1.9.5.11.3), so before the statistics are written.
    statistics.successes++;
    writer.u8(ctrl.VIRTIO_NET_OK);
    switch (answer) {
      case STATS_QUERY:
        statistics.query(writer);
        break;
      case STATS_GET:
        statistics.write(writer);
        break;
      case COALESCING_GET:
        // The standard shows these as the end of the command's data, before ack, but data are what the driver sets (5.1.9.5):
        // what the device sets beside ack is a result, and stands where every result does.
        writer.u32(this.coalescing.maxPackets(this.#asked));
        writer.u32(this.coalescing.maxUsecs(this.#asked));
    }
  }

  /** What `restore` takes. */
  save(): SavedControl {
    return {
      version: 1,
      guestOffloads: this.#guestOffloads,
      filter: this.filter.save(),
      steering: this.steering.save(),
      coalescing: this.coalescing.save(),
      commands: this.#statistics.commands,
      successes: this.#statistics.successes,
    };
  }

  /**
   * Takes over what `save` gave, all of it or nothing; `reset` with the negotiated features came before.
   *
   * @throws {TypeError} If it is malformed, or says what the driver could not have brought about.
   */
  restore(saved: unknown): void {
    const state = record<SavedControl>(saved, "control state");
    const { guestOffloads, commands, successes } = state;
    if (
      state.version !== 1 || typeof guestOffloads !== "bigint" || guestOffloads < 0n ||
      (guestOffloads & ~(this.#features & GUEST_OFFLOADS)) !== 0n ||
      !isCount(commands) || !isCount(successes, commands)
    ) throw malformed("control state");
    const filter = this.filter.check(state.filter);
    const steering = this.steering.check(state.steering, this.#maxPairs);
    const coalescing = this.coalescing.check(state.coalescing);
    this.#setOffloads(guestOffloads);
    this.filter.restore(filter);
    this.steering.restore(steering);
    this.coalescing.restore(coalescing);
    this.#statistics.commands = commands;
    this.#statistics.successes = successes;
  }

  /** @param room Bytes for a result. */
  #execute(reader: ChainReader, room: number): number {
    if (reader.remaining < 2) return ERR;
    const cls = reader.u8();
    const command = reader.u8();
    switch (cls) {
      case ctrl.VIRTIO_NET_CTRL_RX:
        return this.#receiveMode(reader, command);
      case ctrl.VIRTIO_NET_CTRL_MAC:
        return this.#mac(reader, command);
      case ctrl.VIRTIO_NET_CTRL_VLAN:
        return this.#vlan(reader, command);
      case ctrl.VIRTIO_NET_CTRL_ANNOUNCE:
        return this.#announce(reader, command);
      case ctrl.VIRTIO_NET_CTRL_MQ:
        return this.#multiqueue(reader, command);
      case ctrl.VIRTIO_NET_CTRL_GUEST_OFFLOADS:
        return this.#guestOffloadsSet(reader, command);
      case ctrl.VIRTIO_NET_CTRL_NOTF_COAL:
        return this.#coalesce(reader, command, room);
      case ctrl.VIRTIO_NET_CTRL_STATS:
        return this.#stats(reader, command, room);
      default:
        return ERR;
    }
  }

  #has(feature: FeatureSet): boolean {
    return hasFeature(this.#features, feature);
  }

  #receiveMode(reader: ChainReader, command: number): number {
    const extra = command > ctrl.VIRTIO_NET_CTRL_RX_ALLMULTI;
    if (!this.#has(extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX)) return ERR;
    if (reader.remaining !== 1) return ERR;
    return this.filter.setMode(command, reader.u8()) ? OK : ERR;
  }

  #mac(reader: ChainReader, command: number): number {
    if (command === ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET) {
      return this.#has(VIRTIO_NET_F_CTRL_RX) && this.filter.setTables(reader) ? OK : ERR;
    }
    if (command !== ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET || !this.#has(VIRTIO_NET_F_CTRL_MAC_ADDR)) {
      return ERR;
    }
    if (reader.remaining !== 6) return ERR;
    const mac = new Uint8Array(6);
    reader.read(mac);
    if (!this.filter.setMac(mac)) return ERR;
    this.#host.setMac(mac);
    return OK;
  }

  #vlan(reader: ChainReader, command: number): number {
    if (command > ctrl.VIRTIO_NET_CTRL_VLAN_DEL || !this.#has(VIRTIO_NET_F_CTRL_VLAN)) return ERR;
    if (reader.remaining !== 2) return ERR;
    return this.filter.setVlan(reader.u16(), command === ctrl.VIRTIO_NET_CTRL_VLAN_ADD) ? OK : ERR;
  }

  #announce(reader: ChainReader, command: number): number {
    if (command !== ctrl.VIRTIO_NET_CTRL_ANNOUNCE_ACK || !this.#has(VIRTIO_NET_F_GUEST_ANNOUNCE)) {
      return ERR;
    }
    if (reader.remaining !== 0) return ERR;
    this.#host.announced();
    return OK;
  }

  #multiqueue(reader: ChainReader, command: number): number {
    const { steering } = this;
    const { transmitPairs, receivePairs } = steering;
    let right = false;
    switch (command) {
      case ctrl.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET:
        right = this.#has(VIRTIO_NET_F_MQ) && reader.remaining === 2 &&
          steering.setPairs(reader.u16());
        break;
      case ctrl.VIRTIO_NET_CTRL_MQ_RSS_CONFIG:
        right = this.#has(VIRTIO_NET_F_RSS) && steering.setRss(reader);
        break;
      case ctrl.VIRTIO_NET_CTRL_MQ_HASH_CONFIG:
        right = this.#has(VIRTIO_NET_F_HASH_REPORT) && steering.setHash(reader);
    }
    if (!right) return ERR;
    // What is enabled again starts with the parameters for all of its kind (5.1.9.5.10.6).
    for (let pair = receivePairs; pair < steering.receivePairs; pair++) {
      this.coalescing.reenable(2 * pair);
    }
    for (let pair = transmitPairs; pair < steering.transmitPairs; pair++) {
      this.coalescing.reenable(2 * pair + 1);
    }
    return OK;
  }

  #guestOffloadsSet(reader: ChainReader, command: number): number {
    if (
      command !== ctrl.VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET ||
      !this.#has(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS) || reader.remaining !== 8
    ) return ERR;
    const low = reader.u32();
    const offloads = BigInt(low) | BigInt(reader.u32()) << 32n;
    // The bits are those of the features, and only what was negotiated can be switched on.
    if ((offloads & ~(this.#features & GUEST_OFFLOADS)) !== 0n) return ERR;
    this.#setOffloads(offloads);
    return OK;
  }

  #setOffloads(features: FeatureSet): void {
    this.#guestOffloads = features;
    this.#offloads = offloadsOf(features);
  }

  #coalesce(reader: ChainReader, command: number, room: number): number {
    const { coalescing } = this;
    if (command <= ctrl.VIRTIO_NET_CTRL_NOTF_COAL_RX_SET) {
      if (!this.#has(VIRTIO_NET_F_NOTF_COAL) || reader.remaining !== COAL_SIZE) return ERR;
      const maxPackets = reader.u32();
      const transmit = command === ctrl.VIRTIO_NET_CTRL_NOTF_COAL_TX_SET;
      coalescing.setAll(transmit, maxPackets, reader.u32());
      return OK;
    }
    const get = command === ctrl.VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET;
    if (!get && command !== ctrl.VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET) return ERR;
    if (!this.#has(VIRTIO_NET_F_VQ_NOTF_COAL)) return ERR;
    if (reader.remaining !== (get ? 4 : 4 + COAL_SIZE)) return ERR;
    const queue = reader.u16();
    reader.skip(2);
    if (queue >= 2 * this.#maxPairs || !this.enabled(queue)) return ERR;
    if (get) {
      if (room < COAL_SIZE) return ERR;
      this.#asked = queue;
      return COALESCING_GET;
    }
    const maxPackets = reader.u32();
    coalescing.set(queue, maxPackets, reader.u32());
    return OK;
  }

  #stats(reader: ChainReader, command: number, room: number): number {
    if (!this.#has(VIRTIO_NET_F_DEVICE_STATS)) return ERR;
    if (command === ctrl.VIRTIO_NET_CTRL_STATS_QUERY) {
      return reader.remaining === 0 && room >= STATS_CAPABILITIES_SIZE ? STATS_QUERY : ERR;
    }
    if (command !== ctrl.VIRTIO_NET_CTRL_STATS_GET) return ERR;
    return this.#statistics.read(reader) ? STATS_GET : ERR;
  }
}

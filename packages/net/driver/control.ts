import { checkInteger, type FeatureSet } from "@virtio/device";
import { DriverError, type DriverSession } from "@virtio/device/driver";
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
import * as commands from "../control/constants.ts";
import { GUEST_OFFLOADS } from "../control/offloads.ts";
import {
  type Coalescing,
  coalescingData,
  type HashConfig,
  hashData,
  le16,
  macTableData,
  RECEIVE_MODES,
  type ReceiveMode,
  type RssConfig,
  rssData,
} from "./command_data.ts";
import type { ControlQueue } from "./control_queue.ts";
import type { NetInfo } from "./info.ts";
import { checkStation } from "./options.ts";
import { type QueueStatistics, readStatistics, requestStatistics } from "./statistics.ts";

/** What `NetControl` is made of. */
export interface NetControlSetup {
  /** The session. */
  readonly session: DriverSession;
  /** The queue; null where VIRTIO_NET_F_CTRL_VQ was not negotiated. */
  readonly queue: ControlQueue | null;
  /** Pairs of queues that are set up. */
  readonly pairs: number;
  /** What the device says about itself. */
  readonly info: () => NetInfo;
  /** Called when the device has another MAC address. */
  readonly onMac: (mac: Uint8Array) => void;
}

/**
 * The commands of a network device (virtio 1.4, 5.1.9.5). Each resolves when the device has done it.
 *
 * All throw {TypeError} if the feature was not negotiated, {RangeError} if an argument is out of range, `NetControlError` if
 * the device could not, and {DriverError} if it was given up before it answered.
 */
export class NetControl {
  readonly #setup: NetControlSetup;
  /** Pairs whose transmit queue may be used. */
  #transmitPairs = 1;
  /** Pairs whose receive queue may be used. */
  #receivePairs = 1;
  #statistics: Promise<bigint> | null = null;

  /** For `NetDriver`. */
  constructor(setup: NetControlSetup) {
    this.#setup = setup;
  }

  /** Pairs of queues whose transmit queues may be used. */
  get transmitPairs(): number {
    return this.#transmitPairs;
  }

  /** Switches a receive mode on or off (5.1.9.5.1). */
  async setReceiveMode(mode: ReceiveMode, on: boolean): Promise<void> {
    const extra = RECEIVE_MODES[mode] > commands.VIRTIO_NET_CTRL_RX_ALLMULTI;
    this.#needs(
      extra ? VIRTIO_NET_F_CTRL_RX_EXTRA : VIRTIO_NET_F_CTRL_RX,
      extra ? "VIRTIO_NET_F_CTRL_RX_EXTRA" : "VIRTIO_NET_F_CTRL_RX",
    );
    const data = Uint8Array.of(on ? 1 : 0);
    await this.#send(`switch ${mode}`, commands.VIRTIO_NET_CTRL_RX, RECEIVE_MODES[mode], data);
  }

  /**
   * Says which addresses are received besides the device's own (5.1.9.5.2). Replaces what was said before.
   *
   * @param unicast Addresses of single stations.
   * @param multicast Addresses of groups.
   */
  async setMacTable(
    unicast: readonly Uint8Array[],
    multicast: readonly Uint8Array[],
  ): Promise<void> {
    this.#needs(VIRTIO_NET_F_CTRL_RX, "VIRTIO_NET_F_CTRL_RX");
    const data = macTableData(unicast, multicast);
    await this.#send(
      "set the MAC table",
      commands.VIRTIO_NET_CTRL_MAC,
      commands.VIRTIO_NET_CTRL_MAC_TABLE_SET,
      data,
    );
  }

  /** Sets the device's own address (5.1.9.5.2). */
  async setMac(mac: Uint8Array): Promise<void> {
    // 5.1.9.5.2.2: no command of this class without the first one, whatever else there is.
    this.#needs(VIRTIO_NET_F_CTRL_RX, "VIRTIO_NET_F_CTRL_RX");
    this.#needs(VIRTIO_NET_F_CTRL_MAC_ADDR, "VIRTIO_NET_F_CTRL_MAC_ADDR");
    checkStation("mac", mac);
    const own = mac.slice();
    await this.#send(
      "set the MAC address",
      commands.VIRTIO_NET_CTRL_MAC,
      commands.VIRTIO_NET_CTRL_MAC_ADDR_SET,
      own,
    );
    this.#setup.onMac(own);
  }

  /** Has frames of a VLAN received (5.1.9.5.3). */
  async addVlan(vlan: number): Promise<void> {
    await this.#vlan("receive", commands.VIRTIO_NET_CTRL_VLAN_ADD, vlan);
  }

  /** Has frames of a VLAN not received any more (5.1.9.5.3). */
  async removeVlan(vlan: number): Promise<void> {
    await this.#vlan("no longer receive", commands.VIRTIO_NET_CTRL_VLAN_DEL, vlan);
  }

  async #vlan(what: string, command: number, vlan: number): Promise<void> {
    this.#needs(VIRTIO_NET_F_CTRL_VLAN, "VIRTIO_NET_F_CTRL_VLAN");
    checkInteger("vlan", vlan, 0, 4095);
    const data = le16(vlan);
    await this.#send(`${what} VLAN ${vlan}`, commands.VIRTIO_NET_CTRL_VLAN, command, data);
  }

  /** Says that VIRTIO_NET_S_ANNOUNCE was seen (5.1.9.5.4). `NetDriver` does it by itself. */
  async acknowledgeAnnounce(): Promise<void> {
    this.#needs(VIRTIO_NET_F_GUEST_ANNOUNCE, "VIRTIO_NET_F_GUEST_ANNOUNCE");
    await this.#send(
      "take the acknowledgement of an announcement",
      commands.VIRTIO_NET_CTRL_ANNOUNCE,
      commands.VIRTIO_NET_CTRL_ANNOUNCE_ACK,
      new Uint8Array(0),
    );
  }

  /**
   * Says how many pairs of queues are used, with automatic receive steering (5.1.9.5.6).
   *
   * @param pairs 1 to the number that is set up.
   */
  async setQueuePairs(pairs: number): Promise<void> {
    this.#needs(VIRTIO_NET_F_MQ, "VIRTIO_NET_F_MQ");
    checkInteger("pairs", pairs, 1, this.#setup.pairs);
    await this.#steer(
      `use ${pairs} pairs of queues`,
      commands.VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET,
      le16(pairs),
      pairs,
      pairs,
    );
  }

  /** Sets up receive-side scaling (5.1.9.5.7). */
  async setRss(config: RssConfig): Promise<void> {
    this.#needs(VIRTIO_NET_F_RSS, "VIRTIO_NET_F_RSS");
    const { pairs } = this.#setup;
    const transmit = checkInteger("transmitQueues", config.transmitQueues, 1, pairs, pairs);
    const data = rssData(config, transmit, pairs, this.#setup.info());
    await this.#steer(
      "scale the receive side",
      commands.VIRTIO_NET_CTRL_MQ_RSS_CONFIG,
      data,
      transmit,
      pairs,
    );
  }

  /** Says what is hashed with automatic receive steering (5.1.9.5.6.4). */
  async setHash(config: HashConfig): Promise<void> {
    this.#needs(VIRTIO_NET_F_HASH_REPORT, "VIRTIO_NET_F_HASH_REPORT");
    await this.#send(
      "hash",
      commands.VIRTIO_NET_CTRL_MQ,
      commands.VIRTIO_NET_CTRL_MQ_HASH_CONFIG,
      hashData(config, this.#setup.info()),
    );
  }

  /** Frames are queued on fewer transmit queues as soon as the device may know, and on more when it does (5.1.9.5.6.1). */
  async #steer(
    what: string,
    command: number,
    data: Uint8Array,
    transmit: number,
    receive: number,
  ): Promise<void> {
    await this.#send(what, commands.VIRTIO_NET_CTRL_MQ, command, data, 0, () => {
      this.#transmitPairs = Math.min(this.#transmitPairs, transmit);
    });
    this.#transmitPairs = transmit;
    this.#receivePairs = receive;
  }

  /**
   * Says which offloads of received frames are on, of those that were negotiated (5.1.9.5.9). All are at first.
   *
   * @param offloads VIRTIO_NET_F_GUEST_ feature bits.
   */
  async setGuestOffloads(offloads: FeatureSet): Promise<void> {
    this.#needs(VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, "VIRTIO_NET_F_CTRL_GUEST_OFFLOADS");
    const possible = this.#setup.session.features & GUEST_OFFLOADS;
    if ((offloads & ~possible) !== 0n) {
      throw new RangeError(
        `offloads must be of those that were negotiated, 0x${possible.toString(16)}: they are 0x${
          offloads.toString(16)
        }`,
      );
    }
    const data = new Uint8Array(8);
    new DataView(data.buffer).setBigUint64(0, offloads, true);
    await this.#send(
      "switch offloads",
      commands.VIRTIO_NET_CTRL_GUEST_OFFLOADS,
      commands.VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET,
      data,
    );
  }

  /** Says when the device tells of frames, for all queues of one direction (5.1.9.5.10). */
  async setCoalescing(direction: "receive" | "transmit", coalescing: Coalescing): Promise<void> {
    this.#needs(VIRTIO_NET_F_NOTF_COAL, "VIRTIO_NET_F_NOTF_COAL");
    const data = coalescingData(coalescing);
    await this.#send(
      "coalesce notifications",
      commands.VIRTIO_NET_CTRL_NOTF_COAL,
      direction === "receive"
        ? commands.VIRTIO_NET_CTRL_NOTF_COAL_RX_SET
        : commands.VIRTIO_NET_CTRL_NOTF_COAL_TX_SET,
      data,
    );
  }

  /**
   * Says when the device tells of frames in one queue (5.1.9.5.10).
   *
   * @param queue Index of an enabled receive or transmit virtqueue.
   */
  async setQueueCoalescing(queue: number, coalescing: Coalescing): Promise<void> {
    this.#checkCoalescing(queue);
    const data = new Uint8Array(12);
    data.set(le16(queue));
    data.set(coalescingData(coalescing), 4);
    await this.#send(
      `coalesce notifications of queue ${queue}`,
      commands.VIRTIO_NET_CTRL_NOTF_COAL,
      commands.VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET,
      data,
    );
  }

  /** Asks what `setQueueCoalescing` and `setCoalescing` made of one queue (5.1.9.5.10). */
  async getQueueCoalescing(queue: number): Promise<Coalescing> {
    this.#checkCoalescing(queue);
    const data = new Uint8Array(4);
    data.set(le16(queue));
    const result = await this.#send(
      `tell how notifications of queue ${queue} are coalesced`,
      commands.VIRTIO_NET_CTRL_NOTF_COAL,
      commands.VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET,
      data,
      8,
    );
    const view = viewOf(result, 8);
    return { maxPackets: view.getUint32(0, true), maxMicroseconds: view.getUint32(4, true) };
  }

  #checkCoalescing(queue: number): void {
    this.#needs(VIRTIO_NET_F_VQ_NOTF_COAL, "VIRTIO_NET_F_VQ_NOTF_COAL");
    const enabled = Number.isInteger(queue) && queue >= 0 &&
      queue >> 1 < (queue % 2 === 0 ? this.#receivePairs : this.#transmitPairs);
    if (!enabled) throw new RangeError(`Queue ${queue} is no receive or transmit queue in use`);
  }

  /**
   * What the device counted (5.1.9.5.11).
   *
   * @param queues Indexes of virtqueues; all that are set up unless given.
   */
  async statistics(queues?: readonly number[]): Promise<QueueStatistics[]> {
    this.#needs(VIRTIO_NET_F_DEVICE_STATS, "VIRTIO_NET_F_DEVICE_STATS");
    const { pairs, session } = this.#setup;
    const controlQueue = this.#setup.queue!.index;
    const all = [...Array.from({ length: 2 * pairs }, (_, index) => index), controlQueue];
    for (const queue of queues ?? []) {
      if (!all.includes(queue)) throw new RangeError(`There is no queue ${queue}`);
    }
    const supported = await (this.#statistics ??= this.#queryStatistics());
    const request = requestStatistics(
      [...new Set(queues ?? all)],
      supported,
      session.features,
      controlQueue,
    );
    const result = await this.#send(
      "tell its statistics",
      commands.VIRTIO_NET_CTRL_STATS,
      commands.VIRTIO_NET_CTRL_STATS_GET,
      request.data,
      request.resultSize,
    );
    return readStatistics(request, result);
  }

  async #queryStatistics(): Promise<bigint> {
    try {
      const result = await this.#send(
        "tell which statistics it has",
        commands.VIRTIO_NET_CTRL_STATS,
        commands.VIRTIO_NET_CTRL_STATS_QUERY,
        new Uint8Array(0),
        8,
      );
      return viewOf(result, 8).getBigUint64(0, true);
    } catch (error) {
      // The next one who asks may have more luck.
      this.#statistics = null;
      throw error;
    }
  }

  #needs(feature: FeatureSet, name: string): void {
    if (this.#setup.queue === null) {
      throw new TypeError("The device takes no commands: VIRTIO_NET_F_CTRL_VQ was not negotiated");
    }
    if (!this.#setup.session.has(feature)) {
      throw new TypeError(`The device does not take this command: ${name} was not negotiated`);
    }
  }

  #send(
    what: string,
    kind: number,
    command: number,
    data: Uint8Array,
    resultSize = 0,
    sent?: () => void,
  ): Promise<Uint8Array> {
    return this.#setup.queue!.send(what, kind, command, data, resultSize, sent);
  }
}

/** A view of a result that must have its full size. */
function viewOf(result: Uint8Array, size: number): DataView {
  if (result.length < size) {
    throw new DriverError(`The device answered with ${result.length} bytes: ${size} are missing`);
  }
  return new DataView(result.buffer, result.byteOffset, result.length);
}

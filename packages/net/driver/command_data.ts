import { checkInteger } from "@virtio/device";
import * as commands from "../control/constants.ts";
import type { NetInfo } from "./info.ts";
import { checkStation } from "./options.ts";

/** What a device receives beyond frames for its own address (5.1.9.5.1). */
export type ReceiveMode =
  | "promiscuous"
  | "allMulticast"
  | "allUnicast"
  | "noMulticast"
  | "noUnicast"
  | "noBroadcast";

/** Their commands. */
export const RECEIVE_MODES: Readonly<Record<ReceiveMode, number>> = {
  promiscuous: commands.VIRTIO_NET_CTRL_RX_PROMISC,
  allMulticast: commands.VIRTIO_NET_CTRL_RX_ALLMULTI,
  allUnicast: commands.VIRTIO_NET_CTRL_RX_ALLUNI,
  noMulticast: commands.VIRTIO_NET_CTRL_RX_NOMULTI,
  noUnicast: commands.VIRTIO_NET_CTRL_RX_NOUNI,
  noBroadcast: commands.VIRTIO_NET_CTRL_RX_NOBCAST,
};

/** When a device tells of frames (5.1.9.5.10). */
export interface Coalescing {
  /** `max_packets`; 0: after each. */
  readonly maxPackets: number;
  /** `max_usecs`, microseconds; 0: at once. */
  readonly maxMicroseconds: number;
}

/** What is hashed, and with which key (5.1.9.5.6.4). */
export interface HashConfig {
  /** VIRTIO_NET_HASH_TYPE_ bits. */
  readonly types: number;
  /** Bytes of the key, `maxKeySize` at most. */
  readonly key: Uint8Array;
}

/** Parameters of receive-side scaling (5.1.9.5.7.1). */
export interface RssConfig extends HashConfig {
  /** Pairs of queues, from 0 on, by the last bits of the hash: as many as a power of two. */
  readonly table: readonly number[];
  /** Pair for frames without a hash; 0 unless given. */
  readonly unclassified?: number;
  /** `max_tx_vq`: transmit queues that will be used; all that are set up unless given. */
  readonly transmitQueues?: number;
}

/** A le16. */
export function le16(value: number): Uint8Array {
  return Uint8Array.of(value & 0xff, value >> 8);
}

/**
 * Two `struct virtio_net_ctrl_mac`.
 *
 * @throws {RangeError} If an address is of the wrong kind.
 */
export function macTableData(
  unicast: readonly Uint8Array[],
  multicast: readonly Uint8Array[],
): Uint8Array {
  for (const mac of unicast) checkStation("An address of `unicast`", mac);
  for (const mac of multicast) {
    if (mac.length !== 6 || (mac[0]! & 1) === 0) {
      throw new RangeError(`An address of \`multicast\` must be that of a group: it is ${mac}`);
    }
  }
  const data = new Uint8Array(8 + 6 * (unicast.length + multicast.length));
  const view = new DataView(data.buffer);
  let at = 0;
  for (const table of [unicast, multicast]) {
    view.setUint32(at, table.length, true);
    table.forEach((mac, i) => data.set(mac, at + 4 + 6 * i));
    at += 4 + 6 * table.length;
  }
  return data;
}

/**
 * `struct virtio_net_rss_config`.
 *
 * @param transmit `max_tx_vq`.
 * @param pairs Pairs of queues that are set up.
 * @throws {RangeError} If it is not what the device allows (5.1.9.5.7.2).
 */
export function rssData(
  config: RssConfig,
  transmit: number,
  pairs: number,
  info: NetInfo,
): Uint8Array {
  const { table, types, key } = config;
  const { maxTableLength } = info;
  const unclassified = checkInteger("unclassified", config.unclassified, 0, pairs - 1, 0);
  if (!Number.isInteger(Math.log2(table.length)) || table.length > maxTableLength) {
    throw new RangeError(
      `table must have a power of two of entries, ${maxTableLength} at most: it has ${table.length}`,
    );
  }
  for (const pair of table) checkInteger("An entry of `table`", pair, 0, pairs - 1);
  checkHash(config, info);
  const data = new Uint8Array(11 + 2 * table.length + key.length);
  const view = new DataView(data.buffer);
  view.setUint32(0, types, true);
  view.setUint16(4, table.length - 1, true);
  // `vq_index_1_16` of a receive queue is the number of its pair.
  view.setUint16(6, unclassified, true);
  table.forEach((pair, i) => view.setUint16(8 + 2 * i, pair, true));
  const at = 8 + 2 * table.length;
  view.setUint16(at, transmit, true);
  view.setUint8(at + 2, key.length);
  data.set(key, at + 3);
  return data;
}

/** `struct virtio_net_hash_config`. @throws {RangeError} If it is not what the device allows. */
export function hashData(config: HashConfig, info: NetInfo): Uint8Array {
  checkHash(config, info);
  const { types, key } = config;
  const data = new Uint8Array(13 + key.length);
  const view = new DataView(data.buffer);
  view.setUint32(0, types, true);
  view.setUint8(12, key.length);
  data.set(key, 13);
  return data;
}

function checkHash({ types, key }: HashConfig, { hashTypes, maxKeySize }: NetInfo): void {
  if (!Number.isInteger(types) || types < 0 || (types & ~hashTypes) !== 0) {
    throw new RangeError(
      `types must be of those that the device has, 0x${hashTypes.toString(16)}: it is ${types}`,
    );
  }
  if (key.length > maxKeySize) {
    throw new RangeError(`key must have ${maxKeySize} bytes at most: it has ${key.length}`);
  }
}

/** `struct virtio_net_ctrl_coal`. @throws {RangeError} If a number is none of 32 bits. */
export function coalescingData({ maxPackets, maxMicroseconds }: Coalescing): Uint8Array {
  const data = new Uint8Array(8);
  const view = new DataView(data.buffer);
  view.setUint32(0, checkInteger("maxPackets", maxPackets, 0, 0xffff_ffff), true);
  view.setUint32(4, checkInteger("maxMicroseconds", maxMicroseconds, 0, 0xffff_ffff), true);
  return data;
}

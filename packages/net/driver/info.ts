import type { FeatureSet } from "@virtio/device";
import { DriverError, type DriverSession } from "@virtio/device/driver";
import {
  NetConfigOffset,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_S_ANNOUNCE,
  VIRTIO_NET_S_LINK_UP,
} from "../constants.ts";

/** What a network device says about itself (virtio 1.4, 5.1.4). */
export interface NetInfo {
  /** MAC address, 6 bytes; null if the device has none. */
  readonly mac: Uint8Array | null;
  /** Whether the link is up; yes where the device does not tell. */
  readonly linkUp: boolean;
  /** Whether the device asks for an announcement (5.1.9.5.4). */
  readonly announce: boolean;
  /** `max_virtqueue_pairs`; 1 where the device does not tell. */
  readonly maxQueuePairs: number;
  /** Longest packet without its Ethernet header; null where the device does not tell. */
  readonly mtu: number | null;
  /** Mbit/s; null: unknown. */
  readonly speed: number | null;
  /** Null: unknown. */
  readonly duplex: "half" | "full" | null;
  /** `rss_max_key_size`; 0 where there are no hashes. */
  readonly maxKeySize: number;
  /** `rss_max_indirection_table_length`; 0 without VIRTIO_NET_F_RSS. */
  readonly maxTableLength: number;
  /** `supported_hash_types`. */
  readonly hashTypes: number;
}

/**
 * Reads the configuration, and only fields that exist with the features that were negotiated.
 *
 * @throws {DriverError} If it is not what the standard allows, or never stands still.
 */
export function readNetInfo(session: DriverSession): NetInfo {
  const has = (feature: FeatureSet) => session.has(feature);
  const paired = has(VIRTIO_NET_F_MQ) || has(VIRTIO_NET_F_RSS);
  const hashed = has(VIRTIO_NET_F_RSS) || has(VIRTIO_NET_F_HASH_REPORT);
  const at = NetConfigOffset;
  const info = session.readConfig((config): NetInfo => {
    const timed = has(VIRTIO_NET_F_SPEED_DUPLEX);
    const speed = timed ? config.readConfig(at.speed, 4) : 0xffff_ffff;
    const duplex = timed ? config.readConfig(at.duplex, 1) : 0xff;
    const status = has(VIRTIO_NET_F_STATUS)
      ? config.readConfig(at.status, 2)
      : VIRTIO_NET_S_LINK_UP;
    return {
      mac: has(VIRTIO_NET_F_MAC)
        ? Uint8Array.from({ length: 6 }, (_, i) => config.readConfig(at.mac + i, 1))
        : null,
      linkUp: (status & VIRTIO_NET_S_LINK_UP) !== 0,
      announce: (status & VIRTIO_NET_S_ANNOUNCE) !== 0,
      maxQueuePairs: paired ? config.readConfig(at.max_virtqueue_pairs, 2) : 1,
      mtu: has(VIRTIO_NET_F_MTU) ? config.readConfig(at.mtu, 2) : null,
      // 5.1.4.2: whatever else stands there is unknown.
      speed: speed <= 0x7fff_ffff ? speed : null,
      duplex: duplex === 0 ? "half" : duplex === 1 ? "full" : null,
      maxKeySize: hashed ? config.readConfig(at.rss_max_key_size, 1) : 0,
      maxTableLength: has(VIRTIO_NET_F_RSS)
        ? config.readConfig(at.rss_max_indirection_table_length, 2)
        : 0,
      hashTypes: hashed ? config.readConfig(at.supported_hash_types, 4) : 0,
    };
  });
  if (info.maxQueuePairs < 1 || info.maxQueuePairs > 0x8000) {
    throw new DriverError(
      `max_virtqueue_pairs is ${info.maxQueuePairs}: it must be from 1 to 32768 (5.1.4.1)`,
    );
  }
  if (info.mtu !== null && info.mtu < 68) {
    throw new DriverError(`mtu is ${info.mtu}: it must be at least 68 (5.1.4.1)`);
  }
  return info;
}

/** Whether a device says the same of itself. */
export function sameInfo(one: NetInfo, other: NetInfo): boolean {
  return one.linkUp === other.linkUp && one.announce === other.announce &&
    one.maxQueuePairs === other.maxQueuePairs && one.mtu === other.mtu &&
    one.speed === other.speed && one.duplex === other.duplex &&
    one.hashTypes === other.hashTypes && String(one.mac) === String(other.mac);
}

import {
  checkInteger,
  ConfigSpace,
  type FeatureRequirement,
  type FeatureSet,
  hasFeature,
} from "@virtio/device";
import {
  NET_CONFIG_SIZE,
  NetConfigOffset,
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_RX_EXTRA,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_DEVICE_STATS,
  VIRTIO_NET_F_GUEST_ANNOUNCE,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_ECN,
  VIRTIO_NET_F_GUEST_HDRLEN,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_GUEST_UFO,
  VIRTIO_NET_F_GUEST_USO4,
  VIRTIO_NET_F_GUEST_USO6,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_HOST_ECN,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_UFO,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MQ,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_NOTF_COAL,
  VIRTIO_NET_F_RSS,
  VIRTIO_NET_F_SPEED_DUPLEX,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_F_VQ_NOTF_COAL,
} from "./constants.ts";
import { CONTROL_LIMITS } from "./control/control.ts";
import type { NetDeviceOptions } from "./options.ts";
import { Offload } from "./sink.ts";

/** Which feature needs which (5.1.3.1). Those with "or" are in `acceptable`. */
export const REQUIRES: readonly FeatureRequirement[] = [
  [VIRTIO_NET_F_GUEST_TSO4, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_TSO6, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_UFO, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_USO4, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_GUEST_USO6, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_HOST_TSO4, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_HOST_TSO6, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_HOST_UFO, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_HOST_USO, VIRTIO_NET_F_CSUM],
  [VIRTIO_NET_F_CTRL_RX, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_VLAN, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_MQ, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_MAC_ADDR, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_NOTF_COAL, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_RSS, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_VQ_NOTF_COAL, VIRTIO_NET_F_CTRL_VQ],
];

/** Not to be offered without the other, though a driver may accept them so (5.1.4.1, and what has no use without). */
const OFFERED_WITH: readonly FeatureRequirement[] = [
  [VIRTIO_NET_F_CTRL_RX_EXTRA, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_HASH_REPORT, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_CTRL_GUEST_OFFLOADS, VIRTIO_NET_F_GUEST_CSUM],
  [VIRTIO_NET_F_DEVICE_STATS, VIRTIO_NET_F_CTRL_VQ],
  [VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_STATUS],
];

const GUEST_TSO = VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6;
const HOST_TSO = VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6;

/** What is built of 5.1.3. */
export const BUILT: FeatureSet = VIRTIO_NET_F_CSUM | VIRTIO_NET_F_GUEST_CSUM |
  VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | VIRTIO_NET_F_MTU | VIRTIO_NET_F_MAC | GUEST_TSO |
  VIRTIO_NET_F_GUEST_ECN | VIRTIO_NET_F_GUEST_UFO | HOST_TSO | VIRTIO_NET_F_HOST_ECN |
  VIRTIO_NET_F_HOST_UFO | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_CTRL_VQ |
  VIRTIO_NET_F_CTRL_RX | VIRTIO_NET_F_CTRL_VLAN | VIRTIO_NET_F_CTRL_RX_EXTRA |
  VIRTIO_NET_F_GUEST_ANNOUNCE | VIRTIO_NET_F_MQ | VIRTIO_NET_F_CTRL_MAC_ADDR |
  VIRTIO_NET_F_DEVICE_STATS | VIRTIO_NET_F_VQ_NOTF_COAL | VIRTIO_NET_F_NOTF_COAL |
  VIRTIO_NET_F_GUEST_USO4 | VIRTIO_NET_F_GUEST_USO6 | VIRTIO_NET_F_HOST_USO |
  VIRTIO_NET_F_HASH_REPORT | VIRTIO_NET_F_GUEST_HDRLEN | VIRTIO_NET_F_RSS |
  VIRTIO_NET_F_SPEED_DUPLEX;

/** Entries of the control queue: a driver has few commands under way. */
const CONTROL_QUEUE_SIZE = 64;
/** `mtu` that says nothing. */
const MAX_MTU = 65535;

/** Options with everything filled in and checked. */
export interface NetSettings {
  /** Bits of 5.1.3 to offer. */
  readonly features: FeatureSet;
  /** 6 bytes. */
  readonly mac: Uint8Array;
  /** 0: not offered. */
  readonly mtu: number;
  /** Pairs of queues. */
  readonly pairs: number;
  /** Size of each queue: pairs, and the control queue if there is one. */
  readonly queueSizes: number[];
  /** Whether the cable is plugged in at first. */
  readonly linkUp: boolean;
  /** As the driver sees it. */
  readonly speed: number;
  /** As the driver sees it. */
  readonly duplex: number;
  /** Frames that may wait for a queue. */
  readonly waitingFrames: number;
  /** Bytes that may wait for a queue. */
  readonly waitingBytes: number;
}

/**
 * Checks options and says what they mean.
 *
 * @throws {TypeError} If there is no back end.
 * @throws {RangeError} If a value is out of range.
 */
export function settle(options: NetDeviceOptions): NetSettings {
  const { backend } = options;
  if (typeof backend?.deliver !== "function" || typeof backend.connect !== "function") {
    throw new TypeError("A network device needs a back end: give { backend }");
  }
  const pairs = checkInteger("queuePairs", options.queuePairs, 1, 1024, 1);
  const queueSize = checkInteger("queueSize", options.queueSize, 1, 32768, 256);
  const most = backend.maxMtu ?? MAX_MTU;
  const mtu = checkInteger("mtu", options.mtu, 68, MAX_MTU, most < MAX_MTU ? most : 0);
  if (mtu > most) {
    throw new RangeError(
      `The back end carries an MTU of ${most} at most: ${mtu} cannot be offered`,
    );
  }
  let possible = BUILT;
  if (mtu === 0) possible &= ~VIRTIO_NET_F_MTU;
  if (pairs === 1) possible &= ~(VIRTIO_NET_F_MQ | VIRTIO_NET_F_RSS);
  const features = offerable(possible & (options.features ?? BUILT));
  const queueSizes = new Array<number>(2 * pairs).fill(queueSize);
  if (hasFeature(features, VIRTIO_NET_F_CTRL_VQ)) queueSizes.push(CONTROL_QUEUE_SIZE);
  return {
    features,
    mac: parseMac(options.mac),
    mtu,
    pairs,
    queueSizes,
    linkUp: options.linkUp ?? true,
    speed: checkInteger("speed", options.speed, 0, 0x7fff_ffff, 0xffff_ffff),
    duplex: options.duplex === undefined ? 0xff : options.duplex === "full" ? 1 : 0,
    waitingFrames: checkInteger("waiting.frames", options.waiting?.frames, 0, 2 ** 20, 1024),
    waitingBytes: checkInteger("waiting.bytes", options.waiting?.bytes, 0, 2 ** 30, 2 ** 22),
  };
}

/** The configuration space at first. */
export function makeConfig(settings: NetSettings): ConfigSpace {
  // All fields are read-only for the driver (5.1.4).
  const config = new ConfigSpace(NET_CONFIG_SIZE);
  const { view } = config;
  const at = NetConfigOffset;
  config.bytes.set(settings.mac, at.mac);
  view.setUint16(at.max_virtqueue_pairs, settings.pairs, true);
  view.setUint16(at.mtu, settings.mtu, true);
  view.setUint32(at.speed, settings.speed, true);
  view.setUint8(at.duplex, settings.duplex);
  if (hasFeature(settings.features, VIRTIO_NET_F_RSS)) {
    view.setUint16(at.rss_max_indirection_table_length, CONTROL_LIMITS.tableLength, true);
  }
  if ((settings.features & (VIRTIO_NET_F_RSS | VIRTIO_NET_F_HASH_REPORT)) !== 0n) {
    view.setUint8(at.rss_max_key_size, CONTROL_LIMITS.keySize);
    view.setUint32(at.supported_hash_types, CONTROL_LIMITS.hashTypes, true);
  }
  return config;
}

/** Leaves out what depends on something that is not there. */
function offerable(features: FeatureSet): FeatureSet {
  let left = features;
  // The control queue and checksums are the only ones that others need, and need nothing themselves: one round is enough.
  for (const [feature, needed] of [...REQUIRES, ...OFFERED_WITH]) {
    if (!hasFeature(left, needed)) left &= ~feature;
  }
  if ((left & GUEST_TSO) === 0n) left &= ~VIRTIO_NET_F_GUEST_ECN;
  if ((left & HOST_TSO) === 0n) left &= ~VIRTIO_NET_F_HOST_ECN;
  return left;
}

/** Whether the requirements with an "or" are met (5.1.3.1). */
export function acceptable(features: FeatureSet): boolean {
  if (hasFeature(features, VIRTIO_NET_F_GUEST_ECN) && (features & GUEST_TSO) === 0n) return false;
  return !hasFeature(features, VIRTIO_NET_F_HOST_ECN) || (features & HOST_TSO) !== 0n;
}

const HOST_OFFLOADS: readonly (readonly [feature: FeatureSet, offload: number])[] = [
  [VIRTIO_NET_F_CSUM, Offload.csum],
  [VIRTIO_NET_F_HOST_TSO4, Offload.tso4],
  [VIRTIO_NET_F_HOST_TSO6, Offload.tso6],
  [VIRTIO_NET_F_HOST_ECN, Offload.ecn],
  [VIRTIO_NET_F_HOST_UFO, Offload.ufo],
  [VIRTIO_NET_F_HOST_USO, Offload.uso4 | Offload.uso6],
];

/** What a driver may ask for in the header of a frame that it sends: bits of `Offload`. */
export function hostOffloads(features: FeatureSet): number {
  let offloads = 0;
  for (const [feature, offload] of HOST_OFFLOADS) {
    if (hasFeature(features, feature)) offloads |= offload;
  }
  return offloads;
}

/** A MAC address that is locally administered, of one station (IEEE 802, 9.2). */
export function randomMac(): Uint8Array {
  const mac = crypto.getRandomValues(new Uint8Array(6));
  mac[0] = (mac[0]! & 0xfc) | 2;
  return mac;
}

function parseMac(mac: Uint8Array | string | undefined): Uint8Array {
  if (mac === undefined) {
    return randomMac();
  }
  const bytes = typeof mac === "string" ? macOf(mac) : mac.slice();
  if (bytes?.length !== 6 || (bytes[0]! & 1) !== 0) {
    throw new RangeError(`mac must be the address of one station, 6 bytes: it is ${String(mac)}`);
  }
  return bytes;
}

function macOf(text: string): Uint8Array | null {
  if (!/^[0-9a-f]{2}([:-][0-9a-f]{2}){5}$/i.test(text)) return null;
  return Uint8Array.from(text.split(/[:-]/), (byte) => parseInt(byte, 16));
}

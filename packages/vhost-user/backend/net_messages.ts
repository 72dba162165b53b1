/** What vhost-user has for network devices alone (virtio 1.4, 5.1). */
import { DeviceId, hasFeature } from "@virtio/device";
import type { Served } from "./served.ts";

/** Device type of a network device. */
export const DEVICE_ID_NET: number = DeviceId.net;

const VIRTIO_NET_F_MTU = 1n << 3n;
/** Offset of `mtu` in the configuration space. */
const MTU_OFFSET = 10;
const MTU_SIZE = 2;
const MIN_MTU = 68;
const MAX_MTU = 65535;

/** What GET_QUEUE_NUM answers: network devices are counted by pairs. */
export function queueCountOf({ type, queueSizes }: Served): number {
  return type === DEVICE_ID_NET ? Math.floor(queueSizes.length / 2) : queueSizes.length;
}

/** Whether NET_SET_MTU is all right: the host's MTU is what the device shows, if it shows one, or less. */
export function setMtu(served: Served, features: bigint, mtu: bigint): boolean {
  if (mtu < BigInt(MIN_MTU) || mtu > BigInt(MAX_MTU)) return false;
  const config = served.config();
  if (!hasFeature(features, VIRTIO_NET_F_MTU) || config.length < MTU_OFFSET + MTU_SIZE) return true;
  return Number(mtu) <= new DataView(config.buffer, config.byteOffset).getUint16(MTU_OFFSET, true);
}

/**
 * The frame by which a station tells switches where it is: a reverse ARP request for its own address. For `announce` of a
 * server.
 *
 * @param mac The station's, 6 bytes.
 */
export function rarpFrame(mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(60);
  frame.fill(0xff, 0, 6);
  frame.set(mac, 6);
  // EtherType, hardware, protocol, sizes of their addresses, operation "request reverse".
  frame.set([0x80, 0x35, 0, 1, 8, 0, 6, 4, 0, 3], 12);
  frame.set(mac, 22);
  frame.set(mac, 32);
  return frame;
}

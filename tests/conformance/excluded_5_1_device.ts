/** Statements of 5.1 about devices without a test, each with the reason. */

const STANDBY = "VIRTIO_NET_F_STANDBY is not built: the device never offers it";
const OUT_NET_HEADER = "VIRTIO_NET_F_OUT_NET_HEADER is not built: no header has outer_nh_offset";
const TUNNEL =
  "VIRTIO_NET_F_GUEST_UDP_TUNNEL_GSO and _CSUM are not built: the device never offers them";
const RSC = "VIRTIO_NET_F_RSC_EXT is not built: the device never offers it";
const IPSEC = "VIRTIO_NET_F_IPSEC is not built: no header has an ipsec_resource_hdr";
const HASH_TUNNEL =
  "VIRTIO_NET_F_HASH_TUNNEL is not built: the device never offers it, and has no enabled_tunnel_types";
const CONTEXTS = "VIRTIO_NET_F_RSS_CONTEXT is not built: the device never offers it";
const FLOW_FILTER =
  "Flow filters are not built: they need the administration virtqueue, which is never offered";

function numbered(section: string, from: number, to: number, reason: string): [string, string][] {
  return Array.from({ length: to - from + 1 }, (_, i) => [`${section}${from + i}`, reason]);
}

/** Statements about what is not built. */
export const notBuilt: Record<string, string> = Object.fromEntries([
  ["5.1.4.1-D9", STANDBY],
  ...numbered("5.1.9.2.2-D", 3, 4, OUT_NET_HEADER),
  [
    "5.1.9.2.2-D9",
    "VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO is not built: no header has outer_th_offset and inner_nh_offset",
  ],
  ["5.1.9.2.2-D13", IPSEC],
  ...numbered("5.1.9.4.1-D", 13, 14, OUT_NET_HEADER),
  ...numbered("5.1.9.4.1-D", 19, 20, TUNNEL),
  ["5.1.9.4.1-D23", RSC],
  ...numbered("5.1.9.4.1-D", 27, 29, TUNNEL),
  ["5.1.9.4.1-D30", IPSEC],
  ...numbered("5.1.9.4.1-D", 32, 33, IPSEC),
  ...numbered("5.1.9.4.1-D", 35, 36, IPSEC),
  ...numbered("5.1.9.4.4.4-D", 1, 3, HASH_TUNNEL),
  ...numbered("5.1.9.5.8.3-D", 1, 2, CONTEXTS),
  ...numbered("5.1.9.6.4-D", 1, 21, FLOW_FILTER),
  ["5.1.9.6.4-D23", FLOW_FILTER],
  ...numbered("5.1.9.6.4-D", 26, 27, FLOW_FILTER),
  ...numbered("5.1.9.7.4-D", 1, 12, IPSEC),
]);

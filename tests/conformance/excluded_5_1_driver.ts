/** Statements of 5.1 about drivers without a test, each with the reason. */

const STANDBY = "VIRTIO_NET_F_STANDBY is not built: the driver never accepts it";
const OUT_NET_HEADER = "VIRTIO_NET_F_OUT_NET_HEADER is not built: no header has outer_nh_offset";
const TUNNEL =
  "VIRTIO_NET_F_HOST_UDP_TUNNEL_GSO and _CSUM are not built: the driver never asks for segments in tunnels";
const IPSEC = "VIRTIO_NET_F_IPSEC is not built: no header has an ipsec_resource_hdr";
const HASH_TUNNEL = "VIRTIO_NET_F_HASH_TUNNEL is not built: the driver never accepts it";
const CONTEXTS = "VIRTIO_NET_F_RSS_CONTEXT is not built: the driver never accepts it";
const FLOW_FILTER =
  "Flow filters are not built: they need the administration virtqueue, which the driver does not accept";

function numbered(section: string, from: number, to: number, reason: string): [string, string][] {
  return Array.from({ length: to - from + 1 }, (_, i) => [`${section}${from + i}`, reason]);
}

/** Statements about what is not built. */
export const notBuilt: Record<string, string> = Object.fromEntries([
  ["5.1.4.2-G9", STANDBY],
  ["5.1.9.2.1-G4", OUT_NET_HEADER],
  ...numbered("5.1.9.2.1-G", 11, 12, TUNNEL),
  ...numbered("5.1.9.2.1-G", 25, 29, TUNNEL),
  ...numbered("5.1.9.2.1-G", 35, 36, IPSEC),
  ["5.1.9.4.2-G2", OUT_NET_HEADER],
  ...numbered("5.1.9.4.4.5-G", 1, 3, HASH_TUNNEL),
  ...numbered("5.1.9.5.8.4-G", 1, 3, CONTEXTS),
  ...numbered("5.1.9.6.5-G", 1, 15, FLOW_FILTER),
  ...numbered("5.1.9.7.5-G", 1, 7, IPSEC),
]);

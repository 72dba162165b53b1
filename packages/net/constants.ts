/** What the standard names in its network device section (virtio 1.4, 5.1). */

/** Device handles packets with partial checksum (5.1.3). */
export const VIRTIO_NET_F_CSUM: bigint = 1n << 0n;
/** Driver handles packets with partial checksum (5.1.3). */
export const VIRTIO_NET_F_GUEST_CSUM: bigint = 1n << 1n;
/** Offloads can be switched through the control queue (5.1.3). */
export const VIRTIO_NET_F_CTRL_GUEST_OFFLOADS: bigint = 1n << 2n;
/** The device tells its maximum MTU (5.1.3). */
export const VIRTIO_NET_F_MTU: bigint = 1n << 3n;
/** The device has a MAC address (5.1.3). */
export const VIRTIO_NET_F_MAC: bigint = 1n << 5n;
/** Driver can receive TSOv4 (5.1.3). */
export const VIRTIO_NET_F_GUEST_TSO4: bigint = 1n << 7n;
/** Driver can receive TSOv6 (5.1.3). */
export const VIRTIO_NET_F_GUEST_TSO6: bigint = 1n << 8n;
/** Driver can receive TSO with ECN (5.1.3). */
export const VIRTIO_NET_F_GUEST_ECN: bigint = 1n << 9n;
/** Driver can receive UFO (5.1.3). */
export const VIRTIO_NET_F_GUEST_UFO: bigint = 1n << 10n;
/** Device can receive TSOv4 (5.1.3). */
export const VIRTIO_NET_F_HOST_TSO4: bigint = 1n << 11n;
/** Device can receive TSOv6 (5.1.3). */
export const VIRTIO_NET_F_HOST_TSO6: bigint = 1n << 12n;
/** Device can receive TSO with ECN (5.1.3). */
export const VIRTIO_NET_F_HOST_ECN: bigint = 1n << 13n;
/** Device can receive UFO (5.1.3). */
export const VIRTIO_NET_F_HOST_UFO: bigint = 1n << 14n;
/** Driver can merge receive buffers (5.1.3). */
export const VIRTIO_NET_F_MRG_RXBUF: bigint = 1n << 15n;
/** `status` is there (5.1.3). */
export const VIRTIO_NET_F_STATUS: bigint = 1n << 16n;
/** There is a control queue (5.1.3). */
export const VIRTIO_NET_F_CTRL_VQ: bigint = 1n << 17n;
/** Receive modes (5.1.3). */
export const VIRTIO_NET_F_CTRL_RX: bigint = 1n << 18n;
/** VLAN filtering (5.1.3). */
export const VIRTIO_NET_F_CTRL_VLAN: bigint = 1n << 19n;
/** More receive modes (5.1.3). */
export const VIRTIO_NET_F_CTRL_RX_EXTRA: bigint = 1n << 20n;
/** Driver can send gratuitous packets (5.1.3). */
export const VIRTIO_NET_F_GUEST_ANNOUNCE: bigint = 1n << 21n;
/** Several pairs of queues with automatic receive steering (5.1.3). */
export const VIRTIO_NET_F_MQ: bigint = 1n << 22n;
/** The MAC address can be set through the control queue (5.1.3). */
export const VIRTIO_NET_F_CTRL_MAC_ADDR: bigint = 1n << 23n;
/** Statistics through the control queue (5.1.3). */
export const VIRTIO_NET_F_DEVICE_STATS: bigint = 1n << 50n;
/** Inner header hash (5.1.3). Not built: never offered. */
export const VIRTIO_NET_F_HASH_TUNNEL: bigint = 1n << 51n;
/** Notification coalescing of single virtqueues (5.1.3). */
export const VIRTIO_NET_F_VQ_NOTF_COAL: bigint = 1n << 52n;
/** Notification coalescing (5.1.3). */
export const VIRTIO_NET_F_NOTF_COAL: bigint = 1n << 53n;
/** Driver can receive USOv4 (5.1.3). */
export const VIRTIO_NET_F_GUEST_USO4: bigint = 1n << 54n;
/** Driver can receive USOv6 (5.1.3). */
export const VIRTIO_NET_F_GUEST_USO6: bigint = 1n << 55n;
/** Device can receive USO (5.1.3). */
export const VIRTIO_NET_F_HOST_USO: bigint = 1n << 56n;
/** The device can report a hash with each packet (5.1.3). */
export const VIRTIO_NET_F_HASH_REPORT: bigint = 1n << 57n;
/** Driver gives the exact `hdr_len` (5.1.3). */
export const VIRTIO_NET_F_GUEST_HDRLEN: bigint = 1n << 59n;
/** Receive-side scaling (5.1.3). */
export const VIRTIO_NET_F_RSS: bigint = 1n << 60n;
/** Coalesced segments (5.1.3). Not built: never offered. */
export const VIRTIO_NET_F_RSC_EXT: bigint = 1n << 61n;
/** Standby (5.1.3). Not built: never offered. */
export const VIRTIO_NET_F_STANDBY: bigint = 1n << 62n;
/** `speed` and `duplex` are there (5.1.3). */
export const VIRTIO_NET_F_SPEED_DUPLEX: bigint = 1n << 63n;

/** Offsets in `struct virtio_net_config` (5.1.4). */
export const NetConfigOffset = {
  /** 6 bytes. */
  mac: 0,
  /** le16. */
  status: 6,
  /** le16. */
  max_virtqueue_pairs: 8,
  /** le16. */
  mtu: 10,
  /** le32, Mbit/s. */
  speed: 12,
  /** u8. */
  duplex: 16,
  /** u8, bytes. */
  rss_max_key_size: 17,
  /** le16, entries. */
  rss_max_indirection_table_length: 18,
  /** le32. */
  supported_hash_types: 20,
  /** le32. Not built. */
  supported_tunnel_types: 24,
} as const;
/** Bytes of `struct virtio_net_config` without what is not built. */
export const NET_CONFIG_SIZE = 24;

/** Bit of `status`: the link is up (5.1.4). */
export const VIRTIO_NET_S_LINK_UP = 1;
/** Bit of `status`: the driver should announce itself (5.1.4). */
export const VIRTIO_NET_S_ANNOUNCE = 2;

/** Flag of a header: the checksum is to be completed (5.1.9). */
export const VIRTIO_NET_HDR_F_NEEDS_CSUM = 1;
/** Flag of a header: the checksum was found right (5.1.9). */
export const VIRTIO_NET_HDR_F_DATA_VALID = 2;
/** Flag of a header: coalesced segments (5.1.9). Not built. */
export const VIRTIO_NET_HDR_F_RSC_INFO = 4;

/** `gso_type`: one packet (5.1.9). */
export const VIRTIO_NET_HDR_GSO_NONE = 0;
/** `gso_type`: TCP over IPv4 to be segmented (5.1.9). */
export const VIRTIO_NET_HDR_GSO_TCPV4 = 1;
/** `gso_type`: UDP to be cut into IP fragments, UFO (5.1.9). */
export const VIRTIO_NET_HDR_GSO_UDP = 3;
/** `gso_type`: TCP over IPv6 to be segmented (5.1.9). */
export const VIRTIO_NET_HDR_GSO_TCPV6 = 4;
/** `gso_type`: UDP to be cut into UDP packets, USO (5.1.9). */
export const VIRTIO_NET_HDR_GSO_UDP_L4 = 5;
/** Bit of `gso_type`: the TCP packet has ECN set (5.1.9). */
export const VIRTIO_NET_HDR_GSO_ECN = 0x80;

/** Offsets in `struct virtio_net_hdr` (5.1.9). */
export const NetHeaderOffset = {
  /** u8. */
  flags: 0,
  /** u8. */
  gso_type: 1,
  /** le16. */
  hdr_len: 2,
  /** le16. */
  gso_size: 4,
  /** le16. */
  csum_start: 6,
  /** le16. */
  csum_offset: 8,
  /** le16. */
  num_buffers: 10,
  /** le32, with VIRTIO_NET_F_HASH_REPORT. */
  hash_value: 12,
  /** le16, with VIRTIO_NET_F_HASH_REPORT. */
  hash_report: 16,
} as const;
/** Bytes of `struct virtio_net_hdr` without a hash report. */
export const NET_HEADER_SIZE = 12;
/** Bytes of `struct virtio_net_hdr` with VIRTIO_NET_F_HASH_REPORT. */
export const NET_HEADER_HASH_SIZE = 20;

/** Bytes of an Ethernet header without tags. */
export const ETHERNET_HEADER_SIZE = 14;
/** Bytes of the longest frame: an IPv6 header and 65,535 bytes behind an Ethernet header (5.1.9.3), and two tags. */
export const MAX_FRAME_SIZE = 65_597;

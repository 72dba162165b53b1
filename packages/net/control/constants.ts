/**
 * What the standard names in its section on the control virtqueue (virtio 1.4, 5.1.9.5). Hash types and reports are in
 * offload/hash.ts.
 *
 * Classes and commands are numbers of `struct virtio_net_ctrl`.
 */

/** `ack`: done (5.1.9.5). */
export const VIRTIO_NET_OK = 0;
/** `ack`: not done, and nothing was changed (5.1.9.5). */
export const VIRTIO_NET_ERR = 1;

/** Class: receive modes, one byte each, 0 (off) or 1 (on) (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX = 0;
/** Command: everything is received (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX_PROMISC = 0;
/** Command: every multicast frame is received (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX_ALLMULTI = 1;
/** Command: every unicast frame is received (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX_ALLUNI = 2;
/** Command: no multicast frame is received (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX_NOMULTI = 3;
/** Command: no unicast frame is received (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX_NOUNI = 4;
/** Command: no broadcast frame is received (5.1.9.5.1). */
export const VIRTIO_NET_CTRL_RX_NOBCAST = 5;

/** Class: MAC addresses (5.1.9.5.2). */
export const VIRTIO_NET_CTRL_MAC = 1;
/** Command: a table of unicast, then one of multicast addresses (5.1.9.5.2). */
export const VIRTIO_NET_CTRL_MAC_TABLE_SET = 0;
/** Command: the device's own address (5.1.9.5.2). */
export const VIRTIO_NET_CTRL_MAC_ADDR_SET = 1;

/** Class: VLAN filter (5.1.9.5.3). */
export const VIRTIO_NET_CTRL_VLAN = 2;
/** Command: a VLAN is received (5.1.9.5.3). */
export const VIRTIO_NET_CTRL_VLAN_ADD = 0;
/** Command: a VLAN is not received any more (5.1.9.5.3). */
export const VIRTIO_NET_CTRL_VLAN_DEL = 1;

/** Class: announcing (5.1.9.5.4). */
export const VIRTIO_NET_CTRL_ANNOUNCE = 3;
/** Command: the driver has seen VIRTIO_NET_S_ANNOUNCE (5.1.9.5.4). */
export const VIRTIO_NET_CTRL_ANNOUNCE_ACK = 0;

/** Class: several pairs of queues (5.1.9.5.5). */
export const VIRTIO_NET_CTRL_MQ = 4;
/** Command: automatic receive steering over so many pairs (5.1.9.5.6). */
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_SET = 0;
/** Command: receive-side scaling (5.1.9.5.7). */
export const VIRTIO_NET_CTRL_MQ_RSS_CONFIG = 1;
/** Command: what is hashed, and with which key (5.1.9.5.6.4). */
export const VIRTIO_NET_CTRL_MQ_HASH_CONFIG = 2;
/** Fewest pairs (5.1.9.5.6). */
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MIN = 1;
/** Most pairs (5.1.9.5.6). */
export const VIRTIO_NET_CTRL_MQ_VQ_PAIRS_MAX = 0x8000;

/** Class: offloads of received frames (5.1.9.5.9). */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS = 5;
/** Command: which of the negotiated VIRTIO_NET_F_GUEST_ offloads are on, a le64 of feature bits (5.1.9.5.9). */
export const VIRTIO_NET_CTRL_GUEST_OFFLOADS_SET = 0;

/** Class: notification coalescing (5.1.9.5.10). */
export const VIRTIO_NET_CTRL_NOTF_COAL = 6;
/** Command: parameters of all transmit queues (5.1.9.5.10). */
export const VIRTIO_NET_CTRL_NOTF_COAL_TX_SET = 0;
/** Command: parameters of all receive queues (5.1.9.5.10). */
export const VIRTIO_NET_CTRL_NOTF_COAL_RX_SET = 1;
/** Command: parameters of one queue (5.1.9.5.10). */
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_SET = 2;
/** Command: asks for the parameters of one queue (5.1.9.5.10). */
export const VIRTIO_NET_CTRL_NOTF_COAL_VQ_GET = 3;

/** Class: statistics (5.1.9.5.11). */
export const VIRTIO_NET_CTRL_STATS = 8;
/** Command: asks which types there are (5.1.9.5.11.1). */
export const VIRTIO_NET_CTRL_STATS_QUERY = 0;
/** Command: asks for statistics (5.1.9.5.11.2). */
export const VIRTIO_NET_CTRL_STATS_GET = 1;

/** Bit of the types of statistics: of the control queue (5.1.9.5.11.3). */
export const VIRTIO_NET_STATS_TYPE_CVQ: number = 0x1_0000_0000;
/** Bit of the types of statistics: those that every receive queue has (5.1.9.5.11.4). */
export const VIRTIO_NET_STATS_TYPE_RX_BASIC: number = 1 << 0;
/** Bit of the types of statistics: of a receive queue about checksums (5.1.9.5.11.6). */
export const VIRTIO_NET_STATS_TYPE_RX_CSUM: number = 1 << 1;
/** Bit of the types of statistics: of a receive queue about frames that are not segmented (5.1.9.5.11.8). */
export const VIRTIO_NET_STATS_TYPE_RX_GSO: number = 1 << 2;
/** Bit of the types of statistics: of a receive queue about exceeded speed (5.1.9.5.11.10). Not built: never offered. */
export const VIRTIO_NET_STATS_TYPE_RX_SPEED: number = 1 << 3;
/** Bit of the types of statistics: those that every transmit queue has (5.1.9.5.11.5). */
export const VIRTIO_NET_STATS_TYPE_TX_BASIC: number = 1 << 16;
/** Bit of the types of statistics: of a transmit queue about checksums (5.1.9.5.11.7). */
export const VIRTIO_NET_STATS_TYPE_TX_CSUM: number = 1 << 17;
/** Bit of the types of statistics: of a transmit queue about frames to be segmented (5.1.9.5.11.9). */
export const VIRTIO_NET_STATS_TYPE_TX_GSO: number = 1 << 18;
/** Bit of the types of statistics: of a transmit queue about exceeded speed (5.1.9.5.11.11). Not built: never offered. */
export const VIRTIO_NET_STATS_TYPE_TX_SPEED: number = 1 << 19;

/** `type` of a reply to VIRTIO_NET_STATS_TYPE_CVQ (5.1.9.5.11.3). */
export const VIRTIO_NET_STATS_TYPE_REPLY_CVQ = 32;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_RX_BASIC (5.1.9.5.11.4). */
export const VIRTIO_NET_STATS_TYPE_REPLY_RX_BASIC = 0;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_RX_CSUM (5.1.9.5.11.6). */
export const VIRTIO_NET_STATS_TYPE_REPLY_RX_CSUM = 1;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_RX_GSO (5.1.9.5.11.8). */
export const VIRTIO_NET_STATS_TYPE_REPLY_RX_GSO = 2;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_RX_SPEED (5.1.9.5.11.10). */
export const VIRTIO_NET_STATS_TYPE_REPLY_RX_SPEED = 3;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_TX_BASIC (5.1.9.5.11.5). */
export const VIRTIO_NET_STATS_TYPE_REPLY_TX_BASIC = 16;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_TX_CSUM (5.1.9.5.11.7). */
export const VIRTIO_NET_STATS_TYPE_REPLY_TX_CSUM = 17;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_TX_GSO (5.1.9.5.11.9). */
export const VIRTIO_NET_STATS_TYPE_REPLY_TX_GSO = 18;
/** `type` of a reply to VIRTIO_NET_STATS_TYPE_TX_SPEED (5.1.9.5.11.11). */
export const VIRTIO_NET_STATS_TYPE_REPLY_TX_SPEED = 19;

/**
 * What the receive queue of a pair did (virtio 1.4, 5.1.9.5.11): the data path counts, VIRTIO_NET_CTRL_STATS_GET reports.
 * Plain numbers: counting costs a store.
 */
export class ReceiveStats {
  /** `rx_packets`: passed to the driver. */
  packets = 0;
  /** `rx_bytes`: of those. */
  bytes = 0;
  /** `rx_drops`: dropped for whatever reason. */
  drops = 0;
  /** `rx_drop_overruns`: dropped because there was no buffer. */
  dropOverruns = 0;
  /** `rx_csum_valid`: with VIRTIO_NET_HDR_F_DATA_VALID. */
  csumValid = 0;
  /** `rx_needs_csum`: with VIRTIO_NET_HDR_F_NEEDS_CSUM. */
  needsCsum = 0;
  /** `rx_csum_none`: of a protocol whose checksum the device does not know. */
  csumNone = 0;
  /** `rx_csum_bad`: with a wrong checksum. */
  csumBad = 0;
  /** `rx_gso_packets`: passed on with a `gso_type`. */
  gsoPackets = 0;
  /** `rx_gso_bytes`: of those. */
  gsoBytes = 0;
  /** `rx_gso_packets_coalesced`: of those, which the device put together itself. */
  gsoPacketsCoalesced = 0;
  /** `rx_gso_bytes_coalesced`: of those. */
  gsoBytesCoalesced = 0;
}

/** What the transmit queue of a pair did; see `ReceiveStats`. */
export class TransmitStats {
  /** `tx_packets`: sent by the device, segments one by one. */
  packets = 0;
  /** `tx_bytes`: of those. */
  bytes = 0;
  /** `tx_drops`: dropped for whatever reason. */
  drops = 0;
  /** `tx_drop_malformed`: dropped because the buffer was. */
  dropMalformed = 0;
  /** `tx_csum_none`: with a whole checksum. */
  csumNone = 0;
  /** `tx_needs_csum`: whose checksum the device calculated. */
  needsCsum = 0;
  /** `tx_gso_packets`: given with a `gso_type`. */
  gsoPackets = 0;
  /** `tx_gso_bytes`: of those. */
  gsoBytes = 0;
  /** `tx_gso_segments`: made of them. */
  gsoSegments = 0;
  /** `tx_gso_segments_bytes`: of those. */
  gsoSegmentsBytes = 0;
  /** `tx_gso_packets_noseg`: passed on as they were. */
  gsoPacketsNoseg = 0;
  /** `tx_gso_bytes_noseg`: of those. */
  gsoBytesNoseg = 0;
}

/**
 * What the receive queue of a pair did since the device was made (virtio 1.4, 5.1.9.5.11): the data path counts,
 * VIRTIO_NET_CTRL_STATS_GET reports.
 */
export interface ReceiveCounters {
  /** `rx_packets`: passed to the driver. */
  readonly packets: number;
  /** `rx_bytes`: of those. */
  readonly bytes: number;
  /** `rx_drops`: dropped for whatever reason. */
  readonly drops: number;
  /** `rx_drop_overruns`: dropped because there was no buffer. */
  readonly dropOverruns: number;
  /** `rx_csum_valid`: with VIRTIO_NET_HDR_F_DATA_VALID. */
  readonly csumValid: number;
  /** `rx_needs_csum`: with VIRTIO_NET_HDR_F_NEEDS_CSUM. */
  readonly needsCsum: number;
  /** `rx_csum_none`: of a protocol whose checksum the device does not know. */
  readonly csumNone: number;
  /** `rx_csum_bad`: with a wrong checksum. */
  readonly csumBad: number;
  /** `rx_gso_packets`: passed on with a `gso_type`. */
  readonly gsoPackets: number;
  /** `rx_gso_bytes`: of those. */
  readonly gsoBytes: number;
  /** `rx_gso_packets_coalesced`: of those, which the device put together itself. */
  readonly gsoPacketsCoalesced: number;
  /** `rx_gso_bytes_coalesced`: of those. */
  readonly gsoBytesCoalesced: number;
}

/** What the transmit queue of a pair did; see `ReceiveCounters`. */
export interface TransmitCounters {
  /** `tx_packets`: sent by the device, segments one by one. */
  readonly packets: number;
  /** `tx_bytes`: of those. */
  readonly bytes: number;
  /** `tx_drops`: dropped for whatever reason. */
  readonly drops: number;
  /** `tx_drop_malformed`: dropped because the buffer was. */
  readonly dropMalformed: number;
  /** `tx_csum_none`: with a whole checksum. */
  readonly csumNone: number;
  /** `tx_needs_csum`: whose checksum the device calculated. */
  readonly needsCsum: number;
  /** `tx_gso_packets`: given with a `gso_type`. */
  readonly gsoPackets: number;
  /** `tx_gso_bytes`: of those. */
  readonly gsoBytes: number;
  /** `tx_gso_segments`: made of them. */
  readonly gsoSegments: number;
  /** `tx_gso_segments_bytes`: of those. */
  readonly gsoSegmentsBytes: number;
  /** `tx_gso_packets_noseg`: passed on as they were. */
  readonly gsoPacketsNoseg: number;
  /** `tx_gso_bytes_noseg`: of those. */
  readonly gsoBytesNoseg: number;
}

import type { ReceiveCounters, TransmitCounters } from "./control/counters.ts";
import type { FrameTally } from "./pass.ts";

/** What one transmit queue did since the device was made. Plain numbers: counting costs a store. */
export class TransmitStats {
  /** Frames that were sent; one that is segmented counts once. */
  frames = 0;
  /** Bytes of those, without headers of virtio. */
  bytes = 0;
  /** Frames among them whose checksum was left to the device. */
  needsChecksum = 0;
  /** Frames among them that were to be segmented. */
  gsoFrames = 0;
  /** Bytes of those. */
  gsoBytes = 0;
  /** Frames among them that the device finished in software, because the back end cannot. */
  finished = 0;
  /** Bytes of those among them that were to be segmented. */
  cutBytes = 0;
  /** Those among them that were to be segmented. */
  cutFrames = 0;
  /** What was made of frames that were to be segmented. */
  readonly segments: FrameTally = { frames: 0, bytes: 0 };
  /** Frames dropped because they, or their headers, break a rule. */
  malformed = 0;
  /** Frames dropped because they are longer than the MTU allows (5.1.4.2). */
  tooLong = 0;
  /** Frames dropped because the link was down. */
  linkDown = 0;

  /** Frames dropped for whatever reason. */
  get dropped(): number {
    return this.malformed + this.tooLong + this.linkDown;
  }

  /** The same, as the driver can ask for it (5.1.9.5.11). */
  get counters(): TransmitCounters {
    const { segments, cutFrames, cutBytes } = this;
    return {
      packets: this.frames - cutFrames + segments.frames,
      bytes: this.bytes - cutBytes + segments.bytes,
      drops: this.dropped,
      dropMalformed: this.malformed,
      csumNone: this.frames - this.needsChecksum,
      needsCsum: this.needsChecksum,
      gsoPackets: this.gsoFrames,
      gsoBytes: this.gsoBytes,
      gsoSegments: segments.frames,
      gsoSegmentsBytes: segments.bytes,
      gsoPacketsNoseg: this.gsoFrames - cutFrames,
      gsoBytesNoseg: this.gsoBytes - cutBytes,
    };
  }
}

/** What one receive queue did since the device was made. Plain numbers: counting costs a store. */
export class ReceiveStats {
  /** Frames that the driver got. */
  frames = 0;
  /** Bytes of those, without headers of virtio. */
  bytes = 0;
  /** Buffers that hold them. */
  buffers = 0;
  /** Frames among them whose checksum is partial. */
  needsChecksum = 0;
  /** Frames among them whose checksum is said to be right. */
  valid = 0;
  /** Frames among them that are not segmented. */
  gsoFrames = 0;
  /** Bytes of those. */
  gsoBytes = 0;
  /** Frames that had to wait for buffers: each was copied once more. */
  waited = 0;
  /** Frames dropped because there were no buffers, and no room to wait. */
  overruns = 0;
  /** Frames dropped because they are longer than the buffers, or than the MTU allows (5.1.4.1). */
  tooLong = 0;
  /** Frames dropped because the driver took the queue away, or reset the device, while they waited. */
  abandoned = 0;

  /** Frames dropped for whatever reason. */
  get dropped(): number {
    return this.overruns + this.tooLong + this.abandoned;
  }

  /** The same, as the driver can ask for it (5.1.9.5.11). */
  get counters(): ReceiveCounters {
    return {
      packets: this.frames,
      bytes: this.bytes,
      drops: this.dropped,
      dropOverruns: this.overruns,
      csumValid: this.valid,
      needsCsum: this.needsChecksum,
      csumNone: this.frames - this.valid - this.needsChecksum,
      // A frame with a wrong checksum is the driver's to find out.
      csumBad: 0,
      gsoPackets: this.gsoFrames,
      gsoBytes: this.gsoBytes,
      // Nothing is put together here: what arrives unsegmented was sent so.
      gsoPacketsCoalesced: 0,
      gsoBytesCoalesced: 0,
    };
  }
}

/** What a network device did since it was made. */
export class NetStats {
  /** Of each transmit queue. */
  readonly sent: readonly TransmitStats[];
  /** Of each receive queue. */
  readonly received: readonly ReceiveStats[];
  /** Frames for the driver that its filters did not want. */
  filtered = 0;
  /** Frames for the driver that came while the link was down, no driver was there, or it was resetting the queue. */
  unheard = 0;
  /** Frames for the driver that were finished in software, because it takes no others. */
  finished = 0;
  /** Frames for the driver that the back end described wrongly. */
  malformed = 0;

  /** @param pairs Pairs of queues. */
  constructor(pairs: number) {
    this.sent = Array.from({ length: pairs }, () => new TransmitStats());
    this.received = Array.from({ length: pairs }, () => new ReceiveStats());
  }

  /** Frames that the driver sent. */
  get framesSent(): number {
    return this.sent.reduce((sum, { frames }) => sum + frames, 0);
  }

  /** Bytes that the driver sent. */
  get bytesSent(): number {
    return this.sent.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Frames that the driver received. */
  get framesReceived(): number {
    return this.received.reduce((sum, { frames }) => sum + frames, 0);
  }

  /** Bytes that the driver received. */
  get bytesReceived(): number {
    return this.received.reduce((sum, { bytes }) => sum + bytes, 0);
  }

  /** Frames dropped in either direction, but for those that nobody wanted. */
  get dropped(): number {
    return this.sent.reduce((sum, { dropped }) => sum + dropped, 0) +
      this.received.reduce((sum, { dropped }) => sum + dropped, 0) + this.malformed;
  }
}

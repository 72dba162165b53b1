import type { FeatureSet } from "@virtio/device";
import type { ChainReader, ChainWriter } from "@virtio/vring";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
} from "../constants.ts";
import * as types from "./constants.ts";
import type { ReceiveCounters, TransmitCounters } from "./counters.ts";

/** Where statistics come from. */
export interface StatsHost {
  /** Of every queue of the device: kicks that reached it, and used buffer notifications that it sent. */
  readonly queueCounters: readonly { readonly kicks: number; readonly interrupts: number }[];
  /** What the receive queue of a pair did. */
  receiveCounters(pair: number): ReceiveCounters;
  /** What the transmit queue of a pair did. */
  transmitCounters(pair: number): TransmitCounters;
}

/** Which queues have a type of statistics. */
const Kind = { receive: 0, transmit: 1, control: 2 } as const;

interface StatsType {
  /** `type` of the reply. */
  readonly reply: number;
  /** Which queues have it. */
  readonly kind: number;
  /** It can be had with any one of these features; always if there are none. */
  readonly needs: FeatureSet;
  /** The counters, in the order of the structure. */
  readonly counters: (statistics: Statistics, queue: number) => readonly number[];
}

const TYPES: readonly StatsType[] = [
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_CVQ,
    kind: Kind.control,
    needs: 0n,
    counters: (statistics) => [statistics.commands, statistics.successes],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_BASIC,
    kind: Kind.receive,
    needs: 0n,
    counters: ({ host }, queue) => {
      const { kicks, interrupts } = host.queueCounters[queue]!;
      const rx = host.receiveCounters(queue >> 1);
      return [kicks, rx.packets, rx.bytes, interrupts, rx.drops, rx.dropOverruns];
    },
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_CSUM,
    kind: Kind.receive,
    needs: VIRTIO_NET_F_GUEST_CSUM,
    counters: ({ host }, queue) => {
      const rx = host.receiveCounters(queue >> 1);
      return [rx.csumValid, rx.needsCsum, rx.csumNone, rx.csumBad];
    },
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_GSO,
    kind: Kind.receive,
    needs: VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6,
    counters: ({ host }, queue) => {
      const rx = host.receiveCounters(queue >> 1);
      return [rx.gsoPackets, rx.gsoBytes, rx.gsoPacketsCoalesced, rx.gsoBytesCoalesced];
    },
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_BASIC,
    kind: Kind.transmit,
    needs: 0n,
    counters: ({ host }, queue) => {
      const { kicks, interrupts } = host.queueCounters[queue]!;
      const tx = host.transmitCounters(queue >> 1);
      return [kicks, tx.packets, tx.bytes, interrupts, tx.drops, tx.dropMalformed];
    },
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_CSUM,
    kind: Kind.transmit,
    needs: VIRTIO_NET_F_CSUM,
    counters: ({ host }, queue) => {
      const tx = host.transmitCounters(queue >> 1);
      return [tx.csumNone, tx.needsCsum];
    },
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_GSO,
    kind: Kind.transmit,
    needs: VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_USO,
    counters: ({ host }, queue) => {
      const tx = host.transmitCounters(queue >> 1);
      return [
        tx.gsoPackets,
        tx.gsoBytes,
        tx.gsoSegments,
        tx.gsoSegmentsBytes,
        tx.gsoPacketsNoseg,
        tx.gsoBytesNoseg,
      ];
    },
  },
];

/** Bytes of an entry of `struct virtio_net_ctrl_queue_stats`. */
const ENTRY_SIZE = 16;
/** Bytes of `struct virtio_net_stats_reply_hdr`. */
const REPLY_HEADER_SIZE = 8;
/** Bytes of the longest reply. */
const MAX_REPLY_SIZE = REPLY_HEADER_SIZE + 6 * 8;
/** A driver may ask for the types of a queue one by one, but not for ever. */
const ENTRIES_PER_QUEUE = 4;
/** Bytes of `struct virtio_net_stats_capabilities`. */
export const STATS_CAPABILITIES_SIZE = 8;

/** Device statistics (virtio 1.4, 5.1.9.5.11). */
export class Statistics {
  /** Where the counters are. */
  readonly host: StatsHost;
  /** `command_num`. */
  commands = 0;
  /** `ok_num`. */
  successes = 0;
  #pairs = 1;
  /** Types that can be had: bits 0 to 31. */
  #low = 0;
  /** Bits 32 to 63. */
  #high = 0;
  /** What is asked for: queue and two halves of the types, in turn. */
  #asked = new Uint32Array(0);
  #count = 0;
  readonly #reply: Uint8Array = new Uint8Array(MAX_REPLY_SIZE);
  readonly #view: DataView = new DataView(this.#reply.buffer);

  /** @param host Where the counters are. */
  constructor(host: StatsHost) {
    this.host = host;
  }

  /** What can be had follows from what was negotiated. */
  reset(features: FeatureSet, pairs: number): void {
    this.#pairs = pairs;
    this.#low = 0;
    this.#high = 0;
    for (const { reply, needs } of TYPES) {
      if (needs !== 0n && (features & needs) === 0n) continue;
      if (reply < 32) this.#low = (this.#low | 1 << reply) >>> 0;
      else this.#high |= 1 << reply - 32;
    }
  }

  /**
   * VIRTIO_NET_CTRL_STATS_QUERY. Types whose feature was not negotiated are left out: a driver that asked for them would get
   * nothing at all.
   */
  query(writer: ChainWriter): void {
    writer.u32(this.#low);
    writer.u32(this.#high);
  }

  /**
   * Reads what VIRTIO_NET_CTRL_STATS_GET asks for.
   *
   * @returns Whether all of it can be had.
   */
  read(reader: ChainReader): boolean {
    const entries = reader.remaining / ENTRY_SIZE;
    const controlQueue = 2 * this.#pairs;
    if (!Number.isInteger(entries) || entries > ENTRIES_PER_QUEUE * (controlQueue + 1)) {
      return false;
    }
    if (this.#asked.length < 3 * entries) this.#asked = new Uint32Array(3 * entries);
    for (let i = 0; i < entries; i++) {
      const at = reader.struct(ENTRY_SIZE);
      const queue = reader.view.getUint16(at, true);
      const low = reader.view.getUint32(at + 8, true);
      const high = reader.view.getUint32(at + 12, true);
      if (queue > controlQueue) return false;
      const kind = queue === controlQueue ? Kind.control : queue & 1;
      if ((low & ~this.#ofKind(kind, false)) !== 0 || (high & ~this.#ofKind(kind, true)) !== 0) {
        return false;
      }
      this.#asked.set([queue, low, high], 3 * i);
    }
    this.#count = entries;
    return true;
  }

  /** Answers what `read` read, as far as there is room. */
  write(writer: ChainWriter): void {
    for (let i = 0; i < this.#count; i++) {
      const [queue, low, high] = this.#asked.subarray(3 * i, 3 * i + 3) as unknown as [
        number,
        number,
        number,
      ];
      for (const type of TYPES) {
        const asked = type.reply < 32 ? low >>> type.reply : high >>> type.reply - 32;
        if ((asked & 1) === 0) continue;
        if (writer.remaining === 0) return;
        writer.writeFrom(this.#reply, 0, this.#compose(type, queue));
      }
    }
  }

  /** Writes a reply into the scratch. @returns Its size. */
  #compose(type: StatsType, queue: number): number {
    const counters = type.counters(this, queue);
    const size = REPLY_HEADER_SIZE + 8 * counters.length;
    const view = this.#view;
    view.setUint8(0, type.reply);
    view.setUint8(1, 0);
    view.setUint16(2, queue, true);
    view.setUint16(4, 0, true);
    view.setUint16(6, size, true);
    counters.forEach((counter, i) => {
      // Both keep 32 bits of what they are given, so a counter begins again at 2^64 (5.1.9.5.11.12).
      view.setUint32(REPLY_HEADER_SIZE + 8 * i, counter, true);
      view.setUint32(REPLY_HEADER_SIZE + 8 * i + 4, Math.floor(counter / 2 ** 32), true);
    });
    return size;
  }

  /** The types that can be had of a kind of queue. */
  #ofKind(kind: number, high: boolean): number {
    let bits = 0;
    for (const type of TYPES) {
      if (type.kind === kind && type.reply >= 32 === high) bits |= 1 << (type.reply & 31);
    }
    return bits & (high ? this.#high : this.#low);
  }
}

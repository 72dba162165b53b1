import type { FeatureSet } from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import {
  VIRTIO_NET_F_CSUM,
  VIRTIO_NET_F_GUEST_CSUM,
  VIRTIO_NET_F_GUEST_TSO4,
  VIRTIO_NET_F_GUEST_TSO6,
  VIRTIO_NET_F_HOST_TSO4,
  VIRTIO_NET_F_HOST_TSO6,
  VIRTIO_NET_F_HOST_USO,
  VIRTIO_NET_F_SPEED_DUPLEX,
} from "../constants.ts";
import * as types from "../control/constants.ts";

/** Which queues have a type of statistics. */
type QueueKind = "receive" | "transmit" | "control";

interface StatisticsType {
  /** `type` of the reply; the bit with this number asks for it. */
  readonly reply: number;
  readonly kind: QueueKind;
  /** It can be had with any one of these features; always if there are none. */
  readonly needs: FeatureSet;
  /** Names of the counters, as the standard has them. */
  readonly counters: readonly string[];
}

const TYPES: readonly StatisticsType[] = [
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_CVQ,
    kind: "control",
    needs: 0n,
    counters: ["command_num", "ok_num"],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_BASIC,
    kind: "receive",
    needs: 0n,
    counters: [
      "rx_notifications",
      "rx_packets",
      "rx_bytes",
      "rx_interrupts",
      "rx_drops",
      "rx_drop_overruns",
    ],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_CSUM,
    kind: "receive",
    needs: VIRTIO_NET_F_GUEST_CSUM,
    counters: ["rx_csum_valid", "rx_needs_csum", "rx_csum_none", "rx_csum_bad"],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_GSO,
    kind: "receive",
    needs: VIRTIO_NET_F_GUEST_TSO4 | VIRTIO_NET_F_GUEST_TSO6,
    counters: [
      "rx_gso_packets",
      "rx_gso_bytes",
      "rx_gso_packets_coalesced",
      "rx_gso_bytes_coalesced",
    ],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_RX_SPEED,
    kind: "receive",
    needs: VIRTIO_NET_F_SPEED_DUPLEX,
    counters: ["rx_packets_allowance_exceeded", "rx_bytes_allowance_exceeded"],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_BASIC,
    kind: "transmit",
    needs: 0n,
    counters: [
      "tx_notifications",
      "tx_packets",
      "tx_bytes",
      "tx_interrupts",
      "tx_drops",
      "tx_drop_malformed",
    ],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_CSUM,
    kind: "transmit",
    needs: VIRTIO_NET_F_CSUM,
    counters: ["tx_csum_none", "tx_needs_csum"],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_GSO,
    kind: "transmit",
    needs: VIRTIO_NET_F_HOST_TSO4 | VIRTIO_NET_F_HOST_TSO6 | VIRTIO_NET_F_HOST_USO,
    counters: [
      "tx_gso_packets",
      "tx_gso_bytes",
      "tx_gso_segments",
      "tx_gso_segments_bytes",
      "tx_gso_packets_noseg",
      "tx_gso_bytes_noseg",
    ],
  },
  {
    reply: types.VIRTIO_NET_STATS_TYPE_REPLY_TX_SPEED,
    kind: "transmit",
    needs: VIRTIO_NET_F_SPEED_DUPLEX,
    counters: ["tx_packets_allowance_exceeded", "tx_bytes_allowance_exceeded"],
  },
];

/** Bytes of `struct virtio_net_stats_reply_hdr`. */
const REPLY_HEADER_SIZE = 8;
/** Bytes of an entry of `struct virtio_net_ctrl_queue_stats`. */
const ENTRY_SIZE = 16;

/** What a device says that one of its queues did, by the names of 5.1.9.5.11. */
export interface QueueStatistics {
  /** Index of the virtqueue. */
  readonly queue: number;
  /** The counters; one that the device does not have is not there. */
  readonly counters: Readonly<Record<string, bigint>>;
}

/** `command-specific-data` of VIRTIO_NET_CTRL_STATS_GET, and the room that its answer needs. */
export interface StatisticsRequest {
  /** The entries. */
  readonly data: Uint8Array;
  /** Bytes of all replies. */
  readonly resultSize: number;
  /** The queues asked for. */
  readonly queues: readonly number[];
  /** For each queue, the `type` of the replies that may come. */
  readonly replies: readonly ReadonlySet<number>[];
}

/**
 * Asks for all that can be had of some queues: types that the device has, that are valid for the queue, and whose feature was
 * negotiated (5.1.9.5.11.13).
 *
 * @param supported `supported_stats_types`.
 * @param controlQueue Index of the control queue.
 */
export function requestStatistics(
  queues: readonly number[],
  supported: bigint,
  features: FeatureSet,
  controlQueue: number,
): StatisticsRequest {
  const data = new Uint8Array(ENTRY_SIZE * queues.length);
  const view = new DataView(data.buffer);
  let resultSize = 0;
  const replies = queues.map((queue, i) => {
    const kind: QueueKind = queue === controlQueue
      ? "control"
      : queue % 2 === 0
      ? "receive"
      : "transmit";
    const wanted = TYPES.filter((type) =>
      type.kind === kind && (supported >> BigInt(type.reply) & 1n) === 1n &&
      (type.needs === 0n || (features & type.needs) !== 0n)
    );
    view.setUint16(ENTRY_SIZE * i, queue, true);
    const bitmap = wanted.reduce((bits, { reply }) => bits | 1n << BigInt(reply), 0n);
    view.setBigUint64(ENTRY_SIZE * i + 8, bitmap, true);
    for (const { counters } of wanted) resultSize += REPLY_HEADER_SIZE + 8 * counters.length;
    return new Set(wanted.map(({ reply }) => reply));
  });
  return { data, resultSize, queues, replies };
}

/**
 * Reads the answer. Replies may have grown since this was written: counters that are not known are passed over.
 *
 * @throws {DriverError} If it is not what was asked for.
 */
export function readStatistics(request: StatisticsRequest, result: Uint8Array): QueueStatistics[] {
  const view = new DataView(result.buffer, result.byteOffset, result.length);
  const found = request.queues.map((queue) => ({
    queue,
    counters: {} as Record<string, bigint>,
  }));
  for (let at = 0; at < result.length;) {
    if (at + REPLY_HEADER_SIZE > result.length) throw malformed("ends within a header");
    const reply = view.getUint8(at);
    const queue = view.getUint16(at + 2, true);
    const size = view.getUint16(at + 6, true);
    const place = request.queues.indexOf(queue);
    if (place < 0 || !request.replies[place]!.has(reply)) {
      throw malformed(`tells of type ${reply} of queue ${queue}, which nobody asked for`);
    }
    if (size < REPLY_HEADER_SIZE || at + size > result.length) {
      throw malformed(`has a reply of ${size} bytes where ${result.length - at} are left`);
    }
    const { counters } = TYPES.find((type) => type.reply === reply)!;
    counters.forEach((name, i) => {
      const counter = REPLY_HEADER_SIZE + 8 * i;
      if (counter + 8 <= size) {
        found[place]!.counters[name] = view.getBigUint64(at + counter, true);
      }
    });
    at += size;
  }
  return found;
}

function malformed(what: string): DriverError {
  return new DriverError(`The device's answer about statistics ${what} (5.1.9.5.11.2)`);
}

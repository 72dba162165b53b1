import { DeviceId } from "@virtio/device";
import { DriverError, DriverSession, type DriverTransport } from "@virtio/device/driver";
import {
  ETHERNET_HEADER_SIZE,
  NET_HEADER_HASH_SIZE,
  NET_HEADER_SIZE,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_HASH_REPORT,
  VIRTIO_NET_F_MRG_RXBUF,
} from "../constants.ts";
import { offloadsOf } from "../control/offloads.ts";
import { hostOffloads } from "../settings.ts";
import { Offload } from "../sink.ts";
import { type NetInfo, readNetInfo } from "./info.ts";
import {
  NET_DRIVER_FEATURES,
  type NetDriverOptions,
  type NetDriverSettings,
  requirements,
} from "./options.ts";
import { ReceiveQueue, type ReceiveSetup } from "./receive_queue.ts";
import { TransmitQueue } from "./transmit_queue.ts";

/** Entries of the control queue: there is one command at a time. */
const CONTROL_QUEUE_SIZE = 16;
/** Longest frame that may come with segmentation offloads (5.1.9.3). */
const LONGEST_GSO_FRAME = 65_589;
/** Two tags, which neither the MTU nor the sizes of 5.1.9.3 count. */
const TAGS_SIZE = 8;

/** A device that runs, with its queues. */
export interface OpenedQueues {
  readonly session: DriverSession;
  /** What the device said of itself when the queues were set up. */
  readonly info: NetInfo;
  /** Receive queues, by pair. */
  readonly receive: readonly ReceiveQueue[];
  /** Transmit queues, by pair. */
  readonly transmit: readonly TransmitQueue[];
}

/** Initialises a device (5.1.5). What it throws, `NetDriver.open` says; nothing stays taken then. */
export async function openQueues(
  transport: DriverTransport,
  options: NetDriverOptions,
  settings: NetDriverSettings,
): Promise<OpenedQueues> {
  const wanted = (options.features ?? NET_DRIVER_FEATURES) & NET_DRIVER_FEATURES;
  const receive: ReceiveQueue[] = [];
  const transmit: TransmitQueue[] = [];
  let info: NetInfo | null = null;
  try {
    const session = await DriverSession.open(transport, {
      dma: options.dma,
      type: DeviceId.net,
      wanted,
      requires: requirements(wanted),
      ...(options.core === undefined ? {} : { core: options.core }),
      ...(options.patience === undefined ? {} : { patience: options.patience }),
      queues: (session) => {
        info = readNetInfo(session);
        return wantedQueues(session, info, settings);
      },
      setup: (session) => makeQueues(session, info!, settings, receive, transmit),
    });
    return { session, info: info!, receive, transmit };
  } catch (error) {
    for (const queue of [...receive, ...transmit]) queue.release();
    throw error;
  }
}

/** How many pairs of queues to set up. */
function pairCount(info: NetInfo, settings: NetDriverSettings): number {
  return Math.min(settings.queuePairs, info.maxQueuePairs);
}

/** The queues to set up, for `DriverSession` (5.1.5). */
function wantedQueues(
  session: DriverSession,
  info: NetInfo,
  settings: NetDriverSettings,
): { index: number; size: number }[] {
  const size = settings.queueSize;
  const count = 2 * pairCount(info, settings);
  const queues = Array.from({ length: count }, (_, index) => ({ index, size }));
  if (!session.has(VIRTIO_NET_F_CTRL_VQ)) return queues;
  return [...queues, { index: controlIndex(info), size: CONTROL_QUEUE_SIZE }];
}

/** 5.1.2: the queues that are not used count too. */
export function controlIndex(info: NetInfo): number {
  return 2 * info.maxQueuePairs;
}

/** Makes the queues' buffers, and gives the receive queues theirs (5.1.5). */
function makeQueues(
  session: DriverSession,
  info: NetInfo,
  settings: NetDriverSettings,
  receive: ReceiveQueue[],
  transmit: TransmitQueue[],
): void {
  const hashed = session.has(VIRTIO_NET_F_HASH_REPORT);
  const headerSize = hashed ? NET_HEADER_HASH_SIZE : NET_HEADER_SIZE;
  const offloads = offloadsOf(session.features);
  const gso = (offloads & ~Offload.csum) !== 0;
  const merge = session.has(VIRTIO_NET_F_MRG_RXBUF);
  const plain = (info.mtu ?? 1500) + ETHERNET_HEADER_SIZE;
  const setup: ReceiveSetup = {
    headerSize,
    merge,
    hashed,
    offloads,
    hashTypes: info.hashTypes,
    longest: Math.max(plain, gso ? LONGEST_GSO_FRAME : 0) + TAGS_SIZE,
    bufferSize: settings.receiveBufferSize,
    buffers: settings.receiveBuffers || (merge || !gso ? Infinity : 32),
  };
  const sending = {
    headerSize,
    offloads: hostOffloads(session.features),
    mtu: info.mtu ?? 0,
    memory: settings.transmitMemory,
  };
  if (session.has(VIRTIO_NET_F_CTRL_VQ) && session.queue(controlIndex(info)).size < 2) {
    throw new DriverError("The control queue has 1 entry: a command needs 2");
  }
  for (let pair = 0; pair < pairCount(info, settings); pair++) {
    receive.push(new ReceiveQueue(session, 2 * pair, setup));
    transmit.push(new TransmitQueue(session, 2 * pair + 1, sending));
  }
  for (const queue of receive) queue.fill();
}

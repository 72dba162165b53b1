import { type Chain, ChainOwner } from "./chain.ts";
import type { ChainPool } from "./chain_pool.ts";
import type { QueueConfig, QueuePosition } from "./queue.ts";

/** A chain that a device has, for those who look on. Plain data. */
export interface ChainLook {
  /** Split: the head's index. Packed: the buffer id. */
  readonly id: number;
  /** Counts chains of the queue: tells one chain from the next with the same id. */
  readonly sequence: number;
  /** Descriptors. */
  readonly descriptors: number;
  /** Device-readable bytes. */
  readonly readable: number;
  /** Device-writable bytes. */
  readonly writable: number;
  /** Whether the device is done with it, and it waits for earlier ones (VIRTIO_F_IN_ORDER). */
  readonly waits: boolean;
}

/** What the device side of a queue knows of itself at a moment; the rest lies in guest memory. Plain data. */
export interface QueueLook {
  /** The format. */
  readonly format: "split" | "packed";
  /** Where the queue lies. */
  readonly config: QueueConfig;
  /** How far it is, with what is used but not published yet. */
  readonly position: QueuePosition;
  /** Whether VIRTIO_F_EVENT_IDX is in use. */
  readonly eventIdx: boolean;
  /** Chains that the device has, in the order in which they came. */
  readonly chains: readonly ChainLook[];
}

/** Describes a queue of one's own. */
export function lookAtQueue(
  format: "split" | "packed",
  config: QueueConfig,
  position: QueuePosition,
  eventIdx: boolean,
  pool: ChainPool,
): QueueLook {
  return { format, config, position, eventIdx, chains: lookAtChains(pool.inFlight()) };
}

/** Oldest first. */
function lookAtChains(chains: readonly Chain[]): ChainLook[] {
  return chains.map((chain) => ({
    id: chain.id,
    sequence: chain.sequence,
    descriptors: chain.descriptors,
    readable: chain.readable,
    writable: chain.writable,
    waits: chain.owner === ChainOwner.ordered,
  })).sort((a, b) => a.sequence - b.sequence);
}

/**
 * What is written down of requests in flight, so that another process can go on where this one was killed. The front end keeps
 * the memory; both layouts are those of the protocol, so that another program can go on, too.
 *
 * What was in flight becomes available again in the ring itself: the part of the ring between what the driver saw used and what
 * the device had taken is written anew, with just those chains that are outstanding. Nobody else writes or reads there: the
 * driver gets those entries back only as others are used. So a queue always goes on from one position, however requests ended.
 */
import type { GuestMemory } from "@virtio/memory";
import {
  type Chain,
  type Queue,
  type QueueConfig,
  type QueuePosition,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";
import { ProtocolError } from "../protocol/errors.ts";
import { PackedInflight } from "./inflight_packed.ts";
import { SplitInflight } from "./inflight_split.ts";

/** The notes of one queue, in one of the two layouts. */
export interface Inflight {
  /**
   * Where the queue is to go on, if the notes are of a process that was killed: what is in flight is available again in the
   * ring from there on. Null if there are none.
   *
   * @throws {ProtocolError} If they cannot be notes of this queue.
   */
  recover(memory: GuestMemory, config: QueueConfig): QueuePosition | null;
  /** The queue begins, with nothing in flight. */
  begin(memory: GuestMemory, config: QueueConfig): void;
  /** A chain was taken. */
  popped(chain: Chain): void;
  /** A chain is about to be put back. */
  undone(chain: Chain): void;
  /** Uses a chain on the ring's own queue. */
  push(queue: Queue, chain: Chain, written: number): void;
  /** Publishes what was used on the ring's own queue. */
  flush(queue: Queue): boolean;
  /** The queue was stopped in good order: there is nothing to recover. */
  end(): void;
}

/** Where the notes of one queue are. */
export interface InflightPlace {
  /** Memory that outlives this process. */
  readonly buffer: SharedArrayBuffer;
  /** Offset of the queue's part. */
  readonly offset: number;
  /** Entries that it has room for. */
  readonly entries: number;
}

const ALIGN = 64;

/** Bytes of the notes of one queue. */
export function inflightSize(entries: number, packed: boolean): number {
  const bytes = packed ? 32 + 32 * entries : 16 + 16 * entries;
  return Math.ceil(bytes / ALIGN) * ALIGN;
}

/** The notes of a queue with these features. @throws {ProtocolError} If there can be none. */
export function openInflight(place: InflightPlace, features: bigint): Inflight {
  // The protocol says how a used element is noted, but not one that stands for all before it, as IN_ORDER has it: two programs
  // could understand different things. For rings in order it has the front end find in the ring what is in flight.
  if ((features & VIRTIO_F_IN_ORDER) !== 0n) {
    throw new ProtocolError(
      "With VIRTIO_F_IN_ORDER requests in flight cannot be noted: negotiate it, or give the notes, not both",
    );
  }
  return (features & VIRTIO_F_RING_PACKED) !== 0n
    ? new PackedInflight(place)
    : new SplitInflight(place);
}

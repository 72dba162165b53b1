/** What is written down of requests in flight, so that another process can go on where this one was killed. */
import type { GuestMemory } from "@virtio/memory";
import type { Chain, Queue, QueueConfig, QueuePosition } from "@virtio/vring";

/** The notes of one queue, in one of the two layouts. */
export interface Inflight {
  /**
   * Where the queue is to go on, if the notes are of a process that was killed: what is in flight is available again in the
   * ring from there on. Null if there are none.
   */
  recover(memory: GuestMemory, config: QueueConfig): QueuePosition | null;
  /** The queue begins, with nothing in flight. */
  begin(memory: GuestMemory, config: QueueConfig, features: bigint): void;
  /** A chain was taken. */
  popped(chain: Chain): void;
  /** A chain was put back. */
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
export function openInflight(_place: InflightPlace, _features: bigint): Inflight {
  throw new Error("not yet");
}
export function inflightSize(entries: number, packed: boolean): number {
  return packed ? 32 + 32 * entries : 16 + 16 * entries;
}

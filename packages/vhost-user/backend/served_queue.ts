/**
 * A queue as a vhost-user device has it: the ring's own queue, and around it what only this transport needs. A device sees one
 * class whatever the ring's format.
 */
import type { GuestMemory, MemoryRegion } from "@virtio/memory";
import {
  type Chain,
  openQueue,
  type Queue,
  type QueueConfig,
  type QueueLook,
  type QueueState,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
} from "@virtio/vring";
import type { Inflight } from "./inflight.ts";

/** See `Queue`; what is said there holds. */
export class ServedQueue implements Queue {
  /** Number of entries. */
  readonly size: number;
  /** Whether it goes on where somebody else was killed. */
  readonly recovered: boolean;
  /** Whether its thread looks for buffers by itself: kicks are not asked for then, though `arm` still tells what came. */
  polled = false;
  /** Chains taken so far. */
  taken = 0;
  readonly #queue: Queue;
  readonly #inflight: Inflight | null;
  readonly #packed: boolean;
  /** Where the driver tells of buffers: the available ring, or the descriptor ring. */
  readonly #u16: Uint16Array;
  readonly #at: number;
  /** Split: the next available index. Packed: the next slot, and its wrap counter. */
  #next: number;
  #wrap: number;

  /**
   * Opens it.
   *
   * @param inflight Where chains in flight are written down, or null.
   * @throws {VirtqueueError} If the ring cannot be.
   */
  constructor(
    memory: GuestMemory,
    config: QueueConfig,
    features: bigint,
    inflight: Inflight | null,
  ) {
    this.#packed = (features & VIRTIO_F_RING_PACKED) !== 0n;
    const recovered = inflight?.recover(memory, config) ?? null;
    const position = recovered ?? config.position;
    this.recovered = recovered !== null;
    const whole = position === undefined ? config : { ...config, position };
    this.#queue = openQueue(memory, whole, features);
    this.#inflight = inflight;
    this.size = this.#queue.size;
    this.#next = position?.nextAvail ?? 0;
    this.#wrap = position?.availWrap ?? 1;
    const area = this.#packed ? config.descriptorArea : config.driverArea;
    const length = this.#packed ? 16 * config.size : 4;
    const region: MemoryRegion = memory.lookupSegment(area, length)!;
    this.#u16 = region.u16;
    this.#at = (area - region.base) / 2 + (this.#packed ? 7 : 1);
    if (recovered === null) inflight?.begin(memory, whole);
  }

  /** See `Queue.inFlight`. */
  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /** Whether there are buffers, without asking for kicks: one load. */
  available(): boolean {
    if (!this.#packed) return Atomics.load(this.#u16, this.#at) !== this.#next;
    const flags = Atomics.load(this.#u16, (this.#at + 8 * this.#next) | 0) &
      (VIRTQ_DESC_F_AVAIL | VIRTQ_DESC_F_USED);
    return flags === (this.#wrap !== 0 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED);
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    const chain = this.#queue.pop();
    if (chain === null) return null;
    this.taken++;
    if (!this.#packed) {
      this.#next = (this.#next + 1) & 0xffff;
    } else {
      this.#next = (this.#next + chain.slots) | 0;
      if (this.#next >= this.size) {
        this.#next -= this.size;
        this.#wrap ^= 1;
      }
    }
    if (this.#inflight !== null) this.#inflight.popped(chain);
    return chain;
  }

  /** See `Queue.push`. */
  push(chain: Chain, written: number = chain.written): void {
    if (this.#inflight !== null) {
      this.#inflight.push(this.#queue, chain, written);
      return;
    }
    this.#queue.push(chain, written);
  }

  /** See `Queue.undo`. */
  undo(chain: Chain): void {
    const { slots } = chain;
    this.taken--;
    this.#inflight?.undone(chain);
    this.#queue.undo(chain);
    if (!this.#packed) {
      this.#next = (this.#next - 1) & 0xffff;
    } else if ((this.#next -= slots) < 0) {
      this.#next += this.size;
      this.#wrap ^= 1;
    }
  }

  /** See `Queue.flush`. */
  flush(): boolean {
    if (this.#inflight !== null) return this.#inflight.flush(this.#queue);
    return this.#queue.flush();
  }

  /** See `Queue.arm`. */
  arm(): boolean {
    return this.polled ? this.available() : this.#queue.arm();
  }

  /** See `Queue.suspend`. */
  suspend(): void {
    this.#queue.suspend();
  }

  /** See `Queue.abandon`. */
  abandon(): void {
    this.#queue.abandon();
  }

  /** The queue was stopped in good order. */
  end(): void {
    this.#inflight?.end();
  }

  /** See `Queue.snapshot`. */
  snapshot(): QueueState {
    return this.#queue.snapshot();
  }

  /** See `Queue.look`. */
  look(): QueueLook {
    return this.#queue.look();
  }
}

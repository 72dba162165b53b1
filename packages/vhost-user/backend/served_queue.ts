/**
 * A queue as a vhost-user device has it: the ring's own queue, and around it what only this transport needs. A device sees one
 * class whatever the ring's format.
 */
import type { GuestMemory } from "@virtio/memory";
import {
  type Chain,
  openQueue,
  type Queue,
  type QueueConfig,
  type QueueLook,
  type QueueState,
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
    const recovered = inflight?.recover(memory, config) ?? null;
    const position = recovered ?? config.position;
    this.recovered = recovered !== null;
    const whole = position === undefined ? config : { ...config, position };
    this.#queue = openQueue(memory, whole, features);
    this.#inflight = inflight;
    this.size = this.#queue.size;
    if (recovered === null) inflight?.begin(memory, whole);
  }

  /** See `Queue.inFlight`. */
  get inFlight(): number {
    return this.#queue.inFlight;
  }

  /** See `Queue.available`. */
  available(): boolean {
    return this.#queue.available();
  }

  /** See `Queue.pop`. */
  pop(): Chain | null {
    const chain = this.#queue.pop();
    if (chain !== null) {
      this.taken++;
      if (this.#inflight !== null) this.#inflight.popped(chain);
    }
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
    this.taken--;
    this.#inflight?.undone(chain);
    this.#queue.undo(chain);
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

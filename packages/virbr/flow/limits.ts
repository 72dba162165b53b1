import { TokenBucket } from "@virtio/net/wire";
import type { Guest } from "../ip/packet.ts";

/** What the guests behind one port may have together: a guest may call itself by several MAC addresses. */
export interface LimitOptions {
  /**
   * Flows at once: TCP connections, and UDP ports in use; 1,024 unless given. A connection takes two buffers: who allows more
   * raises `maxBuffers` of TCP too, of which the guests of one port get half at most.
   */
  readonly maxFlows?: number;
  /** New flows a second, on average; 1,000 unless given. */
  readonly flowRate?: number;
  /** New flows at once, before the rate counts; 2,000 unless given. */
  readonly flowBurst?: number;
}

class Share {
  flows = 0;
  /** When a flow began last. */
  last = 0;
  readonly bucket: TokenBucket;

  constructor(rate: number, burst: number) {
    this.bucket = new TokenBucket(rate, burst);
  }
}

/** Counts the flows of each port, and says when there are too many, or too many new ones. */
export class Limits {
  /** By name of the port. */
  readonly #shares: Map<string, Share> = new Map();
  /** For those who look on. */
  readonly #flows: WeakMap<Guest, number> = new WeakMap();
  readonly #maxFlows: number;
  readonly #rate: number;
  readonly #burst: number;

  /** @throws {RangeError} If an option is out of range. */
  constructor(options: LimitOptions) {
    this.#maxFlows = options.maxFlows ?? 1024;
    this.#rate = options.flowRate ?? 1000;
    this.#burst = options.flowBurst ?? 2000;
    if (!(Number.isInteger(this.#maxFlows) && this.#maxFlows >= 1)) {
      throw new RangeError(`maxFlows is an integer from 1: it is ${this.#maxFlows}`);
    }
    // The bucket knows what its own numbers may be.
    new TokenBucket(this.#rate, this.#burst);
  }

  /** Ports that something is remembered of. */
  get ports(): number {
    return this.#shares.size;
  }

  /** Takes a place for a flow. @returns Whether there was one; then `leave` gives it back. */
  enter(guest: Guest, now: number): boolean {
    let share = this.#shares.get(guest.port);
    if (share === undefined) {
      this.#sweep(now);
      this.#shares.set(guest.port, share = new Share(this.#rate, this.#burst));
    }
    if (share.flows >= this.#maxFlows || !share.bucket.take(now)) return false;
    share.flows++;
    share.last = now;
    this.#flows.set(guest, this.flows(guest) + 1);
    return true;
  }

  /** Gives a place back. */
  leave(guest: Guest): void {
    this.#shares.get(guest.port)!.flows--;
    this.#flows.set(guest, this.flows(guest) - 1);
  }

  /** Flows that a guest has. */
  flows(guest: Guest): number {
    return this.#flows.get(guest) ?? 0;
  }

  /** Forgets ports that have nothing, and whose buckets are full again. */
  #sweep(now: number): void {
    const full = 1000 * this.#burst / this.#rate;
    for (const [port, share] of this.#shares) {
      if (share.flows === 0 && now - share.last >= full) this.#shares.delete(port);
    }
  }
}

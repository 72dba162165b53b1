import { Chain, ChainOwner } from "./chain.ts";
import { VirtqueueError } from "./errors.ts";

/**
 * The chains of one queue: which are free, how many are in flight, and, with VIRTIO_F_IN_ORDER, which completed ones wait
 * for earlier ones. Free chains are kept in a list rather than by head index, because a driver may make the same head
 * available twice.
 */
export class ChainPool {
  /** Chains with the device, or waiting for earlier ones. */
  inFlight = 0;
  readonly #size: number;
  /** Sequence numbers count modulo this multiple of the size: they stay small integers, and their places stay right. */
  readonly #modulus: number;
  readonly #all: Chain[] = [];
  readonly #free: Chain[] = [];
  #freeCount = 0;
  #popped = 0;
  /** In-order: the chain of each sequence number, modulo the queue size. */
  readonly #order: (Chain | null)[] | null;
  #oldest = 0;

  constructor(size: number, inOrder: boolean) {
    this.#size = size;
    this.#modulus = Math.floor(0x2000_0000 / size) * size;
    this.#order = inOrder ? new Array<Chain | null>(size).fill(null) : null;
  }

  /** An empty chain. @throws {VirtqueueError} If the driver made more chains available than it has descriptors. */
  take(unflushed: number): Chain {
    if (this.inFlight + unflushed >= this.#size) {
      throw new VirtqueueError(
        "3.3.1",
        `The driver made buffers available again that are still in flight: ${this.inFlight} of at most ${this.#size}`,
      );
    }
    let chain: Chain;
    if (this.#freeCount > 0) {
      chain = this.#free[--this.#freeCount]!;
    } else {
      chain = new Chain(this);
      this.#all.push(chain);
    }
    chain.begin();
    return chain;
  }

  /** The chain was popped. */
  start(chain: Chain): void {
    chain.owner = ChainOwner.device;
    const sequence = this.#popped;
    chain.sequence = sequence;
    this.#popped = this.#after(sequence);
    this.inFlight++;
    if (this.#order !== null) this.#order[sequence % this.#size] = chain;
    chain.reader.begin();
    chain.writer.begin();
  }

  /** Back to the pool; for a chain that was not started, or was used. */
  put(chain: Chain): void {
    chain.owner = ChainOwner.pool;
    this.#free[this.#freeCount++] = chain;
  }

  /** The last popped chain is taken back. */
  undo(chain: Chain): void {
    if (
      chain.owner !== ChainOwner.device || chain.pool !== this ||
      this.#after(chain.sequence) !== this.#popped
    ) {
      throw new TypeError("Only the chain that was popped last can be put back");
    }
    this.#popped = chain.sequence;
    this.inFlight--;
    this.put(chain);
  }

  /** In-order: marks the chain as done with `written` bytes; `nextOrdered` then gives those whose turn it is. */
  hold(chain: Chain, written: number): void {
    chain.held = written;
    chain.owner = ChainOwner.ordered;
  }

  /** In-order: the next chain to use, oldest first, or null. */
  nextOrdered(): Chain | null {
    if (this.#oldest === this.#popped) return null;
    const chain = this.#order![this.#oldest % this.#size]!;
    if (chain.owner !== ChainOwner.ordered) return null;
    this.#oldest = this.#after(this.#oldest);
    return chain;
  }

  #after(sequence: number): number {
    return sequence + 1 === this.#modulus ? 0 : sequence + 1;
  }

  /** Whether completions are to be put in order. */
  get ordered(): boolean {
    return this.#order !== null;
  }

  /** All chains in flight are nobody's any more; whoever still holds one cannot push it, and it is never reused. */
  abandon(): void {
    for (const chain of this.#all) {
      if (chain.owner !== ChainOwner.pool) chain.owner = ChainOwner.dropped;
    }
    this.#all.length = 0;
    for (let i = 0; i < this.#freeCount; i++) this.#all.push(this.#free[i]!);
    this.inFlight = 0;
    this.#popped = 0;
    this.#oldest = 0;
  }
}

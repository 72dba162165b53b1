import type { MemoryRegion } from "@virtio/memory";
import { Chain, ChainOwner } from "./chain.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const POOL = ChainOwner.pool;
const DEVICE = ChainOwner.device;
/** Sequence numbers count modulo a power of two that keeps them small integers. */
const SEQUENCES = 0x3fff_ffff;
/** In place of an index. */
const FIRST = -1;

/**
 * The chains of one queue: which are free, and, with VIRTIO_F_IN_ORDER, which completed ones wait for earlier ones. Free
 * chains are kept in a list rather than by head index, because a driver may make the same head available twice.
 */
export class ChainPool {
  /** 1: completions are put in order. */
  ordered = 0;
  /** Kept apart from the others, since where chains are used one at a time no other is needed. */
  #first: Chain;
  /** All other chains, the free ones first; each knows its place here. */
  readonly #chains: Chain[] = [];
  #free = 0;
  #popped = 0;
  readonly #slots: number = 0;
  readonly #region: MemoryRegion;
  /** In-order: the chains that are not used yet, a ring of the queue's size with the oldest at `#oldest`. */
  readonly #order: (Chain | null)[] = [];
  #oldest = 0;
  #waiting = 0;

  /**
   * @param slots Ring slots that a chain takes, where all take the same.
   * @param region Where segments most likely lie.
   */
  constructor(size: number, slots: number, region: MemoryRegion, inOrder: boolean) {
    this.#region = region;
    this.ordered = inOrder ? 1 : 0;
    this.#slots = slots;
    while (inOrder && this.#order.length < size) this.#order.push(null);
    this.#first = this.#make(FIRST);
  }

  /** A chain for the device. */
  take(): Chain {
    let chain = this.#first;
    if (chain.owner !== POOL) chain = this.#takeOther();
    chain.owner = DEVICE;
    const sequence = this.#popped;
    chain.sequence = sequence;
    this.#popped = (sequence + 1) & SEQUENCES;
    if (this.ordered !== 0) this.#enqueue(chain);
    return chain;
  }

  #takeOther(): Chain {
    const chains = this.#chains;
    if (this.#free === 0) {
      const chain = this.#make(chains.length);
      chains.push(chain);
      return chain;
    }
    this.#free = (this.#free - 1) | 0;
    return chains[this.#free]!;
  }

  #make(index: number): Chain {
    const chain = new Chain(this, this.#region);
    chain.slots = this.#slots;
    chain.index = index;
    return chain;
  }

  #enqueue(chain: Chain): void {
    const order = this.#order;
    let at = this.#oldest + this.#waiting;
    if (at >= order.length) at -= order.length;
    order[at] = chain;
    this.#waiting++;
  }

  /** Back to the pool: the chain was used. */
  put(chain: Chain): void {
    chain.owner = POOL;
    if (chain.index !== FIRST) this.#putOther(chain);
  }

  #putOther(chain: Chain): void {
    if (chain.index !== this.#free) this.#move(chain);
    this.#free = (this.#free + 1) | 0;
  }

  /** Swaps a chain with the first one that is not free. */
  #move(chain: Chain): void {
    const chains = this.#chains;
    const other = chains[this.#free]!;
    const { index } = chain;
    chains[index] = other;
    other.index = index;
    chains[this.#free] = chain;
    chain.index = this.#free;
  }

  /**
   * Says why a chain cannot be used. That it cannot is found out by the queue's `push` itself, which has no room for this.
   *
   * @throws {TypeError} If it is not in flight on this queue.
   * @throws {RangeError} Otherwise: if `written` is more than its device-writable bytes.
   */
  refuse(chain: Chain, written: number): never {
    if (chain.owner !== DEVICE || chain.pool !== this) {
      throw new TypeError("Cannot use a chain that is not in flight on this queue");
    }
    throw new RangeError(
      `Cannot use a chain with ${written} bytes written: it has ${chain.writable} device-writable bytes`,
    );
  }

  /** `putBack` for the device. @throws {TypeError} If the chain is not the device's, or was not taken last. */
  undo(chain: Chain): void {
    const last = chain.owner === DEVICE && chain.pool === this &&
      ((chain.sequence + 1) & SEQUENCES) === this.#popped;
    if (!last) throw new TypeError("Only the chain that was popped last can be put back");
    this.putBack(chain);
  }

  /** Back to the pool, as if it had not been taken: the chain that was taken last. */
  putBack(chain: Chain): void {
    this.#popped = chain.sequence;
    if (this.ordered !== 0) this.#waiting--;
    this.put(chain);
  }

  /** In-order: whether it is the chain's turn, as nearly always; it is not waited for any more then. */
  isNext(chain: Chain): boolean {
    if (this.#order[this.#oldest] !== chain) return false;
    this.#advance();
    return true;
  }

  #advance(): void {
    const next = this.#oldest + 1;
    this.#oldest = next === this.#order.length ? 0 : next;
    this.#waiting--;
  }

  /** In-order: marks the chain as done with `written` bytes; `nextOrdered` then gives those whose turn it is. */
  hold(chain: Chain, written: number): void {
    chain.held = written;
    chain.owner = ChainOwner.ordered;
  }

  /** In-order: the next chain to use, oldest first, or null. */
  nextOrdered(): Chain | null {
    if (this.#waiting === 0) return null;
    const chain = this.#order[this.#oldest]!;
    if (chain.owner !== ChainOwner.ordered) return null;
    this.#advance();
    return chain;
  }

  /** Chains that are not used yet, in no order; for those who look on. */
  inFlight(): Chain[] {
    const others = this.#chains.slice(this.#free);
    return this.#first.owner === POOL ? others : [this.#first, ...others];
  }

  /** All chains in flight are nobody's any more; whoever still holds one cannot push it, and it is never reused. */
  abandon(): void {
    const chains = this.#chains;
    for (let i = this.#free; i < chains.length; i++) drop(chains[i]!);
    chains.length = this.#free;
    if (this.#first.owner !== POOL) {
      drop(this.#first);
      this.#first = this.#make(FIRST);
    }
    this.#popped = 0;
    this.#oldest = 0;
    this.#waiting = 0;
  }
}

function drop(chain: Chain): void {
  chain.owner = ChainOwner.dropped;
  // A device that goes on with it all the same finds nothing to read and no room to write.
  chain.begin();
  chain.reader.begin();
  chain.writer.begin();
}

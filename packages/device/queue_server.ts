/**
 * The only loop that pops, handles, pushes, flushes and notifies: one server for each queue of every device.
 *
 * Hot path: nothing is allocated for a chain that is handled at once; `handle` is one call site for all devices, and what it
 * calls is looked up once: a method looked up on an object of one of many classes costs more than calling it.
 * bench/device_bench.ts guards it.
 */
import { type Chain, ChainOwner, type Queue } from "@virtio/vring";
import { defer } from "./defer.ts";
import type { Activation } from "./device.ts";
import { enterKick, leaveKick, publishDue, publishSoon } from "./publishing.ts";
import { type LazyQueue, QueueCounters, type QueueHook } from "./queue_hook.ts";

/** The device keeps the chain, and completes it later. */
export const HOLD = false;
/** The device cannot take more now: the chain goes back to the queue, until the device calls `resume`. */
export const BUSY = true;

/** What a handler answers: nothing (the chain is used now), a promise (when it resolves), `HOLD` or `BUSY`. */
export type Handled = void | Promise<void> | typeof HOLD | typeof BUSY;

/** What is done with a chain of queue `index`; called as a method of the device. */
export type HandleChain = (chain: Chain, index: number) => Handled;

// To the compiler names of this module are constants; imported names are looked up at every use.
const DEVICE = ChainOwner.device;
/** A drain takes this many rings' worth of chains before it lets the event loop turn. */
const ROUNDS = 4;
/**
 * And about this many bytes, so that a ring full of the longest chains, all of the same memory, does not hold the loop up for
 * minutes. One chain more is taken when it is not reached.
 */
const BYTES = 1 << 26;
/** A descriptor counts as so many bytes: walking it costs about as much as copying them. */
const DESCRIPTOR_BYTES = 512;

function nothing(): void {}

/** Serves one queue. Owned by `QueueDevice`. */
export class QueueServer implements QueueHook, LazyQueue {
  /** The queue while it is started. */
  queue: Queue | null = null;
  /** What it did. */
  readonly counters: QueueCounters = new QueueCounters();
  readonly #index: number;
  readonly #device: object;
  readonly #handle: HandleChain;
  readonly #track: (work: Promise<void>) => void;
  /** Whether chains are handled when the driver kicks; otherwise the device takes them when it has something to say. */
  readonly #eager: boolean;
  #activation: Activation | null = null;
  /** Whether there is nothing that keeps the device from taking chains. */
  #free = false;
  #draining = false;
  #stopping = false;
  #busy = false;
  #held = false;
  /** Chains that a held queue may still give. */
  #steps = 0;
  /** See `BYTES`; less for a step. */
  #limit = BYTES;
  readonly #kick: (index: number) => void;
  /** See `publishInParts`. */
  #part = Infinity;
  #firstPart = Infinity;
  #beforePart: () => void = nothing;
  /** Whether `resume` was called while a chain was being handled: before the device could answer BUSY. */
  #resumed = false;
  #gated = false;
  #flushScheduled = false;
  #deferred = false;
  #stopped: Promise<Queue> | null = null;
  #resolveStopped: ((queue: Queue) => void) | null = null;
  readonly #flushLater: () => void;
  readonly #drainLater: () => void;

  /**
   * @param handle A method of the device.
   * @param track Told of each promise that it returns.
   * @param kick Has the device look at the queue again.
   */
  constructor(
    index: number,
    device: object,
    handle: HandleChain,
    track: (work: Promise<void>) => void,
    eager: boolean,
    kick: (index: number) => void,
  ) {
    this.#kick = kick;
    this.#index = index;
    this.#device = device;
    this.#handle = handle;
    this.#track = track;
    this.#eager = eager;
    this.#flushLater = () => {
      this.#flushScheduled = false;
      this.#flush();
    };
    this.#drainLater = () => {
      this.#deferred = false;
      enterKick();
      try {
        this.drain();
      } finally {
        leaveKick();
      }
    };
  }

  /**
   * Starts serving.
   *
   * @param gated No chain is taken before `open()`: work of an earlier life is not settled.
   */
  start(queue: Queue, activation: Activation, gated: boolean): void {
    this.queue = queue;
    this.#activation = activation;
    this.#stopping = false;
    this.#busy = false;
    this.#gated = gated;
    this.#setFree();
  }

  #setFree(): void {
    this.#free = this.queue !== null && !this.#stopping && !this.#gated && !this.#held;
  }

  /** Work of an earlier life is settled. @returns Whether that had been waited for. */
  open(): boolean {
    if (!this.#gated) return false;
    this.#gated = false;
    this.#setFree();
    this.drain();
    return true;
  }

  /**
   * Publishes whenever about so many bytes have been handled, rather than when the queue is empty: for a driver that runs beside
   * the device, and goes on with the first chains meanwhile. What these brought about in other queues is published too.
   *
   * @param bytes Counted as for `BYTES`; Infinity: not.
   * @param before Called before each publication.
   * @param first The first part of a batch; each later one is twice as large, up to `bytes`. As `bytes` unless given.
   */
  publishInParts(bytes: number, before: () => void = nothing, first: number = bytes): void {
    this.#part = bytes;
    this.#firstPart = first;
    this.#beforePart = before;
  }

  /** Takes no more chains. Returns the queue when nothing of it is in flight. */
  stop(): Queue | Promise<Queue> {
    const queue = this.queue;
    if (queue === null) throw new TypeError(`Queue ${this.#index} is not started`);
    this.#stopping = true;
    this.#free = false;
    if (queue.inFlight === 0 && !this.#draining) {
      this.#flush();
      this.queue = null;
      return queue;
    }
    // Not Promise.withResolvers: Node 20 has none.
    return this.#stopped ??= new Promise((resolve) => this.#resolveStopped = resolve);
  }

  /** Drops everything in flight, at once. */
  abandon(): void {
    const queue = this.queue;
    if (queue === null) return;
    queue.abandon();
    this.queue = null;
    this.#activation = null;
    this.#free = false;
    this.#resolve(queue);
  }

  #resolve(queue: Queue): void {
    const resolve = this.#resolveStopped;
    this.#stopped = null;
    this.#resolveStopped = null;
    resolve?.(queue);
  }

  /** See `QueueHook.held`. */
  get held(): boolean {
    return this.#held;
  }

  set held(held: boolean) {
    this.#held = held;
    this.#setFree();
    this.#steps = 0;
    this.#limit = BYTES;
    if (!held) this.#kick(this.#index);
  }

  /** See `QueueHook.step`. */
  step(): void {
    if (!this.#held) return;
    this.#steps++;
    // Any chain has as many bytes, as a drain counts.
    this.#limit = 1;
    this.#kick(this.#index);
  }

  /** The device can take chains again, after `BUSY`. */
  resume(): void {
    this.#busy = false;
    this.#resumed = true;
    this.drain();
  }

  /**
   * Handles what is available. Called by kicks; a kick from inside (a device that writes to its own doorbell) returns at
   * once, because the loop looks again anyway.
   */
  drain(): void {
    const queue = this.queue;
    const activation = this.#activation;
    if (queue === null || activation === null || this.#draining || this.#gated || !this.#eager) {
      return;
    }
    if (this.#stopping || this.#busy || (this.#held && this.#steps === 0)) return;
    this.#steps = 0;
    this.#draining = true;
    try {
      activation.memory.refresh();
      this.#rounds(queue, activation);
    } catch (error) {
      this.#failed(error, queue, activation);
    } finally {
      this.#draining = false;
    }
    // Reset and started again from inside: what was kicked meanwhile was not looked at.
    if (this.queue !== queue) this.#drainSoon();
    else if (this.#stopping) this.#checkStopped();
  }

  #drainSoon(): void {
    if (this.#deferred) return;
    this.#deferred = true;
    defer(this.#drainLater);
  }

  #rounds(queue: Queue, activation: Activation): void {
    let bytes = 0;
    const limit = this.#limit;
    for (let round = 0; round < ROUNDS; round++) {
      let step = this.#firstPart;
      let part = bytes + step;
      queue.suspend();
      // The queue itself bounds this loop: more chains than it has entries are an error of the driver.
      while (!this.#stopping && bytes < limit) {
        const chain = queue.pop();
        if (chain === null) break;
        this.counters.chains++;
        this.counters.descriptors += chain.descriptors;
        bytes += chain.readable + chain.writable + DESCRIPTOR_BYTES * chain.descriptors;
        this.#resumed = false;
        const handled = this.#handle.call(this.#device, chain, this.#index);
        if (typeof handled === "object") this.#track(handled);
        // The handler may have got the device reset.
        if (this.queue !== queue) return;
        if (handled === undefined) {
          queue.push(chain);
        } else if (handled === BUSY) {
          queue.undo(chain);
          this.#uncount(chain);
          if (this.#resumed) this.#drainSoon();
          else this.#busy = true;
          break;
        } else if (handled !== HOLD) {
          this.#await(chain, handled, activation);
        }
        if (bytes >= part) {
          step = Math.min(2 * step, this.#part);
          part = bytes + step;
          this.#publishPart(queue, activation);
          if (this.queue !== queue) return;
        }
      }
      if (queue.flush()) this.#interrupt(activation);
      if (this.queue !== queue || this.#stopping || this.#busy || this.#deferred) return;
      if (bytes >= limit) break;
      if (!queue.arm()) return;
    }
    // A driver that runs beside us can keep the queue full for ever; the event loop must turn all the same.
    this.#drainSoon();
  }

  #publishPart(queue: Queue, activation: Activation): void {
    this.#beforePart();
    this.#publish(queue, activation);
  }

  #publish(queue: Queue, activation: Activation): void {
    publishDue();
    if (this.queue === queue && queue.flush()) this.#interrupt(activation);
  }

  /** What was done before the driver's mistake is done. */
  #failed(error: unknown, queue: Queue, activation: Activation): void {
    try {
      this.#publish(queue, activation);
    } finally {
      activation.fail(error);
    }
  }

  #uncount(chain: Chain): void {
    this.counters.chains--;
    this.counters.descriptors -= chain.descriptors;
  }

  #await(chain: Chain, promise: Promise<void>, activation: Activation): void {
    promise.then(
      () => this.complete(chain),
      (error) => {
        if (chain.owner === ChainOwner.device) activation.fail(error);
      },
    );
  }

  /** The next chain, for a device that takes them when it has something to say; null if there is none. */
  take(): Chain | null {
    const queue = this.queue;
    const activation = this.#activation;
    if (queue === null || activation === null || (!this.#free && !this.#mayStep())) return null;
    try {
      activation.memory.refresh();
      let chain = queue.pop();
      if (chain === null && queue.arm()) chain = queue.pop();
      if (chain !== null) {
        this.counters.chains++;
        this.counters.descriptors += chain.descriptors;
      }
      return chain;
    } catch (error) {
      activation.fail(error);
      return null;
    }
  }

  #mayStep(): boolean {
    if (this.#stopping || this.#gated || this.#steps === 0) return false;
    this.#steps--;
    return true;
  }

  /** Puts the chain that was taken last back. */
  untake(chain: Chain): void {
    if (chain.owner !== ChainOwner.device || this.queue === null) return;
    this.queue.undo(chain);
    this.#uncount(chain);
    // What takes several chains needs as many steps.
    if (this.#held) this.#steps++;
  }

  /**
   * Uses a chain that was held, taken, or waited for. Ignored if a reset dropped it. What is completed in one kick, or in one
   * turn, is published together: see `publishSoon`.
   */
  complete(chain: Chain, written: number = chain.written): void {
    const queue = this.queue;
    const activation = this.#activation;
    if (queue === null || activation === null || chain.owner !== DEVICE) return;
    activation.memory.refresh();
    queue.push(chain, written);
    // Also while draining: a chain may be completed from inside the interrupt that follows the drain's own flush.
    if (this.#flushScheduled) return;
    this.#flushScheduled = true;
    publishSoon(this.#flushLater);
  }

  #flush(): void {
    const queue = this.queue;
    const activation = this.#activation;
    if (queue === null || activation === null) return;
    activation.memory.refresh();
    if (queue.flush()) this.#interrupt(activation);
    if (this.#stopping) this.#checkStopped();
  }

  #interrupt(activation: Activation): void {
    this.counters.interrupts++;
    activation.interrupt.queue(this.#index);
  }

  #checkStopped(): void {
    const queue = this.queue;
    if (queue === null || this.#stopped === null) return;
    if (queue.inFlight > 0 || this.#flushScheduled) return;
    this.queue = null;
    this.#resolve(queue);
  }
}

import { type Chain, ChainOwner, type Queue } from "@virtio/vring";
import { ConfigSpace } from "./config_space.ts";
import type { Activation, Device, SharedMemoryRegion } from "./device.ts";
import type { FeatureRequirement, FeatureSet } from "./features.ts";
import { enterKick, leaveKick, publishSoon } from "./publishing.ts";
import type { LazyQueue, QueueCounters, QueueHook } from "./queue_hook.ts";
import { type Handled, QueueServer } from "./queue_server.ts";

/** What a device is, before anything runs. */
export interface QueueDeviceInit {
  /** Device type (5). */
  readonly type: number;
  /** Feature bits of the device type; none unless given. */
  readonly features?: FeatureSet;
  /** Pairs of features of which the first needs the second; none unless given. */
  readonly requires?: readonly FeatureRequirement[];
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** Configuration space; none unless given. */
  readonly config?: ConfigSpace;
  /** Shared memory regions. */
  readonly sharedMemory?: readonly SharedMemoryRegion[];
  /** Queues that are not drained at a kick: the device takes their chains when it has something to say. */
  readonly lazyQueues?: readonly number[];
}

/**
 * A device whose data path is one method: `handle` gets each chain, checked, and the rest (kicks, batches, notifications,
 * reset, stop, completion in a later turn) is done here.
 *
 * @example An entropy device (virtio 1.4, 5.4)
 * ```ts
 * import { DeviceId, QueueDevice } from "@virtio/device";
 * import type { Chain } from "@virtio/vring";
 * import { assertEquals } from "@std/assert";
 *
 * class EntropyDevice extends QueueDevice {
 *   constructor() {
 *     super({ type: DeviceId.entropy, queueSizes: [256] });
 *   }
 *   protected override handle(chain: Chain): void {
 *     const bytes = new Uint8Array(Math.min(chain.writable, 65536));
 *     chain.writer.write(crypto.getRandomValues(bytes));
 *   }
 * }
 * assertEquals(new EntropyDevice().type, 4);
 * ```
 */
export abstract class QueueDevice implements Device {
  /** Device type (5). */
  readonly type: number;
  /** Feature bits of the device type that it offers. */
  readonly features: FeatureSet;
  /** Pairs of features of which the first needs the second. */
  readonly requires: readonly FeatureRequirement[];
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** The configuration space. */
  readonly config: ConfigSpace;
  /** Shared memory regions. */
  readonly sharedMemory: readonly SharedMemoryRegion[];
  readonly #servers: readonly QueueServer[];
  #activation: Activation | null = null;
  /** Promises of this life, and of earlier ones, that have not settled. */
  #pending = 0;
  #stale = 0;
  #life = 0;

  /** @param init What the device is. */
  constructor(init: QueueDeviceInit) {
    this.type = init.type;
    this.features = init.features ?? 0n;
    this.requires = init.requires ?? [];
    this.queueSizes = init.queueSizes;
    this.config = init.config ?? ConfigSpace.empty;
    this.sharedMemory = init.sharedMemory ?? [];
    const lazy = init.lazyQueues ?? [];
    this.#servers = init.queueSizes.map((_, index) =>
      new QueueServer(
        index,
        this,
        this.handle,
        (work) => this.track(work),
        !lazy.includes(index),
        (index) => this.#look(index),
      )
    );
  }

  /**
   * Handles one chain.
   *
   * Return nothing, and the chain is used with what its writer counted. Return a promise, and it is used when that
   * resolves; a rejection, like an exception, makes the device ask for a reset. Return `HOLD`, and call `complete` later.
   * Return `BUSY`, and the chain stays in the queue until `resume`.
   *
   * What works asynchronously must not touch guest memory after an `await` unless `isLive` says that the chain was not
   * dropped by a reset.
   *
   * @param chain The chain.
   * @param queue Index of its queue.
   */
  protected abstract handle(chain: Chain, queue: number): Handled;

  /**
   * Counts work that goes on in later turns. After a reset no chain is handled before all of it has settled, so that a late
   * write of an earlier life cannot overtake one of the next.
   */
  protected track(work: Promise<unknown>): void {
    const life = this.#life;
    this.#pending++;
    const settled = (): void => {
      if (life === this.#life) {
        this.#pending--;
      } else if (--this.#stale === 0) {
        this.#servers.forEach((server, index) => {
          if (server.open()) this.#kicked(index);
        });
      }
    };
    work.then(settled, settled);
  }

  /** What each queue did since the device was made. */
  get queueCounters(): readonly QueueCounters[] {
    return this.#servers.map((server) => server.counters);
  }

  /** Each queue, for those who look on, and let it go on chain by chain. */
  get queueHooks(): readonly QueueHook[] {
    return this.#servers;
  }

  /** What the driver negotiated, while the device is started. */
  protected get activation(): Activation | null {
    return this.#activation;
  }

  /** Uses a chain that `handle` held or `take` gave. Ignored if a reset dropped it. */
  protected complete(queue: number, chain: Chain): void {
    this.#servers[queue]!.complete(chain);
  }

  /** The next chain of a lazy queue, or null. */
  protected take(queue: number): Chain | null {
    return this.#servers[queue]!.take();
  }

  /** Puts the chain back that `take` gave last. */
  protected untake(queue: number, chain: Chain): void {
    this.#servers[queue]!.untake(chain);
  }

  /** What `take`, `untake` and `complete` do for one queue, for a device that does it often. Always the same object. */
  protected lazyQueue(queue: number): LazyQueue {
    return this.#servers[queue]!;
  }

  /** Handles chains again after `BUSY`. */
  protected resume(queue: number): void {
    this.#servers[queue]!.resume();
  }

  /**
   * Calls a function that was not given already at the end of the outermost kick, or of the turn: what the kicks of a batch
   * add up to is begun once.
   */
  protected soon(action: () => void): void {
    publishSoon(action);
  }

  /**
   * Runs what completes chains, such as a look at what the system has done, as if it were a kick: all of it is published before
   * this returns, also in a thread whose event loop never turns.
   */
  protected together<T>(action: () => T): T {
    enterKick();
    try {
      return action();
    } finally {
      leaveKick();
    }
  }

  /**
   * Has the queues publish whenever about `bytes` bytes have been handled, rather than at the end of a batch: for a driver that
   * runs beside the device, and goes on with the first chains meanwhile.
   *
   * @param before Called before each publication, to bring about what can be published.
   * @param first The first part of a batch; each later one is twice as large, up to `bytes`. As `bytes` unless given.
   */
  protected publishInParts(bytes: number, before?: () => void, first?: number): void {
    for (const server of this.#servers) server.publishInParts(bytes, before, first);
  }

  /** Whether a chain is still this device's: no reset came since it was handed out. */
  protected isLive(chain: Chain): boolean {
    return chain.owner === ChainOwner.device;
  }

  /** The driver set the device going; for a device that needs to know. */
  protected started(_activation: Activation): void {}

  /**
   * The device is being reset; for a device that has something to stop. A promise delays the end of the reset: return one
   * only if something may still touch guest memory.
   */
  protected stopped(): void | Promise<void> {}

  /** The driver kicked a lazy queue; for a device that waits for buffers. */
  protected kicked(_queue: number): void {}

  /** See `Device.start`. */
  start(activation: Activation): void {
    this.#activation = activation;
    this.started(activation);
  }

  /** See `Device.startQueue`. */
  startQueue(index: number, queue: Queue): void {
    const server = this.#servers[index];
    if (server === undefined || this.#activation === null) {
      throw new TypeError(`Queue ${index} cannot start: start the device first`);
    }
    server.start(queue, this.#activation, this.#stale > 0);
  }

  /** See `Device.stopQueue`. */
  stopQueue(index: number): Queue | Promise<Queue> {
    const server = this.#servers[index];
    if (server === undefined) throw new TypeError(`There is no queue ${index}`);
    return server.stop();
  }

  /** See `Device.notify`. */
  notify(index: number): void {
    const server = this.#servers[index];
    if (server === undefined) return;
    server.counters.kicks++;
    enterKick();
    try {
      this.#look(index);
    } finally {
      leaveKick();
    }
  }

  #look(index: number): void {
    this.#servers[index]!.drain();
    this.#kicked(index);
  }

  #kicked(index: number): void {
    try {
      this.kicked(index);
    } catch (error) {
      this.#activation?.fail(error);
    }
  }

  /** See `Device.stop`. */
  stop(): void | Promise<void> {
    if (this.#activation === null) return;
    this.#activation = null;
    this.#life++;
    this.#stale += this.#pending;
    this.#pending = 0;
    for (const server of this.#servers) server.abandon();
    return this.stopped();
  }
}

/**
 * A device core on the bench: a device whose chains a test handles, a `DeviceState` without registers around it, and a
 * driver's transport right on that (local_transport_testing.ts). Not published.
 */
import { GuestMemory } from "@virtio/memory";
import { type Chain, type QueueConfig, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import { BufferList, DmaPool, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import {
  placeQueue,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../vring/testing/raw_driver.ts";
import {
  ConfigSpace,
  CORE_FEATURES,
  type Device,
  DeviceState,
  type FeatureSet,
  type Handled,
  HOLD,
  QueueDevice,
  type QueueDeviceInit,
  type SavedDevice,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from "./mod.ts";

export { LocalTransport, type LocalTransportOptions } from "./local_transport_testing.ts";

/** ACKNOWLEDGE and DRIVER. */
export const FOUND = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
/** Up to FEATURES_OK. */
export const AGREED = FOUND | VIRTIO_STATUS_FEATURES_OK;
/** The status of a device that runs. */
export const LIVE = AGREED | VIRTIO_STATUS_DRIVER_OK;
/** The type of `TestDevice`. */
export const TEST_TYPE = 4;

/** Turns of the event loop, for what goes on in the background. */
export async function turns(count = 3): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** A promise to settle from outside. */
export function later(): { promise: Promise<void>; resolve: () => void; reject: () => void } {
  let resolve!: () => void;
  let reject!: () => void;
  const promise = new Promise<void>((yes, no) => {
    resolve = yes;
    reject = () => no(new Error("the back end failed"));
  });
  return { promise, resolve, reject };
}

/** Copies what the device may read to where it may write. */
export function echo(chain: Chain): void {
  const bytes = new Uint8Array(Math.min(chain.readable, chain.writable));
  chain.reader.read(bytes);
  chain.writer.write(bytes);
}

/** A device that does with its chains what the test says: it echoes unless told otherwise. */
export class TestDevice extends QueueDevice {
  /** What happens to a chain. */
  handler: (chain: Chain, queue: number) => Handled = echo;
  /** What `stopped` answers. */
  stopping: () => void | Promise<void> = () => {};
  /** Called when the device is started. */
  starting: () => void = () => {};
  /** Called for each kick of a queue. */
  onKick: (queue: number) => void = () => {};
  /** The chains that were handled, oldest first. */
  readonly handled: { queue: number; bytes: number[] }[] = [];
  /** The chains that `hold` kept. */
  held: { chain: Chain; queue: number }[] = [];
  /** How often it was started and stopped. */
  starts = 0;
  stops = 0;
  /** Which subset of the features it can work with; any unless given. */
  acceptable: ((features: FeatureSet) => boolean) | null = null;
  /** State of its own. */
  own: unknown = null;

  constructor(init: Partial<QueueDeviceInit> = {}) {
    super({
      type: TEST_TYPE,
      queueSizes: [8, 8],
      config: new ConfigSpace(16, () => true),
      ...init,
    });
  }

  /** Keeps every chain from now on, until `release`. */
  hold(): void {
    this.handler = (chain, queue) => {
      this.held.push({ chain, queue });
      return HOLD;
    };
  }

  /** Uses the kept chains; the later ones are echoed at once. */
  release(order: (count: number) => number[] = (count) => [...Array(count).keys()]): void {
    this.handler = echo;
    const held = this.held;
    this.held = [];
    for (const i of order(held.length)) {
      const { chain, queue } = held[i]!;
      if (this.isLive(chain)) echo(chain);
      this.complete(queue, chain);
    }
  }

  /** Uses one chain. */
  finish(queue: number, chain: Chain): void {
    this.complete(queue, chain);
  }

  /** Whether no reset took the chain away. */
  owns(chain: Chain): boolean {
    return this.isLive(chain);
  }

  /** The next chain of a lazy queue. */
  grab(queue: number): Chain | null {
    return this.take(queue);
  }

  /** Puts it back. */
  ungrab(queue: number, chain: Chain): void {
    this.untake(queue, chain);
  }

  /** After BUSY. */
  wake(queue: number): void {
    this.resume(queue);
  }

  /** Says that something went wrong. */
  break(error: unknown): void {
    this.activation?.fail(error);
  }

  /** Work that a reset must not overtake. */
  work(promise: Promise<unknown>): void {
    this.track(promise);
  }

  accepts(features: FeatureSet): boolean {
    return this.acceptable?.(features) ?? true;
  }

  protected override handle(chain: Chain, queue: number): Handled {
    this.handled.push({ queue, bytes: readableBytes(chain) });
    return this.handler(chain, queue);
  }

  protected override started(): void {
    this.starts++;
    this.starting();
  }

  protected override stopped(): void | Promise<void> {
    this.stops++;
    return this.stopping();
  }

  protected override kicked(queue: number): void {
    this.onKick(queue);
  }

  save(): unknown {
    return this.own;
  }

  restore(saved: unknown): void {
    if (typeof saved !== "number") throw new TypeError("The state of a test device is a number");
    this.own = saved;
  }
}

function readableBytes(chain: Chain): number[] {
  const bytes: number[] = [];
  for (let i = 0; i < chain.readableCount; i++) {
    const at = chain.offsets[i]!;
    bytes.push(...chain.regions[i]!.bytes.slice(at, at + chain.lengths[i]!));
  }
  return bytes;
}

/** Options of `Rig`. */
export interface RigOptions<D extends Device = TestDevice> {
  readonly device?: D;
  /** Feature bits 24 to 43 to offer; all that are built unless given. */
  readonly features?: FeatureSet;
  readonly carries?: FeatureSet;
  readonly memory?: GuestMemory;
}

/** Where buffers are in the memory of a `Rig`; rings lie below. */
export const BUFFERS = 0x4_0000;

/** A device and its state machine, and all that they say to the driver. */
export class Rig<D extends Device = TestDevice> {
  readonly memory: GuestMemory;
  readonly device: D;
  readonly state: DeviceState;
  /** Queue numbers and "config", in order. */
  readonly interrupts: (number | "config")[] = [];
  readonly errors: Error[] = [];
  resets = 0;
  /** Called with each interrupt, inside it. */
  onInterrupt: (what: number | "config") => void = () => {};

  constructor(options: RigOptions<D> = {}) {
    this.memory = options.memory ?? GuestMemory.allocate(0x10_0000);
    this.device = options.device ?? new TestDevice() as unknown as D;
    const interrupt = (what: number | "config"): void => {
      this.interrupts.push(what);
      this.onInterrupt(what);
    };
    this.state = new DeviceState(this.device, {
      memory: this.memory,
      carries: options.carries ?? CORE_FEATURES,
      features: options.features ?? CORE_FEATURES,
      interrupt: { queue: (index) => interrupt(index), config: () => interrupt("config") },
      onError: (error) => this.errors.push(error),
      onReset: () => this.resets++,
    });
  }

  get status(): number {
    return this.state.status;
  }

  set status(value: number) {
    this.state.writeStatus(value);
  }

  get needsReset(): boolean {
    return (this.state.status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0;
  }

  /** Writes all words of the driver's features. */
  accept(features: FeatureSet): void {
    for (let word = 0; word < 4; word++) {
      this.state.writeDriverFeatures(word, Number((features >> BigInt(32 * word)) & 0xffff_ffffn));
    }
  }

  /** From a reset up to FEATURES_OK. */
  negotiate(features: FeatureSet = 0n): void {
    if (this.status !== 0) this.status = 0;
    this.status = VIRTIO_STATUS_ACKNOWLEDGE;
    this.status = FOUND;
    this.accept(features | VIRTIO_F_VERSION_1);
    this.status = AGREED;
  }

  /** Where a queue of this size lies. */
  place(queue: number, size: number, features: FeatureSet): QueueConfig {
    const format = (features & VIRTIO_F_RING_PACKED) === 0n ? "split" : "packed";
    return placeQueue(size, 0x1000 + 0x8000 * queue, format);
  }

  /** Tells the device of a queue and enables it. */
  enable(queue: number, config: QueueConfig): void {
    const setup = this.state.queues[queue]!;
    setup.setSize(config.size);
    const areas = [config.descriptorArea, config.driverArea, config.deviceArea] as const;
    for (const area of [0, 1, 2] as const) {
      setup.writeAddress(area, 0, areas[area] % 2 ** 32);
      setup.writeAddress(area, 1, Math.floor(areas[area] / 2 ** 32));
    }
    this.state.enableQueue(queue);
  }

  /** Initialises the device, and drives the first queue with a real driver queue. */
  start(features: FeatureSet = 0n, size = 8): DriverQueue {
    this.negotiate(features);
    const queues = this.state.queues.map((_, queue) => this.openQueue(queue, features, size));
    this.status = LIVE;
    return queues[0]!;
  }

  /** A fresh driver's queue, enabled. */
  openQueue(queue: number, features: FeatureSet = 0n, size = 8): DriverQueue {
    const config = this.place(queue, size, features);
    const driver = openDriverQueue(this.memory, config, features);
    this.enable(queue, config);
    return driver;
  }

  /** Initialises the device, and drives the first queue by hand. */
  startRaw(features: FeatureSet = 0n, size = 8): RawSplitDriver | RawPackedDriver {
    this.negotiate(features);
    const raws = this.state.queues.map((_, queue) => {
      const config = this.place(queue, size, features);
      const raw = rawDriver(this.memory, config, features);
      this.enable(queue, config);
      return raw;
    });
    this.status = LIVE;
    return raws[0]!;
  }

  /** Makes one buffer of a readable and a writable element available, without a kick. Its token is `value`. */
  send(queue: DriverQueue, value: number): boolean {
    const at = BUFFERS + 0x40 * value;
    this.memory.write(at, new Uint8Array([value, value + 1]));
    this.memory.fill(at + 0x20, 2);
    if (!queue.add(new BufferList().readable(at, 2).writable(at + 0x20, 2), value)) return false;
    queue.publish();
    return true;
  }

  /** Tokens of what was used since. */
  take(queue: DriverQueue): number[] {
    const tokens: number[] = [];
    for (let token = queue.take(); token >= 0; token = queue.take()) tokens.push(token);
    return tokens;
  }

  /** State and memory, in another machine. */
  async move(device: D, saved?: SavedDevice): Promise<Rig<D>> {
    if (saved === undefined) {
      await this.state.pause();
      saved = this.state.save();
    }
    const memory = GuestMemory.allocate(0x10_0000);
    const bytes = new Uint8Array(0x10_0000);
    this.memory.read(0, bytes);
    memory.write(0, bytes);
    const rig = new Rig<D>({ device, memory });
    rig.state.restore(structuredClone(saved));
    return rig;
  }
}

/** A driver's pool over memory of its own: rings and buffers from 4 KiB on. */
export function dmaPool(memory: GuestMemory = GuestMemory.allocate(0x10_0000)): DmaPool {
  return new DmaPool(memory, 0x1000, memory.regions[0]!.size - 0x1000);
}

/** Cuts so many bytes: pieces as long as `cuts` says, then what is left. Gives offset and length; no piece is empty. */
export function* pieces(total: number, cuts: readonly number[]): Generator<[number, number]> {
  let at = 0;
  for (const cut of cuts) {
    const length = Math.min(cut, total - at);
    if (length <= 0) continue;
    yield [at, length];
    at += length;
  }
  if (at < total) yield [at, total - at];
}

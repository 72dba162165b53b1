/** A driver's session over a device that a test controls, and over one that lies. */
import { GuestMemory } from "@virtio/memory";
import { CORE_FEATURES, type FeatureSet } from "@virtio/device";
import { DriverSession, type DriverSessionOptions } from "@virtio/device/driver";
import { BufferList } from "@virtio/vring/driver";
import {
  dmaPool,
  LocalTransport,
  TEST_TYPE,
  TestDevice,
  turns,
} from "../../packages/device/testing.ts";

/** What the driver wrote to the status, in order. */
export function statusWrites(log: readonly string[]): number[] {
  return log.flatMap((line) => {
    const value = /^status (\d+)$/.exec(line)?.[1];
    return value === undefined ? [] : [Number(value)];
  });
}

/** A transport whose answers a test replaces. */
export class LyingTransport extends LocalTransport {
  /** What the device claims to offer. */
  offer: (features: FeatureSet) => FeatureSet = (features) => features;
  /** What the status reads as. */
  lieStatus: (status: number) => number = (status) => status;
  /** What the queue reset reads as. */
  lieQueueReset: (done: boolean) => boolean = (done) => done;
  /** What the driver accepted last. */
  accepted: FeatureSet = 0n;

  override readDeviceFeatures(): FeatureSet {
    return this.offer(super.readDeviceFeatures());
  }

  override writeDriverFeatures(features: FeatureSet): void {
    this.accepted = features;
    // The core refuses what was not offered in truth.
    super.writeDriverFeatures(features & this.state.offered);
  }

  override readStatus(): number {
    return this.lieStatus(super.readStatus());
  }

  override queueResetDone(index: number): boolean {
    return this.lieQueueReset(super.queueResetDone(index));
  }
}

/** Options of `SessionBench`. */
export interface SessionBenchOptions {
  /** Core features that the device offers; all unless given. */
  readonly features?: FeatureSet;
  /** What the transport can carry; all unless given. */
  readonly carries?: FeatureSet;
  readonly device?: TestDevice;
}

/** A device, a transport that writes down what passes, and a driver's session to open. */
export class SessionBench {
  readonly memory = GuestMemory.allocate(0x10_0000);
  readonly dma = dmaPool(this.memory);
  readonly device: TestDevice;
  readonly transport: LyingTransport;
  readonly used: number[] = [];
  configs = 0;
  needsResets = 0;

  constructor(options: SessionBenchOptions = {}) {
    this.device = options.device ?? new TestDevice();
    this.transport = new LyingTransport(
      this.device,
      this.memory,
      options.features ?? CORE_FEATURES,
      { carries: options.carries ?? CORE_FEATURES },
    );
  }

  options(more: Partial<DriverSessionOptions> = {}): DriverSessionOptions {
    return {
      dma: this.dma,
      type: TEST_TYPE,
      wanted: 0n,
      queues: () => [{ index: 0, size: 8 }],
      patience: 30,
      ...more,
    };
  }

  async open(more: Partial<DriverSessionOptions> = {}): Promise<DriverSession> {
    const session = await DriverSession.open(this.transport, this.options(more));
    session.handlers = {
      used: (index) => this.used.push(index),
      config: () => this.configs++,
      needsReset: () => this.needsResets++,
    };
    return session;
  }

  /** Makes a buffer of two elements available. */
  send(session: DriverSession, token: number, index = 0): boolean {
    const at = this.dma.allocate(32);
    if (!session.queue(index).add(new BufferList().readable(at, 16).writable(at + 16, 16), token)) {
      throw new Error("the queue is full");
    }
    return session.publish(index);
  }

  async settle(): Promise<void> {
    await turns(2);
  }
}

/** A session over a transport that writes down what passes, or says something else. Not published. */
import { GuestMemory } from "@virtio/memory";
import { BufferList } from "@virtio/vring/driver";
import { DriverSession, type DriverSessionOptions } from "./driver.ts";
import { CORE_FEATURES, type FeatureSet } from "./mod.ts";
import { dmaPool, LocalTransport, TEST_TYPE, TestDevice } from "./testing.ts";

/** A device, a transport to it, and the options to open a session. */
export class Bench {
  readonly memory = GuestMemory.allocate(0x10_0000);
  readonly device: TestDevice;
  readonly transport: LocalTransport;
  readonly dma = dmaPool(this.memory);
  readonly used: number[] = [];
  configs = 0;
  resets = 0;

  constructor(
    features: FeatureSet = CORE_FEATURES,
    make: (device: TestDevice, bench: Bench) => LocalTransport = (device, bench) =>
      new LocalTransport(device, bench.memory, features),
    device: TestDevice = new TestDevice(),
  ) {
    this.device = device;
    this.transport = make(device, this);
  }

  options(more: Partial<DriverSessionOptions> = {}): DriverSessionOptions {
    return {
      dma: this.dma,
      type: TEST_TYPE,
      wanted: 0n,
      queues: () => [{ index: 0, size: 8 }],
      patience: 20,
      ...more,
    };
  }

  async open(more: Partial<DriverSessionOptions> = {}): Promise<DriverSession> {
    const session = await DriverSession.open(this.transport, this.options(more));
    session.handlers = {
      used: (index) => this.used.push(index),
      config: () => this.configs++,
      needsReset: () => this.resets++,
    };
    return session;
  }

  /** Adds a buffer and makes it available. */
  send(session: DriverSession, token: number, index = 0): boolean {
    const at = this.dma.allocate(32);
    session.queue(index).add(new BufferList().readable(at, 16).writable(at + 16, 16), token);
    return session.publish(index);
  }
}

/** A transport whose answers a test replaces. */
class Bent extends LocalTransport {
  offer: (features: FeatureSet) => FeatureSet = (features) => features;
  status: (status: number) => number = (status) => status;
  queueIsReset: (done: boolean) => boolean = (done) => done;
  generation: (generation: number) => number = (generation) => generation;
  override readDeviceFeatures(): FeatureSet {
    return this.offer(super.readDeviceFeatures());
  }
  override readStatus(): number {
    return this.status(super.readStatus());
  }
  override queueResetDone(index: number): boolean {
    return this.queueIsReset(super.queueResetDone(index));
  }
  override configGeneration(): number {
    return this.generation(super.configGeneration());
  }
}

export function bent(features: FeatureSet = CORE_FEATURES, device?: TestDevice): Bench & {
  transport: Bent;
} {
  return new Bench(
    features,
    (made, bench) => new Bent(made, bench.memory, features),
    device,
  ) as Bench & { transport: Bent };
}

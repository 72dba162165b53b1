import {
  ConfigSpace,
  type FeatureSet,
  HOLD,
  QueueDevice,
  type SharedMemoryRegion,
} from "@virtio/device";
import type { Chain } from "@virtio/vring";

/** What an `EchoDevice` is made of. */
export interface EchoOptions {
  /** Largest size of each queue; two of 16 unless given. */
  readonly queueSizes?: readonly number[];
  /** Feature bits of the device type; none unless given. */
  readonly deviceFeatures?: FeatureSet;
  /** Bytes of configuration; 16 unless given. All writable by the driver. */
  readonly configSize?: number;
  /** Shared memory regions. */
  readonly sharedMemory?: readonly SharedMemoryRegion[];
  /** Device type; the entropy source's unless given. */
  readonly type?: number;
}

/**
 * A device for tests: copies what it reads to where it may write. It can hold what it gets, and counts.
 */
export class EchoDevice extends QueueDevice {
  /** Chains that were handled, by queue. */
  readonly handled: number[];
  /** Kicks that reached the device, by queue. */
  readonly kicks: number[];
  /** Keeps chains until `release()`. */
  hold = false;
  /** Chains that are kept. */
  readonly held: { chain: Chain; queue: number }[] = [];
  /** Configuration writes of the driver: offset and bytes. */
  readonly configWrites: [number, number[]][];
  #stop: Promise<void> | undefined;

  constructor(options: EchoOptions = {}) {
    const configWrites: [number, number[]][] = [];
    super({
      type: options.type ?? 4,
      features: options.deviceFeatures ?? 0n,
      queueSizes: options.queueSizes ?? [16, 16],
      config: new ConfigSpace(options.configSize ?? 16, (offset, bytes) => {
        configWrites.push([offset, [...bytes]]);
        return true;
      }),
      ...(options.sharedMemory === undefined ? {} : { sharedMemory: options.sharedMemory }),
    });
    this.configWrites = configWrites;
    this.handled = this.queueSizes.map(() => 0);
    this.kicks = this.queueSizes.map(() => 0);
  }

  override notify(index: number): void {
    if (index < this.kicks.length) this.kicks[index]!++;
    super.notify(index);
  }

  /** Uses everything that is kept. */
  release(): void {
    for (const { chain, queue } of this.held.splice(0)) {
      this.#echo(chain);
      this.complete(queue, chain);
    }
  }

  /** Makes the next reset wait until the function that this returns is called. */
  delayStop(): () => void {
    let finish = (): void => {};
    this.#stop = new Promise((resolve) => finish = resolve);
    return finish;
  }

  protected override stopped(): void | Promise<void> {
    const stop = this.#stop;
    this.#stop = undefined;
    return stop;
  }

  protected override handle(chain: Chain, queue: number): void | typeof HOLD {
    this.handled[queue]!++;
    if (this.hold) {
      this.held.push({ chain, queue });
      return HOLD;
    }
    this.#echo(chain);
  }

  #echo(chain: Chain): void {
    const bytes = new Uint8Array(Math.min(chain.readable, chain.writable));
    chain.reader.read(bytes);
    chain.writer.write(bytes);
  }
}

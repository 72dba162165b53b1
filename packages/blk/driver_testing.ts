/** A block driver over a device of the same thread, or over an odd one. Not published. */
import { ConfigSpace, type HOLD, QueueDevice } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import type { Chain } from "@virtio/vring";
import { DmaPool } from "@virtio/vring/driver";
import { SECTORS } from "./disk_testing.ts";
import { BlkDriver, type BlkDriverOptions } from "./driver.ts";
import { LocalTransport } from "./testing.ts";

/** Puts a driver before a device. */
export async function join(
  device: QueueDevice,
  options: Partial<BlkDriverOptions> = {},
): Promise<{ driver: BlkDriver; transport: LocalTransport; memory: GuestMemory; dma: DmaPool }> {
  const memory = GuestMemory.allocate(8 * 2 ** 20);
  const transport = new LocalTransport(device, memory);
  const dma = new DmaPool(memory, 4096, 7 * 2 ** 20);
  const driver = await BlkDriver.open(transport, { dma, ...options });
  return { driver, transport, memory, dma };
}

/** A block device as no one should build it: it answers as the test says. */
export class OddDevice extends QueueDevice {
  answer: (chain: Chain, device: OddDevice) => void | typeof HOLD;

  constructor(answer: (chain: Chain, device: OddDevice) => void | typeof HOLD, features = 0n) {
    const config = new ConfigSpace(72);
    config.view.setUint32(0, SECTORS, true);
    super({ type: 2, features, queueSizes: [64], config });
    this.answer = answer;
  }

  protected override handle(chain: Chain): void | typeof HOLD {
    return this.answer(chain, this);
  }

  finish(chain: Chain): void {
    this.complete(0, chain);
  }

  breakDown(): void {
    this.activation!.fail(new Error("odd"));
  }
}

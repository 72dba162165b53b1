import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
} from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { connectMmio, type MmioAccess } from "../mmio/driver.ts";
import { MmioTransport } from "../mmio/mod.ts";
import { connectPci, type PciLoopbackOptions } from "../pci/driver.ts";
import { PciTransport, type PciTransportOptions } from "../pci/mod.ts";
import type { Width } from "../width.ts";
import { EchoDevice, type EchoOptions } from "./echo_device.ts";
import { EchoDriver } from "./echo_driver.ts";
import { type Access, RecordingPci } from "./fake_pci.ts";

/** What is varied in a recorded life. */
export type LifeOptions =
  & EchoOptions
  & Omit<Partial<PciTransportOptions>, "memory" | "host">
  & PciLoopbackOptions
  & { core?: FeatureSet };

/** A finished life of a driver: everything it did to the device. */
export interface Life {
  readonly log: readonly Access[];
  readonly device: EchoDevice;
  readonly pci: PciTransport;
}

/** Everything that a driver does: requests, a configuration change, suspend, a queue reset with another size, a reset. */
async function live(
  transport: DriverTransport,
  device: EchoDevice,
  memory: GuestMemory,
  core: FeatureSet,
): Promise<void> {
  const dma = new DmaPool(memory, 0x1000, 0x20000);
  const queues = device.queueSizes.length;
  for (let round = 0; round < 2; round++) {
    const driver = await EchoDriver.open(transport, dma, { core, queues });
    const { session } = driver;
    for (let i = 0; i < 2 * queues; i++) await driver.echo(i % queues, new Uint8Array([i]));
    device.config.update((view) => view.setUint8(0, round + 1));
    session.readConfig((config) => [config.readConfig(0, 1), config.readConfig(4, 4)]);
    transport.writeConfig(8, 2, 7);
    if (session.has(VIRTIO_F_SUSPEND)) {
      await session.suspend();
      await session.resume();
    }
    if (session.has(VIRTIO_F_RING_RESET)) {
      await session.resetQueue(0, 8);
      session.queue(0).enableInterrupts();
      await driver.echo(0, new Uint8Array([1]));
    }
    await session.reset();
  }
}

/** A life over PCI; the first accesses are the firmware's, which gives the BARs addresses. */
export async function recordPci(options: LifeOptions = {}): Promise<Life> {
  const memory = GuestMemory.allocate(0x40000);
  const device = new EchoDevice(options);
  let pci: PciTransport | undefined;
  let recorder: RecordingPci | undefined;
  const { driver } = connectPci((host) => {
    pci = new PciTransport(device, { features: CORE_FEATURES, ...options, memory, host });
    return recorder = new RecordingPci(pci);
  }, options);
  await live(driver, device, memory, options.core ?? CORE_FEATURES);
  return { log: recorder!.log, device, pci: pci! };
}

/** A life over MMIO; `bar` is null in every access. */
export async function recordMmio(
  options: EchoOptions & { core?: FeatureSet } = {},
): Promise<{ log: readonly Access[]; device: EchoDevice }> {
  const memory = GuestMemory.allocate(0x40000);
  const device = new EchoDevice(options);
  const log: Access[] = [];
  const { driver } = connectMmio((host): MmioAccess => {
    const transport = new MmioTransport(device, { features: CORE_FEATURES, memory, host });
    return {
      read(offset: number, size: Width): number {
        const value = transport.read(offset, size);
        log.push({ write: false, bar: null, offset, size, value });
        return value;
      },
      write(offset: number, size: Width, value: number): void {
        log.push({ write: true, bar: null, offset, size, value });
        transport.write(offset, size, value);
      },
    };
  });
  await live(driver, device, memory, options.core ?? CORE_FEATURES);
  return { log, device };
}

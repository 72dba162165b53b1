import { type Delivery, InterruptDelivery } from "../delivery.ts";
import { ProbeError } from "../probe_error.ts";
import type { Width } from "../width.ts";
import { type MmioAccess, MmioDriverTransport } from "./driver_transport.ts";

/** Options of `connectMmio`. */
export interface MmioLoopbackOptions {
  /** Whether interrupts reach the driver inside the device's call, or from a microtask after it (the default). */
  readonly delivery?: Delivery;
}

/** A device and a driver of the same process, joined. */
export interface MmioLoopback<T> {
  /** The device's half. */
  readonly transport: T;
  /** The driver's half, probed. */
  readonly driver: MmioDriverTransport;
  /** Exits and interrupts so far. */
  readonly counters: MmioCounters;
}

/** What passed between the halves. */
export interface MmioCounters {
  /** Register reads. */
  readonly reads: number;
  /** Register writes, kicks among them. */
  readonly writes: number;
  /** Interrupts. */
  readonly interrupts: number;
}

/**
 * Joins a device behind MMIO to the driver half of the transport, without a machine between them.
 *
 * @param create Makes the device's half for the given host.
 * @throws {ProbeError} If the driver's half finds no device.
 *
 * @example
 * ```ts
 * import { DeviceId, QueueDevice } from "@virtio/device";
 * import { GuestMemory } from "@virtio/memory";
 * import { MmioTransport } from "@virtio/transport/mmio";
 * import { connectMmio } from "@virtio/transport/mmio/driver";
 * import { assertEquals } from "@std/assert";
 *
 * class SilentDevice extends QueueDevice {
 *   protected override handle(): void {}
 * }
 * const memory = GuestMemory.allocate(0x10000);
 * const device = new SilentDevice({ type: DeviceId.entropy, queueSizes: [64] });
 * const { driver } = connectMmio((host) => new MmioTransport(device, { memory, host }));
 * assertEquals(driver.deviceType, 4);
 * ```
 */
export function connectMmio<T extends MmioAccess>(
  create: (host: { setInterruptLine(asserted: boolean): void }) => T,
  options: MmioLoopbackOptions = {},
): MmioLoopback<T> {
  const delivery = new InterruptDelivery(options.delivery ?? "microtask");
  const transport = create({ setInterruptLine: (asserted) => delivery.setLine(asserted) });
  let reads = 0;
  let writes = 0;
  const driver = MmioDriverTransport.probe({
    read(offset: number, size: Width): number {
      reads++;
      return transport.read(offset, size);
    },
    write(offset: number, size: Width, value: number): void {
      writes++;
      transport.write(offset, size, value);
    },
  });
  if (driver === null) throw new ProbeError("4.2.2", "DeviceID is 0: there is no device");
  delivery.onLine = () => driver.handleInterrupt();
  const counters = {
    get reads() {
      return reads;
    },
    get writes() {
      return writes;
    },
    get interrupts() {
      return delivery.count;
    },
  };
  return { transport, driver, counters };
}

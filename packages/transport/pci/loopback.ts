import { type Delivery, InterruptDelivery } from "../delivery.ts";
import type { Width } from "../width.ts";
import type { Message } from "./driver_msix.ts";
import { PciDriverTransport } from "./driver_transport.ts";
import { PciConfigWindow } from "./driver_window.ts";
import type { PciAccess, PciFunction, PciHost } from "./function.ts";
import * as reg from "./registers.ts";

/** Options of `connectPci`. */
export interface PciLoopbackOptions {
  /** Whether interrupts reach the driver inside the device's call, or from a microtask after it (the default). */
  readonly delivery?: Delivery;
  /** Whether the driver may use MSI-X; true unless given. With a number, the platform has only so many messages. */
  readonly messages?: boolean | number;
  /** Whether the driver uses the configuration access window (4.1.4.9) instead of BARs; then without MSI-X. */
  readonly window?: boolean;
  /** Whether the driver can reach I/O BARs; true unless given. */
  readonly ioSpace?: boolean;
}

/** A device and a driver of the same process, joined. */
export interface PciLoopback<T> {
  /** The device's half. */
  readonly transport: T;
  /** The driver's half, probed. */
  readonly driver: PciDriverTransport;
  /** What passed between them. */
  readonly counters: PciCounters;
}

/** What passed between the halves. */
export interface PciCounters {
  /** Accesses of the driver to configuration space and BARs. */
  readonly reads: number;
  /** Writes of the driver to configuration space and BARs, kicks among them. */
  readonly writes: number;
  /** Interrupts. */
  readonly interrupts: number;
}

// Where an x86 platform has its messages, and the range where it puts BARs.
const MESSAGE_ADDRESS = 0xfee0_0000;
const MEMORY_BASE = 0xe000_0000;
const IO_BASE = 0xc000;

/** A bus with one function on it: reads of what nobody decodes give ones. */
class LoopbackBus implements PciAccess {
  reads = 0;
  writes = 0;
  readonly #pci: PciFunction;

  constructor(pci: PciFunction) {
    this.#pci = pci;
  }

  configRead(offset: number, size: Width): number {
    this.reads++;
    return this.#pci.configRead(offset, size);
  }

  configWrite(offset: number, size: Width, value: number): void {
    this.writes++;
    this.#pci.configWrite(offset, size, value);
  }

  barRead(index: number, offset: number, size: Width): number {
    this.reads++;
    if (this.#pci.barAddress(index) === null) return 0xffff_ffff >>> (32 - 8 * size);
    return this.#pci.barRead(index, offset, size);
  }

  barWrite(index: number, offset: number, size: Width, value: number): void {
    this.writes++;
    if (this.#pci.barAddress(index) !== null) this.#pci.barWrite(index, offset, size, value);
  }
}

/**
 * Joins a device behind PCI to the driver half of the transport, without a machine between them. Does what firmware does:
 * finds the sizes of the BARs and gives them addresses.
 *
 * @param create Makes the device's half for the given host.
 * @throws {ProbeError} If the driver's half finds no device that it can use.
 *
 * @example
 * ```ts
 * import { DeviceId, QueueDevice } from "@virtio/device";
 * import { GuestMemory } from "@virtio/memory";
 * import { PciTransport } from "@virtio/transport/pci";
 * import { connectPci } from "@virtio/transport/pci/driver";
 * import { assertEquals } from "@std/assert";
 *
 * class SilentDevice extends QueueDevice {
 *   protected override handle(): void {}
 * }
 * const memory = GuestMemory.allocate(0x10000);
 * const device = new SilentDevice({ type: DeviceId.entropy, queueSizes: [64] });
 * const { driver } = connectPci((host) => new PciTransport(device, { memory, host }));
 * assertEquals([driver.deviceType, driver.usesMessages], [4, true]);
 * ```
 */
export function connectPci<T extends PciFunction>(
  create: (host: PciHost) => T,
  options: PciLoopbackOptions = {},
): PciLoopback<T> {
  const delivery = new InterruptDelivery(options.delivery ?? "microtask");
  const transport = create({
    setInterruptLine: (asserted) => delivery.setLine(asserted),
    sendMessage(addressLow, addressHigh, data) {
      if (addressLow === MESSAGE_ADDRESS && addressHigh === 0) delivery.message(data);
    },
  });
  const bus = new LoopbackBus(transport);
  assignBars(bus, options.ioSpace ?? true);
  const limit = messageLimit(options);
  const driver = PciDriverTransport.probe(options.window ? new PciConfigWindow(bus) : bus, {
    usableBar: (bar) => options.window === true || !isUnassigned(bus, bar),
    ...(limit === 0 ? {} : {
      messages: {
        allocate: (vector): Message | null =>
          vector < limit
            ? { addressLow: MESSAGE_ADDRESS, addressHigh: 0, data: 0x20 + vector }
            : null,
      },
    }),
  });
  delivery.onLine = () => driver.handleInterrupt();
  delivery.onMessage = (data) => driver.handleMessage(data - 0x20);
  const counters = {
    get reads() {
      return bus.reads;
    },
    get writes() {
      return bus.writes;
    },
    get interrupts() {
      return delivery.count;
    },
  };
  return { transport, driver, counters };
}

function messageLimit(options: PciLoopbackOptions): number {
  if (options.window || options.messages === false) return 0;
  return typeof options.messages === "number" ? options.messages : reg.PCI_MSIX_MAX_VECTORS;
}

/**
 * Gives every BAR an address, one after another, each aligned to its size.
 *
 * @param ioSpace Whether there are I/O resources; without, I/O BARs stay unassigned.
 */
function assignBars(bus: PciAccess, ioSpace: boolean): void {
  let memory = MEMORY_BASE;
  let io = IO_BASE;
  for (let index = 0; index < 6; index++) {
    const offset = reg.PCI_BASE_ADDRESS_0 + 4 * index;
    bus.configWrite(offset, 4, 0xffff_ffff);
    const low = bus.configRead(offset, 4);
    if (low === 0) continue;
    const isIo = (low & reg.PCI_BASE_ADDRESS_SPACE_IO) !== 0;
    const is64 = !isIo && (low & reg.PCI_BASE_ADDRESS_MEM_TYPE_64) !== 0;
    // Sizes from 4 GiB on show in the upper half only.
    let size = -(low & (isIo ? ~0x3 : ~0xf)) >>> 0;
    if (is64) {
      bus.configWrite(offset + 4, 4, 0xffff_ffff);
      const high = bus.configRead(offset + 4, 4);
      if (size === 0) size = (-high >>> 0) * 0x1_0000_0000;
    }
    if (isIo) {
      io = Math.ceil(io / size) * size;
      bus.configWrite(offset, 4, ioSpace ? io : 0);
      io += size;
    } else {
      // Large ones go above 4 GiB, where there is room.
      if (is64 && size >= 0x1000_0000) memory = Math.max(memory, 0x1_0000_0000);
      memory = Math.ceil(memory / size) * size;
      bus.configWrite(offset, 4, memory >>> 0);
      if (is64) bus.configWrite(offset + 4, 4, Math.floor(memory / 0x1_0000_0000));
      memory += size;
    }
    if (is64) index++;
  }
}

function isUnassigned(bus: PciAccess, bar: number): boolean {
  const low = bus.configRead(reg.PCI_BASE_ADDRESS_0 + 4 * bar, 4);
  const is64 = (low & reg.PCI_BASE_ADDRESS_SPACE_IO) === 0 &&
    (low & reg.PCI_BASE_ADDRESS_MEM_TYPE_64) !== 0;
  const high = is64 ? bus.configRead(reg.PCI_BASE_ADDRESS_0 + 4 * bar + 4, 4) : 0;
  return (low & ~0xf) === 0 && high === 0;
}

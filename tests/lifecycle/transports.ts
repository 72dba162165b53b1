/** A device and a driver joined over each transport, in such a way that another device can be put in the first one's place. */
import { CORE_FEATURES, type Device, type DeviceState, type FeatureSet } from "@virtio/device";
import { VIRTIO_F_RING_PACKED } from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import type { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio, type MmioAccess } from "@virtio/transport/mmio/driver";
import { PciTransport } from "@virtio/transport/pci";
import {
  connectPci,
  type PciFunction,
  type PciLoopbackOptions,
} from "@virtio/transport/pci/driver";

/** A device's half of a transport, whichever it is. */
interface Half {
  readonly state: DeviceState;
  save(): Promise<unknown>;
  restore(saved: never): void;
}

/** A device and a driver's half, joined. */
export interface Joined {
  /** The driver's half. It notices no move. */
  readonly driver: DriverTransport;
  /** The state of the device that is there now. */
  readonly state: () => DeviceState;
  readonly counters: { readonly interrupts: number };
  /**
   * Saves the device, and restores it into another one that takes its place. Guest memory stays.
   *
   * @param between Called while there is nothing but the saved state.
   */
  readonly move: (device: Device, between?: () => void) => Promise<void>;
}

/** Joins a device and a driver. */
export type Join = (
  device: Device,
  memory: GuestMemory,
  onError: (error: Error) => void,
) => Joined;

/** The moves of a half, given how to make one. */
function movable<T extends Half>(create: (device: Device) => T, first: Device) {
  let current = create(first);
  return {
    get current(): T {
      return current;
    },
    async move(device: Device, between: () => void = () => {}): Promise<void> {
      const saved = structuredClone(await current.save());
      between();
      const next = create(device);
      next.restore(saved as never);
      current = next;
      next.state.unpause();
    },
  };
}

function mmio(device: Device, memory: GuestMemory, onError: (error: Error) => void): Joined {
  let halves!: ReturnType<typeof movable<MmioTransport>>;
  const { driver, counters } = connectMmio((host): MmioAccess => {
    halves = movable(
      (each) => new MmioTransport(each, { memory, host, onError, features: CORE_FEATURES }),
      device,
    );
    return {
      read: (offset, size) => halves.current.read(offset, size),
      write: (offset, size, value) => halves.current.write(offset, size, value),
    };
  });
  return { driver, counters, state: () => halves.current.state, move: halves.move };
}

function pci(options: PciLoopbackOptions, layout: "memory" | "io"): Join {
  return (device, memory, onError) => {
    let halves!: ReturnType<typeof movable<PciTransport>>;
    const { driver, counters } = connectPci((host): PciFunction => {
      halves = movable(
        (each) =>
          new PciTransport(each, {
            memory,
            host,
            onError,
            features: CORE_FEATURES,
            ...(layout === "io" ? { layout } : {}),
          }),
        device,
      );
      return {
        bars: halves.current.bars,
        configRead: (offset, size) => halves.current.configRead(offset, size),
        configWrite: (offset, size, value) => halves.current.configWrite(offset, size, value),
        barAddress: (index) => halves.current.barAddress(index),
        barRead: (index, offset, size) => halves.current.barRead(index, offset, size),
        barWrite: (index, offset, size, value) =>
          halves.current.barWrite(index, offset, size, value),
      };
    }, options);
    return { driver, counters, state: () => halves.current.state, move: halves.move };
  };
}

/** The transports, with all ways to reach a device over PCI. */
export const TRANSPORTS: readonly (readonly [name: string, join: Join])[] = [
  ["MMIO", mmio],
  ["PCI, MSI-X", pci({}, "memory")],
  ["PCI, INTx", pci({ messages: false }, "memory")],
  ["PCI, I/O BAR", pci({}, "io")],
];

/** The ring formats. */
export const FORMATS: readonly (readonly [name: string, feature: FeatureSet])[] = [
  ["split", 0n],
  ["packed", VIRTIO_F_RING_PACKED],
];

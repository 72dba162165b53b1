/** Puts the example's block device behind the transport that the user chose. */
import { BlkDevice, type BlkDeviceOptions } from "@virtio/blk";
import { DEFAULT_FEATURES, VIRTIO_F_RING_PACKED } from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import { type MmioHost, MmioTransport } from "@virtio/transport/mmio";
import { type PciHost, PciTransport } from "@virtio/transport/pci";
import type { V86Machine } from "@virtio/v86";

/** How the device sits in the machine. */
export interface Seat {
  readonly transport: "pci" | "mmio";
  readonly bar: "memory" | "io";
  readonly interrupt: "msix" | "intx";
  readonly ring: "split" | "packed";
}

/** What an attached device did, besides its own counters. */
export interface Attached {
  readonly device: BlkDevice;
  /** Why the device asked for a reset, if it did. */
  readonly errors: Error[];
}

/** PCI slot and MMIO window of the disk. */
const SLOT = 5;
const WINDOW = 0;

/** Feature bits of rings and transport to offer: a driver takes packed rings where they are offered. */
export function ringFeatures(ring: "split" | "packed"): bigint {
  return ring === "packed" ? DEFAULT_FEATURES : DEFAULT_FEATURES & ~VIRTIO_F_RING_PACKED;
}

/** Options of `PciTransport` for a seat. */
export function seatOnPci(
  seat: Seat,
  memory: GuestMemory,
  host: PciHost,
  errors: Error[],
): ConstructorParameters<typeof PciTransport>[1] {
  return {
    memory,
    host,
    features: ringFeatures(seat.ring),
    layout: seat.bar,
    ...(seat.interrupt === "intx" ? { msix: false as const } : {}),
    onError: (error) => errors.push(error),
  };
}

/** Options of `MmioTransport` for a seat. */
export function seatOnMmio(
  seat: Seat,
  memory: GuestMemory,
  host: MmioHost,
  errors: Error[],
): ConstructorParameters<typeof MmioTransport>[1] {
  return {
    memory,
    host,
    features: ringFeatures(seat.ring),
    onError: (error) => errors.push(error),
  };
}

/**
 * Makes a block device and attaches it to a machine that does not run yet.
 *
 * @param place PCI slot or MMIO window, where there is more than one disk.
 */
export function attachDisk(
  machine: V86Machine,
  seat: Seat,
  options: BlkDeviceOptions,
  place: number = seat.transport === "pci" ? SLOT : WINDOW,
): Attached {
  const device = new BlkDevice(options);
  const errors: Error[] = [];
  if (seat.transport === "pci") {
    machine.addPci(
      place,
      (host) => new PciTransport(device, seatOnPci(seat, machine.memory, host, errors)),
    );
  } else {
    machine.addMmio(
      place,
      (host) => new MmioTransport(device, seatOnMmio(seat, machine.memory, host, errors)),
    );
  }
  return { device, errors };
}

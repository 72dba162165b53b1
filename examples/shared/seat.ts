/** Puts any device behind the transport that the user chose: in a virtual machine, or before a driver of ours. */
import { DEFAULT_FEATURES, type Device, VIRTIO_F_RING_PACKED } from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import type { GuestMemory } from "@virtio/memory";
import { type MmioHost, MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { type PciHost, PciTransport } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import type { V86Machine } from "@virtio/v86";

/** How a device sits in its machine. */
export interface Seat {
  readonly transport: "pci" | "mmio";
  /** PCI: where the registers are. */
  readonly bar: "memory" | "io";
  /** PCI: how the device interrupts. */
  readonly interrupt: "msix" | "intx";
  readonly ring: "split" | "packed";
}

/** A device in its place. */
export interface Attached<Made extends Device> {
  readonly device: Made;
  /** Why the device asked for a reset, if it did. */
  readonly errors: Error[];
}

/** A device with a driver of ours before it. */
export interface Joined<Made extends Device> extends Attached<Made> {
  readonly driver: DriverTransport;
  /** Register accesses of the driver. */
  readonly counters: { readonly reads: number; readonly writes: number };
}

/** PCI slot and MMIO window of the first device; v86's own chipset takes slots up to 7. */
const SLOT = 8;
const WINDOW = 0;

/** Feature bits of rings and transport to offer: a driver takes packed rings where they are offered. */
export function ringFeatures(ring: "split" | "packed"): bigint {
  return ring === "packed" ? DEFAULT_FEATURES : DEFAULT_FEATURES & ~VIRTIO_F_RING_PACKED;
}

/** The seat in words. */
export function seatName(seat: Seat): string {
  if (seat.transport === "mmio") return `MMIO, ${seat.ring} ring`;
  const interrupt = seat.interrupt === "msix" ? "MSI-X" : "INTx";
  const bar = seat.bar === "memory" ? "memory BAR" : "I/O BAR";
  return `PCI (${bar}, ${interrupt}), ${seat.ring} ring`;
}

function onPci(
  device: Device,
  seat: Seat,
  memory: GuestMemory,
  host: PciHost,
  errors: Error[],
  features: bigint,
): PciTransport {
  return new PciTransport(device, {
    memory,
    host,
    features,
    layout: seat.bar,
    ...(seat.interrupt === "intx" ? { msix: false as const } : {}),
    onError: (error) => errors.push(error),
  });
}

function onMmio(
  device: Device,
  memory: GuestMemory,
  host: MmioHost,
  errors: Error[],
  features: bigint,
): MmioTransport {
  return new MmioTransport(device, {
    memory,
    host,
    features,
    onError: (error) => errors.push(error),
  });
}

/**
 * Attaches a device to a machine.
 *
 * @param place Counts the devices of a machine: each has a PCI slot or MMIO window of its own.
 * @param known Feature bits of rings and transport that the device can do, where it is not one of ours.
 */
export function attach<Made extends Device>(
  machine: V86Machine,
  seat: Seat,
  device: Made,
  place = 0,
  known = ~0n,
): Attached<Made> {
  const errors: Error[] = [];
  const features = ringFeatures(seat.ring) & known;
  const { memory } = machine;
  if (seat.transport === "pci") {
    machine.addPci(SLOT + place, (host) => onPci(device, seat, memory, host, errors, features));
  } else {
    machine.addMmio(WINDOW + place, (host) => onMmio(device, memory, host, errors, features));
  }
  return { device, errors };
}

/** Joins a device with the driver half of its transport, in memory of the given kind. */
export function join<Made extends Device>(
  seat: Seat,
  memory: GuestMemory,
  device: Made,
): Joined<Made> {
  const errors: Error[] = [];
  const features = ringFeatures(seat.ring);
  const { driver, counters } = seat.transport === "pci"
    ? connectPci((host) => onPci(device, seat, memory, host, errors, features), {
      messages: seat.interrupt === "msix",
    })
    : connectMmio((host) => onMmio(device, memory, host, errors, features));
  return { device, errors, driver, counters };
}

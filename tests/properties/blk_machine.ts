/** A block device behind either transport, saved and restored alike. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { CORE_FEATURES } from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport, type SavedMmio } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { PciTransport, type SavedPci } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";

/** The two transports. */
export const BUSES = ["mmio", "pci"] as const;
/** One of them. */
export type Bus = typeof BUSES[number];
/** Of the disk. */
export const SECTORS = 16;
/** Bytes of guest memory. */
export const MEMORY = 0x4_0000;
/** Where requests may lie. */
export const BUFFERS = 0x2_0000;

/** One transport or the other, behind what both can do. */
export interface Machine {
  readonly driver: DriverTransport;
  readonly memory: GuestMemory;
  readonly disk: Uint8Array;
  save(): Promise<SavedMmio | SavedPci>;
  restore(saved: unknown): void;
  kick(queue: number): void;
  unpause(): void;
  readonly errors: Error[];
}

/** A fresh device, on a disk and in memory that holds these bytes. */
export function machine(bus: Bus, later: boolean, disk: Uint8Array, bytes?: Uint8Array): Machine {
  const memory = GuestMemory.allocate(MEMORY);
  if (bytes !== undefined) memory.write(0, bytes);
  const backend = new MemoryBackend(disk);
  const device = new BlkDevice({
    backend: later ? new LaterBackend(backend) : backend,
    queueSize: 16,
    queues: 2,
  });
  const errors: Error[] = [];
  const options = {
    memory,
    features: CORE_FEATURES,
    onError: (error: Error) => {
      errors.push(error);
    },
  };
  // Kicks go past the driver's half: after a move it is a fresh one, which has enabled no queue.
  const onMmio = bus === "mmio"
    ? connectMmio((host) => new MmioTransport(device, { ...options, host }))
    : null;
  const onPci = onMmio === null
    ? connectPci((host) => new PciTransport(device, { ...options, host }))
    : null;
  const { transport } = (onMmio ?? onPci)!;
  return {
    driver: (onMmio ?? onPci)!.driver,
    kick: (queue) =>
      onMmio === null
        ? onPci!.transport.barWrite(2, 0x3000, 2, queue)
        : onMmio.transport.write(0x50, 4, queue),
    memory,
    disk,
    errors,
    save: () => transport.save(),
    restore: (saved) => transport.restore(saved as never),
    unpause: () => transport.state.unpause(),
  };
}

/** A disk whose sectors hold their numbers, from 1 on. */
export const freshDisk = () => new Uint8Array(SECTORS * 512).map((_, i) => (i >> 9) + 1);

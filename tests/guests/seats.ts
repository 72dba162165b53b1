/** Every way to attach a device that the tests with real guests go through, and loading its driver. */
import type { Guest } from "../../examples/guest/guest.ts";
import type { Seat } from "../../examples/shared/seat.ts";

const PCI = { transport: "pci", bar: "memory", interrupt: "msix" } as const;
const MMIO = { transport: "mmio", bar: "memory", interrupt: "msix" } as const;

/** Transports and ring formats. */
export const SEATS: readonly (readonly [string, Seat])[] = [
  ["PCI, split ring", { ...PCI, ring: "split" }],
  ["PCI, packed ring", { ...PCI, ring: "packed" }],
  ["MMIO, split ring", { ...MMIO, ring: "split" }],
  ["MMIO, packed ring", { ...MMIO, ring: "packed" }],
];

/** Loads drivers into a guest that got a device after its state was saved, and waits for what they make of it. */
export async function drive(
  guest: Guest,
  seat: Seat,
  module: string,
  appears: string,
): Promise<void> {
  if (seat.transport === "pci") await guest.rescanPci();
  await guest.check(`modprobe -a virtio_pci virtio_mmio ${module}`);
  await guest.check(
    `for i in $(seq 50); do [ -e ${appears} ] && exit 0; usleep 100000; done; dmesg | tail; exit 1`,
  );
}

/** What the tests of the driver half of PCI share. */
import {
  CORE_FEATURES,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import * as pci from "@virtio/transport/pci";
import { PciDriverTransport } from "@virtio/transport/pci/driver";
import { FOUND, MEMORY, ringAddress } from "../../packages/transport/testing/bench.ts";
import type { Access } from "../../packages/transport/testing/fake_pci.ts";
import {
  type Life,
  type LifeOptions,
  recordPci,
} from "../../packages/transport/testing/recorded_life.ts";

/** Fields of the common configuration. */
export const field = pci.CommonCfg;
/** Features that change what a kick is. */
export const KICKS = VIRTIO_F_NOTIFICATION_DATA | VIRTIO_F_NOTIF_CONFIG_DATA;

/** Lives of different kinds, so that a rule is looked for in all of them. */
export const LIVES: LifeOptions[] = [
  {},
  { core: CORE_FEATURES & ~VIRTIO_F_RING_PACKED & ~KICKS },
  { messages: false, core: CORE_FEATURES & ~VIRTIO_F_RING_PACKED },
  { window: true, vendorData: [{ vendorId: 7, bytes: new Uint8Array(16) }] },
  { msix: 1, queueSizes: [24, 24, 24] },
];

/** What the driver does in each of them. */
export async function lives(): Promise<Life[]> {
  return await Promise.all(LIVES.map((options) => recordPci(options)));
}

/** Accesses of the common configuration. */
export function common(log: readonly Access[]): Access[] {
  return log.filter(({ bar, offset }) => bar === MEMORY.bar && offset < field.size);
}

/** Values written to a field of it. */
export function writesTo(log: readonly Access[], offset: number): number[] {
  return common(log).filter((access) => access.write && access.offset === offset)
    .map(({ value }) => value);
}

/** A queue in its usual place. */
export function config(queue: number, size = 8) {
  const base = ringAddress(queue);
  return { size, descriptorArea: base, driverArea: base + 0x400, deviceArea: base + 0x800 };
}

/** A probed driver that gets as many messages as it asks for, the data being the vector. */
export function withMessages(access: pci.PciAccess): PciDriverTransport {
  return PciDriverTransport.probe(access, {
    messages: {
      allocate: (vector) => ({ addressLow: 0xfee0_0000, addressHigh: 0, data: vector }),
    },
  });
}

/** Up to FEATURES_OK. */
export function accept(driver: PciDriverTransport, features = 0n): void {
  driver.writeStatus(FOUND);
  driver.writeDriverFeatures(features | VIRTIO_F_VERSION_1);
  driver.writeStatus(FOUND | 8);
  driver.negotiated(features | VIRTIO_F_VERSION_1);
}

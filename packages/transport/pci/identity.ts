import { type Device, DeviceId } from "@virtio/device";
import * as reg from "./registers.ts";

/** What identifies a function. */
export interface PciIdentity {
  /** Device ID. */
  readonly deviceId: number;
  /** Revision ID. */
  readonly revision: number;
  /** Class code, 24 bits. */
  readonly classCode: number;
  /** Subsystem Vendor ID. */
  readonly subsystemVendorId: number;
  /** Subsystem ID. */
  readonly subsystemId: number;
}

/** What an embedder can choose of it. */
export interface IdentityOptions {
  /** Subsystem Vendor ID; 0x1AF4 unless given. */
  readonly subsystemVendorId?: number;
  /** Subsystem ID; the Device ID unless given. At least 0x40, lest a legacy driver takes the device (4.1.2.1). */
  readonly subsystemId?: number;
  /** Class code, 24 bits; one that suits the device type unless given. */
  readonly classCode?: number;
}

/**
 * How a device presents itself on PCI (4.1.2).
 *
 * @throws {RangeError} If the device type has no PCI Device ID, or an option is out of range.
 */
export function identityOf(device: Device, options: IdentityOptions): PciIdentity {
  // 0x1040 to 0x107f.
  const type = inRange(device.type, "A device type on PCI", 1, 0x3f);
  const deviceId = reg.PCI_DEVICE_ID_VIRTIO_BASE + type;
  const { classCode, subsystemVendorId, subsystemId } = options;
  return {
    deviceId,
    revision: 1,
    classCode: inRange(classCode ?? classCodeOf(type), "classCode", 0, 0xff_ffff),
    subsystemVendorId: inRange(
      subsystemVendorId ?? reg.PCI_VENDOR_ID_VIRTIO,
      "subsystemVendorId",
      0,
      0xffff,
    ),
    subsystemId: inRange(subsystemId ?? deviceId, "subsystemId", 0x40, 0xffff),
  };
}

function inRange(value: number, name: string, min: number, max: number): number {
  if (Number.isInteger(value) && value >= min && value <= max) return value;
  throw new RangeError(
    `${name} has to be 0x${min.toString(16)} to 0x${max.toString(16)}, not ${value}`,
  );
}

// What a guest's tools show for a device type; drivers do not look at it.
function classCodeOf(type: number): number {
  switch (type) {
    case DeviceId.net:
      return 0x020000;
    case DeviceId.block:
      return 0x018000;
    case DeviceId.console:
      return 0x078000;
    default:
      return 0xff0000;
  }
}

/** Puts the example's block device into a machine. */
import { BlkDevice, type BlkDeviceOptions } from "@virtio/blk";
import type { V86Machine } from "@virtio/v86";
import { attach, type Attached, type Seat } from "../shared/seat.ts";

/**
 * Makes a block device and attaches it to a machine.
 *
 * @param place Counts the disks of a machine.
 */
export function attachDisk(
  machine: V86Machine,
  seat: Seat,
  options: BlkDeviceOptions,
  place = 0,
): Attached<BlkDevice> {
  return attach(machine, seat, new BlkDevice(options), place);
}

/** The packed format (virtio 1.4, 2.8) as it lies in guest memory. All of it is the driver's to change at any moment. */
import type { GuestMemory } from "@virtio/memory";
import { type QueueLook, VIRTQ_DESC_F_AVAIL, VIRTQ_DESC_F_USED } from "@virtio/vring";
import type { FieldView, SlotState, SlotView } from "./snapshot.ts";
import { field, readSlot, windowOf } from "./slots.ts";

const EVENTS = ["enable", "disable", "descriptor", "reserved"] as const;

/** Slots, wrap counters, and the two event suppression structures. */
export function packedFields(memory: GuestMemory, look: QueueLook): FieldView[] {
  const { driverArea, deviceArea } = look.config;
  const { nextAvail, nextUsed, availWrap, usedWrap } = look.position;
  const event = (area: number): string => {
    const place = memory.readU16(area);
    const kind = EVENTS[memory.readU16(area + 2) & 3]!;
    return kind === "descriptor" ? `at ${place & 0x7fff}, wrap ${place >>> 15}` : kind;
  };
  return [
    field("device.avail_slot", nextAvail),
    field("device.avail_wrap", availWrap),
    field("device.used_slot", nextUsed),
    field("device.used_wrap", usedWrap),
    { key: "driver.event", value: event(driverArea) },
    { key: "device.event", value: event(deviceArea) },
  ];
}

/** The descriptor ring, or a part of a long one. */
export function packedSlots(memory: GuestMemory, look: QueueLook): SlotView[] {
  const { size, descriptorArea } = look.config;
  const { nextAvail, nextUsed, availWrap } = look.position;
  // What the device took and has not used yet lies, as slots, from the next used to the next available one.
  const taken = look.chains.length === 0 ? 0 : (nextAvail - nextUsed + size) % size || size;
  return windowOf(size, nextUsed).map((index) => {
    const { address, length, low, high } = readSlot(memory, descriptorArea, index);
    const ahead = (index - nextUsed + size) % size;
    let state: SlotState;
    if (ahead < taken) {
      state = "in flight";
    } else {
      const wrap = index >= nextAvail ? availWrap : availWrap ^ 1;
      const available = (high & VIRTQ_DESC_F_AVAIL) !== 0;
      const used = (high & VIRTQ_DESC_F_USED) !== 0;
      if (available !== used) state = available === (wrap === 1) ? "available" : "free";
      // Where nothing was ever written both bits are 0, as in every second lap.
      else if (used !== (wrap === 0) || (!used && Number(`0x${address}`) === 0)) state = "free";
      else state = "used";
    }
    return { index, state, address, length, flags: high, link: low };
  });
}

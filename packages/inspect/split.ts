/** The split format (virtio 1.4, 2.7) as it lies in guest memory. All of it is the driver's to change at any moment. */
import type { GuestMemory } from "@virtio/memory";
import { type QueueLook, VIRTQ_DESC_F_NEXT } from "@virtio/vring";
import type { FieldView, SlotState, SlotView } from "./snapshot.ts";
import { field, readSlot, windowOf } from "./slots.ts";

/** Indexes and event fields. */
export function splitFields(memory: GuestMemory, look: QueueLook): FieldView[] {
  const { driverArea, deviceArea, size } = look.config;
  const fields = [
    field("avail.idx", memory.readU16(driverArea + 2)),
    field("device.next_avail", look.position.nextAvail),
    field("used.idx", memory.readU16(deviceArea + 2)),
    field("device.next_used", look.position.nextUsed),
  ];
  if (look.eventIdx) {
    fields.push(
      field("used_event", memory.readU16(driverArea + 4 + 2 * size)),
      field("avail_event", memory.readU16(deviceArea + 4 + 8 * size)),
    );
  } else {
    fields.push(
      field("avail.flags", memory.readU16(driverArea)),
      field("used.flags", memory.readU16(deviceArea)),
    );
  }
  return fields;
}

/** The descriptor table, or a part of a long one. */
export function splitSlots(memory: GuestMemory, look: QueueLook): SlotView[] {
  const { size, driverArea } = look.config;
  const states: SlotState[] = new Array(size).fill("free");
  const mark = (head: number, state: SlotState): void => {
    let index = head;
    for (let steps = 0; steps < size && index < size; steps++) {
      if (states[index] !== "free") return;
      states[index] = state;
      const slot = readSlot(memory, look.config.descriptorArea, index);
      if ((slot.flags & VIRTQ_DESC_F_NEXT) === 0) return;
      index = slot.high;
    }
  };
  for (const { id } of look.chains) mark(id, "in flight");
  const end = memory.readU16(driverArea + 2);
  const { nextAvail } = look.position;
  // A driver may say anything; the device will refuse more than a ring of them.
  const count = Math.min((end - nextAvail) & 0xffff, size);
  for (let i = 0; i < count; i++) {
    const at = (nextAvail + i) & (size - 1);
    mark(memory.readU16(driverArea + 4 + 2 * at), "available");
  }
  return windowOf(size, 0).map((index) => {
    const { address, length, flags, high } = readSlot(memory, look.config.descriptorArea, index);
    return { index, state: states[index]!, address, length, flags, link: high };
  });
}

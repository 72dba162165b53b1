/** What the fields of a ring are, with the clause of virtio 1.4 that says so. */

/** An explanation. */
export interface Explanation {
  /** The field's name for people. */
  readonly name: string;
  /** Clause of virtio 1.4. */
  readonly clause: string;
  /** One or two sentences. */
  readonly text: string;
}

/** By `FieldView.key`, by state of a slot, and for the parts of the picture. */
export const EXPLANATIONS: Readonly<Record<string, Explanation>> = {
  "avail.idx": {
    name: "available index",
    clause: "2.7.6",
    text: "Written by the driver: how many chains it has made available so far, modulo 65536.",
  },
  "device.next_avail": {
    name: "next to take",
    clause: "2.7.6",
    text:
      "The device's own count of chains that it took. While it is behind the available index, there is work.",
  },
  "used.idx": {
    name: "used index",
    clause: "2.7.8",
    text: "Written by the device: how many chains it has given back so far, modulo 65536.",
  },
  "device.next_used": {
    name: "next to give back",
    clause: "2.7.8",
    text:
      "The device's own count of chains that it gave back; ahead of the used index only within a batch.",
  },
  used_event: {
    name: "used event",
    clause: "2.7.7",
    text:
      "Written by the driver (EVENT_IDX): it wants an interrupt when the used index passes this.",
  },
  avail_event: {
    name: "available event",
    clause: "2.7.10",
    text:
      "Written by the device (EVENT_IDX): it wants a kick when the available index passes this.",
  },
  "avail.flags": {
    name: "available flags",
    clause: "2.7.7",
    text: "Written by the driver: 1 asks the device for no interrupts. Advice only.",
  },
  "used.flags": {
    name: "used flags",
    clause: "2.7.10",
    text: "Written by the device: 1 tells the driver that it need not kick. Advice only.",
  },
  "device.avail_slot": {
    name: "next to take",
    clause: "2.8.1",
    text: "The slot where the device looks for the next available descriptor.",
  },
  "device.avail_wrap": {
    name: "wrap (take)",
    clause: "2.8.1",
    text:
      "The device's wrap counter for available descriptors. It flips at the end of the ring, and tells new descriptors from those of the last lap.",
  },
  "device.used_slot": {
    name: "next to give back",
    clause: "2.8.1",
    text: "The slot where the device writes the next used descriptor.",
  },
  "device.used_wrap": {
    name: "wrap (give back)",
    clause: "2.8.1",
    text: "The device's wrap counter for used descriptors.",
  },
  "driver.event": {
    name: "interrupts wanted",
    clause: "2.8.10",
    text:
      "The driver's event suppression structure: when it wants interrupts. Always, never, or when the device passes a slot in a lap.",
  },
  "device.event": {
    name: "kicks wanted",
    clause: "2.8.10",
    text: "The device's event suppression structure: when it wants kicks.",
  },
  free: {
    name: "free",
    clause: "2.7.5",
    text:
      "Nothing that the device may touch: the driver has not made it available, or has got it back.",
  },
  available: {
    name: "available",
    clause: "2.7.6, 2.8.2",
    text: "The driver has made it available; the device has not looked at it yet.",
  },
  "in flight": {
    name: "in flight",
    clause: "2.6",
    text:
      "The device has taken it and works on it. Its buffers are the device's until they are used.",
  },
  used: {
    name: "used",
    clause: "2.8.2",
    text: "The device has written it back: the driver may reap it.",
  },
  kicks: {
    name: "kicks",
    clause: "2.9",
    text:
      "Available buffer notifications: the driver told the device to look. Each is an exit from the guest.",
  },
  interrupts: {
    name: "interrupts",
    clause: "2.3",
    text: "Used buffer notifications: the device told the driver that something is done.",
  },
  chains: {
    name: "chains",
    clause: "2.7.5, 2.8.5",
    text: "Buffers that the device took: each is a chain of descriptors.",
  },
  age: {
    name: "age",
    clause: "2.6",
    text: "How long the device has had the chain, as far as it was seen from here.",
  },
};

/** The bits of a descriptor's flags, by format. */
export function flagNames(format: "split" | "packed", flags: number): string {
  const names: string[] = [];
  if (flags & 1) names.push("NEXT");
  if (flags & 2) names.push("WRITE");
  if (flags & 4) names.push("INDIRECT");
  if (format === "packed") {
    if (flags & 0x80) names.push("AVAIL");
    if (flags & 0x8000) names.push("USED");
  }
  return names.join(" ") || "none";
}

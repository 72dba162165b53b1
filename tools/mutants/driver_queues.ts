import type { MutatedFile } from "./mutant.ts";

/** The driver side of queues. */
export const DRIVER_QUEUES: readonly MutatedFile[] = [
  {
    file: "packages/vring/driver/record.ts",
    mutants: [
      {
        name: "driver-used-id-unchecked",
        about: "the driver believes the device which buffer it used",
        edits: [["if (!(id < this.#units.length) || this.#units[id] === 0) {", "if (id < 0) {"]],
      },
      {
        name: "driver-used-twice",
        about: "the device may use a buffer that is not in flight",
        edits: [[
          "if (!(id < this.#units.length) || this.#units[id] === 0) {",
          "if (!(id < this.#units.length)) {",
        ]],
      },
      {
        name: "driver-unpublished-used",
        about: "the device may use a buffer that was not made available yet",
        edits: [["if (this.#batches[id] === this.#batch) {", "if (false) {"]],
      },
      {
        name: "driver-used-length-unchecked",
        about: "the driver believes the device how much it wrote",
        edits: [["if (length > this.#writable[id]!) {", "if (false) {"]],
      },
      {
        name: "driver-in-order-batch-of-one",
        about: "with IN_ORDER a used entry stands for its own buffer only",
        edits: [["=== id) return n + 1;", "=== id) return 1;"]],
      },
      {
        name: "driver-longer-than-queue",
        about: "the driver makes lists that are longer than the queue",
        edits: [["if (count > size) {", "if (false) {"]],
      },
      {
        name: "driver-indirect-not-negotiated",
        about: "the driver uses an indirect table though INDIRECT_DESC was not negotiated",
        edits: [["if (table !== undefined && !indirect) {", "if (false) {"]],
      },
      {
        name: "driver-address-high-half-ignored",
        about: "the driver writes the lower half of addresses only",
        edits: [[
          "address < 0x1_0000_0000 ? 0 : Math.floor(address / 0x1_0000_0000)",
          "0",
        ]],
      },
    ],
  },
  {
    file: "packages/vring/driver/buffer_list.ts",
    mutants: [
      {
        name: "driver-readable-after-writable",
        about: "the driver puts a device-readable element after a device-writable one",
        edits: [["if (this.readableCount !== this.count) {", "if (false) {"]],
      },
    ],
  },
  {
    file: "packages/vring/driver/split_driver_queue.ts",
    mutants: [
      {
        name: "split-driver-index-before-entry",
        about: "the available index tells of an entry that is not written yet",
        edits: [[
          "    this.#driverRegion.view.setUint16(this.#availRing + 2 * slot, head, true);",
          `    Atomics.store(this.#driverRegion.u16, this.#availIdx, (this.#nextAvail + this.#added + 1) & 0xffff);
    this.#driverRegion.view.setUint16(this.#availRing + 2 * slot, head, true);`,
        ]],
      },
      {
        name: "split-driver-plain-store",
        about: "the available index is stored without a barrier",
        edits: [[
          "Atomics.store(this.#driverRegion.u16, this.#availIdx, now);",
          "this.#driverRegion.view.setUint16(this.#availIdx * 2, now, true);",
        ]],
      },
      {
        name: "split-driver-plain-load",
        about: "the used index is read without a barrier",
        edits: [[
          "const seen = Atomics.load(this.#deviceRegion.u16, this.#usedIdx);",
          "const seen = this.#deviceRegion.view.getUint16(this.#usedIdx * 2, true);",
        ]],
      },
      {
        name: "split-driver-decision-before-publish",
        about: "whether to kick is decided before the available index is stored",
        edits: [
          [
            "    Atomics.store(this.#driverRegion.u16, this.#availIdx, now);",
            `    const event = Atomics.load(this.#deviceRegion.u16, this.#availEvent);
    Atomics.store(this.#driverRegion.u16, this.#availIdx, now);`,
          ],
          [
            "needEvent(Atomics.load(this.#deviceRegion.u16, this.#availEvent), now, added)",
            "needEvent(event, now, added)",
          ],
        ],
      },
      {
        name: "split-driver-batch-counts-one",
        about: "only the last buffer of a batch is compared with avail_event",
        edits: [[
          "needEvent(Atomics.load(this.#deviceRegion.u16, this.#availEvent), now, added)",
          "needEvent(Atomics.load(this.#deviceRegion.u16, this.#availEvent), now, 1)",
        ]],
      },
      {
        name: "split-driver-no-notify-ignored",
        about: "VIRTQ_USED_F_NO_NOTIFY is not looked at",
        edits: [["return (flags & VIRTQ_USED_F_NO_NOTIFY) === 0;", "return flags >= 0;"]],
      },
      {
        name: "split-driver-interrupts-without-recheck",
        about: "the driver asks for interrupts and does not look again",
        edits: [["return ahead > (this.#eventIdx ? after : 0);", "return ahead < 0;"]],
      },
      {
        name: "split-driver-flags-with-event-idx",
        about: "the driver sets NO_INTERRUPT though EVENT_IDX was negotiated",
        edits: [[
          "Atomics.store(u16, this.#usedEvent, (this.#nextUsed - 1) & 0xffff);",
          "Atomics.store(u16, this.#availFlags, VIRTQ_AVAIL_F_NO_INTERRUPT);",
        ]],
      },
      {
        name: "split-driver-free-counts-one",
        about: "a chain of several descriptors frees one",
        edits: [["this.free += units;", "this.free += 1;"]],
      },
      {
        name: "split-driver-free-unchecked",
        about: "the driver uses descriptors that are in flight",
        edits: [["if (units > this.free) return false;", ""]],
      },
      {
        name: "split-driver-chain-lost",
        about: "only the head of a chain goes back to the free list",
        edits: [["for (let i = 1; i < units; i++) last = this.#links[last]!;", ""]],
      },
      {
        name: "split-driver-used-jump-unchecked",
        about: "the used index may jump ahead by more than is in flight",
        edits: [["if (ahead > this.#record.count) {", "if (ahead > 0x8000) {"]],
      },
      {
        name: "split-driver-in-order-gap",
        about: "with IN_ORDER a used entry may stand for more buffers than the used index says",
        edits: [["if (batch > ((this.#seenUsed - this.#nextUsed) & 0xffff)) {", "if (false) {"]],
      },
      {
        name: "split-driver-in-order-length",
        about: "with IN_ORDER the length of the last buffer counts for the whole batch",
        edits: [[
          "this.#batch === 1 ? this.#batchLength : record.writable(id)",
          "this.#batchLength",
        ]],
      },
      {
        name: "split-driver-used-not-wrapped",
        about: "the used entry is read behind the ring after its end",
        edits: [[
          "8 * (this.#nextUsed & this.#mask)",
          "8 * (this.#nextUsed & (2 * this.#mask + 1))",
        ]],
      },
    ],
  },
  {
    file: "packages/vring/driver/packed_driver_queue.ts",
    mutants: [
      {
        name: "packed-driver-wrap-not-toggled",
        about: "the driver's wrap counter never changes",
        edits: [[
          `        slot = 0;
        wrap ^= 1;`,
          "        slot = 0;",
        ]],
      },
      {
        name: "packed-driver-used-wrap-not-toggled",
        about: "the driver's wrap counter for used descriptors never changes",
        edits: [[
          `      next -= this.size;
      this.#usedWrap ^= 1;`,
          "      next -= this.size;",
        ]],
      },
      {
        name: "packed-driver-head-published-early",
        about: "the first descriptor of a list is visible before the others",
        edits: [[
          "if (i === 0) headFlags = flags;\n      else view",
          "if (i === 0) headFlags = flags;\n      view",
        ]],
      },
      {
        name: "packed-driver-plain-store",
        about: "descriptors are made available without a barrier",
        edits: [[
          "Atomics.store(u16, this.#headAt, this.#headFlags);",
          "this.#ringRegion.view.setUint16(this.#headAt * 2, this.#headFlags, true);",
        ]],
      },
      {
        name: "packed-driver-decision-before-publish",
        about: "whether to kick is decided before descriptors are made available",
        edits: [
          [
            "    Atomics.store(u16, this.#headAt, this.#headFlags);",
            `    const word = Atomics.load(this.#deviceRegion.i32, this.#deviceEvent);
    Atomics.store(u16, this.#headAt, this.#headFlags);`,
          ],
          [
            `    const word = Atomics.load(this.#deviceRegion.i32, this.#deviceEvent);
    const flags`,
            "    const flags",
          ],
        ],
      },
      {
        name: "packed-driver-event-wrap-ignored",
        about: "the wrap bit of the device's event is not looked at",
        edits: [["if (((word >>> 15) & 1) !== this.#availWrap) event -= this.size;", ""]],
      },
      {
        name: "packed-driver-disable-ignored",
        about: "the device's RING_EVENT_FLAGS_DISABLE is not looked at",
        edits: [["if (flags === RING_EVENT_FLAGS_DISABLE) return false;", ""]],
      },
      {
        name: "packed-driver-avail-bit-ignored",
        about: "a descriptor counts as used whatever its AVAIL bit is",
        edits: [[
          "return avail === used && used === (this.#usedWrap === 1);",
          "return used === (this.#usedWrap === 1) || avail && used && false;",
        ]],
      },
      {
        name: "packed-driver-reserved-length",
        about: "the length of a used descriptor counts without the WRITE flag too",
        edits: [["(flags & VIRTQ_DESC_F_WRITE) === 0\n      ? 0", "flags < 0\n      ? 0"]],
      },
      {
        name: "packed-driver-skips-one",
        about: "a used buffer of several slots moves on by one",
        edits: [["let next = this.#nextUsed + units;", "let next = this.#nextUsed + 1;"]],
      },
      {
        name: "packed-driver-free-counts-one",
        about: "a buffer of several slots frees one",
        edits: [["this.free += units;", "this.free += 1;"]],
      },
      {
        name: "packed-driver-interrupts-without-recheck",
        about: "the driver asks for interrupts and does not look again",
        edits: [[
          "return this.#isUsed(Atomics.load(this.#ringRegion.i32, (at + 12) / 4) >>> 16);",
          "return at < 0;",
        ]],
      },
      {
        name: "packed-driver-event-wrap-missing",
        about: "the driver asks for interrupts without its wrap counter",
        edits: [["word = event | (wrap << 15) |", "word = event | (wrap & 0) |"]],
      },
      {
        name: "packed-driver-kick-without-wrap",
        about: "a kick with data leaves next_wrap out",
        edits: [["return this.#nextAvail | (this.#availWrap << 15);", "return this.#nextAvail;"]],
      },
    ],
  },
];

import type { MutatedFile } from "./mutant.ts";

/** The device side of split queues. */
export const SPLIT_QUEUE: readonly MutatedFile[] = [
  {
    file: "packages/vring/split_queue.ts",
    mutants: [
      {
        name: "split-head-off-by-one",
        about: "the descriptor behind the table may be a head",
        edits: [["if (head >= entries) this", "if (head > entries) this"]],
      },
      {
        name: "split-next-off-by-one",
        about: "the descriptor behind the table may follow",
        edits: [["if (index >= entries) this", "if (index > entries) this"]],
      },
      {
        name: "split-undo-skips",
        about: "a chain that was put back is not popped again",
        edits: [[
          `    this.#nextAvail = (this.#nextAvail - 1) & 0xffff;
`,
          "",
        ]],
      },
      {
        name: "split-total-unchecked",
        about: "a chain may describe more than 2^32 bytes",
        edits: [[
          "if (count > entries || readable + writable > 0x7fff_ffff) this",
          "if (count > entries) this",
        ]],
      },
      {
        name: "split-region-end-unchecked",
        about: "a buffer may go on behind its region",
        edits: [["length > ((size - offset) | 0) ||", "length > size ||"]],
      },
      {
        name: "split-readable-after-writable",
        about: "a device-readable descriptor may come after a device-writable one",
        edits: [["if (writable !== 0) this.#failed(chain, wrongOrder());", ""]],
      },
      {
        name: "split-indirect-not-negotiated",
        about: "indirect tables are taken though INDIRECT_DESC was not negotiated",
        edits: [[" === F_INDIRECT && this.#indirect) {", " === F_INDIRECT) {"]],
      },
      {
        name: "split-indirect-and-next",
        about: "an indirect descriptor may have NEXT too",
        edits: [[
          "if ((word & (F_INDIRECT | F_NEXT)) === F_INDIRECT && this",
          "if ((word & F_INDIRECT) !== 0 && this",
        ]],
      },
      {
        name: "split-indirect-as-buffer",
        about: "an unusual indirect table is taken for a buffer",
        edits: [[
          `        (word & F_INDIRECT) !== 0 || count === capacity
      ) {`,
          `        count === capacity
      ) {`,
        ]],
      },
      {
        name: "split-segments-beyond-room",
        about: "a chain of more segments than ever loses the last ones",
        edits: [[
          `(word & F_INDIRECT) !== 0 || count === capacity
      ) {`,
          `(word & F_INDIRECT) !== 0
      ) {`,
        ]],
      },
      {
        name: "split-hand-over-counts-lost",
        about: "the long way does not know what the short one counted",
        edits: [[
          `          chain.readable = readable;
          chain.writable = writable;
`,
          "",
        ]],
      },
      {
        name: "split-decision-before-publish",
        about: "whether to interrupt is decided before the used index is stored, with EVENT_IDX",
        edits: [
          [
            "    Atomics.store(this.#deviceRegion.u16, this.#usedIdx, now);",
            `    const event = Atomics.load(this.#driverRegion.u16, this.#usedEvent);
    Atomics.store(this.#deviceRegion.u16, this.#usedIdx, now);`,
          ],
          [
            "needEvent(Atomics.load(this.#driverRegion.u16, this.#usedEvent), now, added)",
            "needEvent(event, now, added)",
          ],
        ],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "split-flags-before-publish",
        about: "whether to interrupt is decided before the used index is stored, by flags",
        edits: [
          [
            `    const flags = Atomics.load(this.#driverRegion.u16, this.#availFlags);
    return`,
            "    return",
          ],
          [
            "    Atomics.store(this.#deviceRegion.u16, this.#usedIdx, now);",
            `    const flags = Atomics.load(this.#driverRegion.u16, this.#availFlags);
    Atomics.store(this.#deviceRegion.u16, this.#usedIdx, now);`,
          ],
        ],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "split-batch-counts-one",
        about: "only the last entry of a batch is compared with used_event",
        edits: [[
          "needEvent(Atomics.load(this.#driverRegion.u16, this.#usedEvent), now, added)",
          "needEvent(Atomics.load(this.#driverRegion.u16, this.#usedEvent), now, 1)",
        ]],
      },
      {
        name: "split-added-never-reset",
        about: "what was published counts again at the next flush",
        edits: [[
          `    this.#added = 0;
    const now`,
          "    const now",
        ]],
      },
      {
        name: "split-arm-without-recheck",
        about: "the device asks for kicks and does not look again",
        edits: [[
          `    return this.#seenAvail !== this.#nextAvail ||
      Atomics.load(this.#driverRegion.u16, this.#availIdx) !== this.#nextAvail;`,
          "    return this.#seenAvail !== this.#nextAvail;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "split-arm-event-stale",
        about: "avail_event is not moved on when the device asks for kicks",
        edits: [["Atomics.store(u16, this.#availEvent, this.#nextAvail);", ""]],
      },
      {
        name: "split-arm-event-ahead",
        about: "avail_event names the entry after the next one",
        edits: [[
          "Atomics.store(u16, this.#availEvent, this.#nextAvail);",
          "Atomics.store(u16, this.#availEvent, (this.#nextAvail + 1) & 0xffff);",
        ]],
      },
      {
        name: "split-suspend-nothing",
        about: "the device never says that it needs no kicks",
        edits: [[
          "this.#deviceRegion.view.setUint16(this.#usedFlags * 2, VIRTQ_USED_F_NO_NOTIFY, true);",
          "",
        ]],
      },
      {
        name: "split-suspend-for-good",
        about: "NO_NOTIFY is never taken back",
        edits: [["Atomics.store(u16, this.#usedFlags, 0);", ""]],
      },
      {
        name: "split-flags-with-event-idx",
        about: "the device sets NO_NOTIFY though EVENT_IDX was negotiated",
        edits: [["if (this.#eventIdx || this.#suspended) return;", "if (this.#suspended) return;"]],
      },
      {
        name: "split-no-interrupt-ignored",
        about: "VIRTQ_AVAIL_F_NO_INTERRUPT is not looked at",
        edits: [["return (flags & VIRTQ_AVAIL_F_NO_INTERRUPT) === 0;", "return flags >= 0;"]],
      },
      {
        name: "split-event-idx-not-negotiated",
        about: "event indexes are used though EVENT_IDX was not negotiated",
        edits: [[
          "this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;",
          "this.#eventIdx = true;",
        ]],
      },
      {
        name: "split-event-idx-unused",
        about: "event indexes are not used though EVENT_IDX was negotiated",
        edits: [[
          "this.#eventIdx = (features & VIRTIO_F_EVENT_IDX) !== 0n;",
          "this.#eventIdx = false;",
        ]],
      },
      {
        name: "split-avail-index-not-wrapped",
        about: "the next available index goes from 65534 to 0",
        edits: [[
          "this.#nextAvail = (next + 1) & 0xffff;",
          "this.#nextAvail = (next + 1) % 0xffff;",
        ]],
      },
      {
        name: "split-avail-jump-unchecked",
        about: "the available index may jump ahead by more than the queue has entries",
        edits: [["if (ahead > this.size) {", "if (ahead > 0x8000) {"]],
      },
      {
        name: "split-used-length-too-long",
        about: "the used length is all that the device could have written",
        edits: [["written: number = chain.written", "written: number = chain.writable"]],
      },
      {
        name: "split-used-length-unchecked",
        about: "a device may say that it wrote more than there is room for",
        edits: [[
          "!(written >= 0 && written <= chain.writable)",
          "!(written >= 0)",
        ]],
      },
      {
        name: "split-index-untracked",
        about: "the used index is not marked dirty",
        edits: [[
          "this.#memory.tracker?.mark(this.#deviceRegion.base + this.#usedIdx * 2, 2);",
          "",
        ]],
      },
      {
        name: "split-restored-at-zero",
        about: "a restored queue begins at used index 0",
        edits: [["this.#nextUsed = config.position.nextUsed;", ""]],
      },
      {
        name: "split-index-before-entry",
        about: "the used index tells of an entry that is not written yet",
        edits: [[
          `    words[at] = chain.id;
    words[(at + 1) | 0] = written;
    this.#nextUsed = (next + 1) & 0xffff;`,
          `    this.#nextUsed = (next + 1) & 0xffff;
    Atomics.store(this.#deviceRegion.u16, this.#usedIdx, this.#nextUsed);
    words[at] = chain.id;
    words[(at + 1) | 0] = written;`,
        ]],
      },
      {
        name: "split-index-plain-store",
        about: "the used index is stored without a barrier",
        edits: [[
          "Atomics.store(this.#deviceRegion.u16, this.#usedIdx, now);",
          "this.#deviceRegion.u16[this.#usedIdx] = now;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "split-index-plain-load",
        about: "the available index is read without a barrier",
        edits: [[
          "const seen = Atomics.load(this.#driverRegion.u16, this.#availIdx);",
          "const seen = this.#driverRegion.u16[this.#availIdx]!;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "split-in-order-not-negotiated",
        about: "chains are used in order though IN_ORDER was not negotiated",
        edits: [["(features & VIRTIO_F_IN_ORDER) !== 0n,", "true,"]],
      },
      {
        name: "split-in-order-ignored",
        about: "chains are used as they are done though IN_ORDER was negotiated",
        edits: [["(features & VIRTIO_F_IN_ORDER) !== 0n,", "false,"]],
      },
      {
        name: "split-avail-index-not-wrapped-unusual",
        about: "after an unusual chain the next available index goes from 65534 to 0",
        edits: [[
          "this.#nextAvail = (this.#nextAvail + 1) & 0xffff;",
          "this.#nextAvail = (this.#nextAvail + 1) % 0xffff;",
        ]],
      },
      {
        name: "split-used-index-not-wrapped",
        about: "the next used index is one behind after 65535",
        edits: [["this.#nextUsed = (next + 1) & 0xffff;", "this.#nextUsed = (next + 1) % 0xffff;"]],
      },
      {
        name: "split-used-entry-not-wrapped",
        about: "the used entry is written behind the ring after its end",
        edits: [["((next & this.#mask) << 1)", "((next & (2 * this.#mask + 1)) << 1)"]],
      },
      {
        name: "split-avail-entry-not-wrapped",
        about: "the available entry is read behind the ring after its end",
        edits: [[
          "this.#availRing + (next & this.#mask)",
          "this.#availRing + (next & (2 * this.#mask + 1))",
        ]],
      },
      {
        name: "split-in-flight-off-by-one",
        about: "the driver may have one chain more in flight than the queue has entries",
        edits: [[
          "const room = this.size - this.inFlight - this.#added;",
          "const room = this.size - this.inFlight - this.#added + 1;",
        ]],
      },
      {
        name: "split-in-flight-unflushed-forgotten",
        about: "chains that are used but not published do not count as the device's",
        edits: [[
          "const room = this.size - this.inFlight - this.#added;",
          "const room = this.size - this.inFlight;",
        ]],
      },
      {
        name: "split-in-flight-skew-forgotten",
        about: "after a reset of the queue what was dropped still counts as in flight",
        edits: [[
          `    this.#skew = this.#nextAvail - this.#nextUsed;
    this.#added = 0;`,
          "    this.#added = 0;",
        ]],
      },
      {
        name: "split-next-ignored",
        about: "VIRTQ_DESC_F_NEXT is not looked at",
        edits: [["if ((word & F_NEXT) === 0) break;", "break;"]],
      },
      {
        name: "split-head-read-twice",
        about: "the head is read from the available ring again for the used entry",
        edits: [[
          "chain.id = head;",
          "chain.id = this.#driverRegion.u16[this.#availRing + (next & this.#mask)]!;",
        ]],
      },
      {
        name: "split-used-length-zero",
        about: "the used length is always 0",
        edits: [["words[(at + 1) | 0] = written;", "words[(at + 1) | 0] = written * 0;"]],
      },
      {
        name: "split-error-forgotten",
        about: "a queue goes on after an error of the driver",
        edits: [["this.#broken = error;", ""]],
      },
      {
        name: "split-address-high-half-ignored",
        about: "buffers above 4 GiB are looked for below",
        edits: [["high !== baseHigh || offset < 0 ||", "offset < 0 ||"]],
      },
      {
        name: "split-length-signed",
        about: "a buffer of more than 2 GiB is taken for one of negative length",
        edits: [["offset < 0 || length <= 0 ||", "offset < 0 ||"]],
      },
      {
        name: "split-segment-region-forgotten",
        about: "a segment of another region is taken to lie in the usual one",
        edits: [["mixed = chain.mixed = 1;", ""]],
      },
      {
        name: "split-write-ignored",
        about: "VIRTQ_DESC_F_WRITE is not looked at",
        edits: [["if ((word & F_WRITE) !== 0) {", "if ((word & 0) !== 0) {"]],
      },
      {
        name: "split-next-read-twice",
        about: "the flags of a descriptor are read again after they were used",
        edits: [[
          "if ((word & F_NEXT) === 0) break;",
          "if ((words[(at + 3) | 0]! & F_NEXT) === 0) break;",
        ]],
      },
      {
        name: "split-length-read-twice",
        about: "the length of a buffer is read again after it was checked",
        edits: [["lengths[count] = length;", "lengths[count] = words[(at + 2) | 0]!;"]],
      },
    ],
  },
];

import type { MutatedFile } from "./mutant.ts";

/** The device side of packed queues. */
export const PACKED_QUEUE: readonly MutatedFile[] = [
  {
    file: "packages/vring/packed_queue.ts",
    mutants: [
      {
        name: "packed-avail-wrap-not-toggled",
        about: "the wrap counter for available descriptors never changes",
        edits: [[
          `      next -= this.size;
      this.#availWrap ^= 1;`,
          "      next -= this.size;",
        ]],
      },
      {
        name: "packed-used-wrap-not-toggled",
        about: "the wrap counter for used descriptors never changes",
        edits: [[
          `      next -= this.size;
      this.#usedWrap ^= 1;`,
          "      next -= this.size;",
        ]],
      },
      {
        name: "packed-undo-wrap-not-toggled",
        about: "the wrap counter stays when a chain is put back over the end of the ring",
        edits: [[
          `      next += this.size;
      this.#availWrap ^= 1;`,
          "      next += this.size;",
        ]],
      },
      {
        name: "packed-used-wrap-late",
        about: "the next used slot is one behind the ring after its last slot",
        edits: [[
          `    let next = this.#nextUsed + chain.slots;
    if (next >= this.size) {`,
          `    let next = this.#nextUsed + chain.slots;
    if (next > this.size) {`,
        ]],
      },
      {
        name: "packed-used-skips-one",
        about: "using a list of several descriptors moves on by one slot",
        edits: [["let next = this.#nextUsed + chain.slots;", "let next = this.#nextUsed + 1;"]],
      },
      {
        name: "packed-pop-skips-one",
        about: "popping a list of several descriptors moves on by one slot",
        edits: [["let next = this.#nextAvail + slots;", "let next = this.#nextAvail + 1;"]],
      },
      {
        name: "packed-scan-wrap-forgotten",
        about:
          "what is available is looked for with the old wrap counter after the end of the ring",
        edits: [["expected ^= BOTH;", ""]],
      },
      {
        name: "packed-used-bit-ignored",
        about: "a descriptor counts as available whatever its USED bit is",
        edits: [[
          `    if ((Atomics.load(region.u16, ring / 2 + 8 * slot + 7) & BOTH) !== expected) return false;`,
          `    const bit = VIRTQ_DESC_F_AVAIL;
    if ((Atomics.load(region.u16, ring / 2 + 8 * slot + 7) & bit) !== (expected & bit)) return false;`,
        ]],
      },
      {
        name: "packed-flags-plain-load",
        about: "the flags of the next descriptor are read without a barrier",
        edits: [[
          "(Atomics.load(region.u16, ring / 2 + 8 * slot + 7) & BOTH) !== expected",
          "(view.getUint16(ring + 16 * slot + 14, true) & BOTH) !== expected",
        ]],
      },
      {
        name: "packed-last-plain-load",
        about: "what was made available in a later batch is read without a barrier",
        edits: [["if (seen > 1) Atomics.load(region.u16, ring / 2 + 8 * last + 7);", ""]],
      },
      {
        name: "packed-head-published-early",
        about: "the first used descriptor of a batch is visible before the others",
        edits: [[
          "this.#headWord = word;",
          `this.#headWord = word;
      view.setUint32(at + 12, word, true);`,
        ]],
      },
      {
        name: "packed-flags-before-length",
        about: "a used descriptor is visible before its length",
        edits: [
          [
            `    view.setUint32(at + 8, written, true);
    if (this.#addedChains === 0) {`,
            `    Atomics.store(this.#ringRegion.i32, (at + 12) / 4, word | 0);
    view.setUint32(at + 8, written, true);
    if (this.#addedChains === 0) {`,
          ],
        ],
      },
      {
        name: "packed-plain-store",
        about: "used descriptors are published without a barrier",
        edits: [[
          "Atomics.store(this.#ringRegion.i32, (this.#headAt + 12) / 4, this.#headWord | 0);",
          "this.#ringRegion.view.setUint32(this.#headAt + 12, this.#headWord, true);",
        ]],
      },
      {
        name: "packed-decision-before-publish",
        about: "whether to interrupt is decided before the used descriptors are published",
        edits: [
          [
            "    Atomics.store(this.#ringRegion.i32, (this.#headAt + 12) / 4, this.#headWord | 0);",
            `    const word = Atomics.load(this.#driverRegion.i32, this.#driverEvent);
    Atomics.store(this.#ringRegion.i32, (this.#headAt + 12) / 4, this.#headWord | 0);`,
          ],
          [
            `    const word = Atomics.load(this.#driverRegion.i32, this.#driverEvent);
    const flags`,
            "    const flags",
          ],
        ],
      },
      {
        name: "packed-disable-ignored",
        about: "RING_EVENT_FLAGS_DISABLE is not looked at",
        edits: [["if (flags === RING_EVENT_FLAGS_DISABLE) return false;", ""]],
      },
      {
        name: "packed-desc-not-negotiated",
        about: "RING_EVENT_FLAGS_DESC is honoured though EVENT_IDX was not negotiated",
        edits: [[
          "if (flags !== RING_EVENT_FLAGS_DESC || !this.#eventIdx) return true;",
          "if (flags !== RING_EVENT_FLAGS_DESC) return true;",
        ]],
      },
      {
        name: "packed-desc-ignored",
        about: "RING_EVENT_FLAGS_DESC interrupts always",
        edits: [[
          "if (flags !== RING_EVENT_FLAGS_DESC || !this.#eventIdx) return true;",
          "if (flags !== RING_EVENT_FLAGS_DISABLE) return true;",
        ]],
      },
      {
        name: "packed-event-wrap-ignored",
        about: "the wrap bit of the event is not looked at",
        edits: [["if (((word >>> 15) & 1) !== this.#usedWrap) event -= this.size;", ""]],
      },
      {
        name: "packed-event-wrap-doubled",
        about: "an event of the other round is taken to be two rounds away",
        edits: [[
          "if (((word >>> 15) & 1) !== this.#usedWrap) event -= this.size;",
          "if (((word >>> 15) & 1) !== this.#usedWrap) event -= 2 * this.size;",
        ]],
      },
      {
        name: "packed-event-wrap-inverted",
        about: "an event of this round is taken to be of the other",
        edits: [[
          "if (((word >>> 15) & 1) !== this.#usedWrap) event -= this.size;",
          "if (((word >>> 15) & 1) === this.#usedWrap) event -= this.size;",
        ]],
      },
      {
        name: "packed-added-counts-chains",
        about: "the event is compared with chains, not with slots",
        edits: [["this.#addedSlots += chain.slots;", "this.#addedSlots += 1;"]],
      },
      {
        name: "packed-added-never-reset",
        about: "slots that were published count again at the next flush",
        edits: [[
          `    this.#addedSlots = 0;
    this.#addedChains = 0;
    // The driver`,
          `    this.#addedChains = 0;
    // The driver`,
        ]],
      },
      {
        name: "packed-arm-without-recheck",
        about: "the device asks for kicks and does not look again",
        edits: [[
          "return (flags & BOTH) === (this.#availWrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED);",
          "return flags < 0;",
        ]],
      },
      {
        name: "packed-arm-wrap-missing",
        about: "the device asks for kicks without its wrap counter",
        edits: [["this.#nextAvail | (this.#availWrap << 15) |", "this.#nextAvail |"]],
      },
      {
        name: "packed-suspend-nothing",
        about: "the device never says that it needs no kicks",
        edits: [[
          "this.#deviceRegion.view.setUint32(at, RING_EVENT_FLAGS_DISABLE << 16, true);",
          "",
        ]],
      },
      {
        name: "packed-suspend-for-good",
        about: "RING_EVENT_FLAGS_DISABLE is never taken back",
        edits: [[
          "Atomics.store(this.#deviceRegion.i32, this.#deviceEvent, RING_EVENT_FLAGS_ENABLE << 16);",
          "",
        ]],
      },
      {
        name: "packed-id-of-first",
        about: "the buffer id is taken from the first descriptor of a list",
        edits: [
          [
            "      slots++;\n",
            "      slots++;\n      if (slots === 1) chain.id = word & 0xffff;\n",
          ],
          ["        chain.id = word & 0xffff;\n        break;", "        break;"],
        ],
      },
      {
        name: "packed-list-unbounded",
        about: "a list of descriptors that never ends is followed for ever",
        edits: [["if (slots === size) {", "if (slots < 0) {"]],
        hangs: true,
      },
      {
        name: "packed-indirect-not-negotiated",
        about: "indirect tables are taken though INDIRECT_DESC was not negotiated",
        edits: [["if (!this.#indirect) {", "if (false) {"]],
      },
      {
        name: "packed-indirect-nested",
        about: "an indirect table may hold indirect descriptors, taken for buffers",
        edits: [[
          `      if ((flags & VIRTQ_DESC_F_INDIRECT) !== 0) {
        throw`,
          `      if (flags < 0) {
        throw`,
        ]],
      },
      {
        name: "packed-indirect-in-list",
        about: "an indirect descriptor may stand in a list with others",
        edits: [["if (slots > 1 || (flags & VIRTQ_DESC_F_NEXT) !== 0) {", "if (false) {"]],
      },
      {
        name: "packed-table-next-followed",
        about: "a table ends at the first entry without NEXT, which is reserved there",
        edits: [[
          `        (flags & VIRTQ_DESC_F_WRITE) !== 0,
      );
    }`,
          `        (flags & VIRTQ_DESC_F_WRITE) !== 0,
      );
      if ((flags & VIRTQ_DESC_F_NEXT) === 0) break;
    }`,
        ]],
      },
      {
        name: "packed-length-without-write-flag",
        about: "a used descriptor has a length but not the flag that makes it count",
        edits: [["if (written > 0) flags |= VIRTQ_DESC_F_WRITE;", ""]],
      },
      {
        name: "packed-used-length-too-long",
        about: "the used length is all that the device could have written",
        edits: [["written: number = chain.written", "written: number = chain.writable"]],
      },
      {
        name: "packed-used-length-unchecked",
        about: "a device may say that it wrote more than there is room for",
        edits: [[
          "if (!(written >= 0 && written <= chain.writable)) {",
          "if (!(written >= 0)) {",
        ]],
      },
      {
        name: "packed-flags-read-twice",
        about: "the flags of a descriptor are read again after they were used",
        edits: [[
          `      if ((flags & VIRTQ_DESC_F_NEXT) === 0) {
        // The last`,
          `      if ((view.getUint16(at + 14, true) & VIRTQ_DESC_F_NEXT) === 0) {
        // The last`,
        ]],
      },
      {
        name: "packed-error-forgotten",
        about: "a queue goes on after an error of the driver",
        edits: [["        this.#broken = error;\n", ""]],
      },
      {
        name: "packed-in-order-ignored",
        about: "chains are used as they are done though IN_ORDER was negotiated",
        edits: [[
          "new ChainPool(config.size, (features & VIRTIO_F_IN_ORDER) !== 0n)",
          "new ChainPool(config.size, false)",
        ]],
      },
      {
        name: "packed-restored-wrap-forgotten",
        about: "a restored queue begins with used wrap counter 1",
        edits: [["this.#usedWrap = config.position.usedWrap;", ""]],
      },
    ],
  },
];

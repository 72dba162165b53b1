import type { MutatedFile } from "./mutant.ts";

/** What both ring formats share, on the device's side. */
export const VRING: readonly MutatedFile[] = [
  {
    file: "packages/vring/need_event.ts",
    mutants: [
      {
        name: "need-event-late",
        about: "the notification comes one index too late",
        edits: [["event - 1) & 0xffff) < added", "event - 2) & 0xffff) < added"]],
      },
      {
        name: "need-event-early",
        about: "the entry before the one that was asked for notifies too",
        edits: [[") & 0xffff) < added", ") & 0xffff) <= added"]],
      },
      {
        name: "need-event-without-wrap",
        about: "the distance to the event is not taken modulo 2^16",
        edits: [["((now - event - 1) & 0xffff) < added", "now - event - 1 < added"]],
      },
    ],
  },
  {
    file: "packages/vring/open_queue.ts",
    mutants: [
      {
        name: "area-alignment-unchecked",
        about: "the areas of a queue may lie at any address",
        edits: [["if (address % layout.align !== 0) {", "if (false) {"]],
      },
      {
        name: "area-end-unchecked",
        about: "only the start of an area has to be in guest memory",
        edits: [["memory.lookupSegment(address, layout.size)", "memory.lookupSegment(address, 1)"]],
      },
      {
        name: "position-off-by-one",
        about: "a restored queue may go on one slot behind its ring",
        edits: [["value < 0 || value >= end", "value < 0 || value > end"]],
      },
      {
        name: "packed-not-negotiated",
        about: "the device opens packed queues though RING_PACKED was not negotiated",
        edits: [["(features & VIRTIO_F_RING_PACKED) !== 0n", "true"]],
      },
    ],
  },
  {
    file: "packages/vring/layout.ts",
    mutants: [
      {
        name: "split-size-not-power-of-two",
        about: "a split queue may have any size",
        edits: [[`(format === "packed" || (size & (size - 1)) === 0)`, "format !== undefined"]],
      },
      {
        name: "queue-size-unbounded",
        about: "a queue may have more than 32768 entries",
        edits: [[" && size <= MAX_QUEUE_SIZE &&", " &&"]],
      },
      {
        name: "used-event-outside-driver-area",
        about: "the driver area is taken to end before used_event",
        edits: [["driverArea: { size: 6 + 2 * size", "driverArea: { size: 4 + 2 * size"]],
      },
    ],
  },
  {
    file: "packages/vring/segments.ts",
    mutants: [
      {
        name: "readable-after-writable-unusual",
        about:
          "an empty or crossing device-readable descriptor may come after a device-writable one",
        edits: [["if (chain.count !== chain.readableCount) throw wrongOrder();", ""]],
      },
      {
        name: "address-high-half-ignored",
        about: "buffers above 4 GiB are looked for below",
        edits: [["high === 0 ? low : low + high * 0x1_0000_0000", "low"]],
      },
      {
        name: "chain-total-unchecked",
        about: "a chain may describe more than 2^32 bytes",
        edits: [["if (chain.readable + chain.writable > MAX_CHAIN_BYTES) {", "if (false) {"]],
      },
      {
        name: "hole-skipped",
        about: "the part of a buffer that is not in guest memory is left out in silence",
        edits: [[
          `    if (region === null) {
      throw new VirtqueueError(
        "2.7.5",`,
          `    if (region === null) break;
    if (region === undefined) {
      throw new VirtqueueError(
        "2.7.5",`,
        ]],
      },
      {
        name: "writes-untracked",
        about: "what a device wrote into a chain is not marked dirty",
        edits: [[
          "let i = chain.readableCount; i < chain.count",
          "let i = chain.count; i < chain.count",
        ]],
      },
    ],
  },
  {
    file: "packages/vring/walker.ts",
    mutants: [
      {
        name: "table-unbounded",
        about: "an indirect table may have any number of entries",
        edits: [["if (entries > limit) {", "if (false) {"]],
      },
      {
        name: "table-unbounded-in-place",
        about: "an indirect table in the usual region may have any number of entries",
        edits: [["(offset & 3) === 0 && length <= TABLE_BYTES", "(offset & 3) === 0"]],
      },
      {
        name: "walker-loop-unbounded",
        about: "a chain that loops is followed for ever",
        edits: [["if (descriptors - before >= this.#entries) throw this.#tooLong(inTable);", ""]],
        hangs: true,
      },
      {
        name: "walker-next-off-by-one",
        about: "the descriptor behind the table may follow",
        edits: [["if (index >= this.#entries) throw", "if (index > this.#entries) throw"]],
      },
      {
        name: "walker-indirect-nested",
        about: "an indirect table may hold an indirect descriptor",
        edits: [[
          `    if (inTable) {
      throw`,
          `    if (before < 0) {
      throw`,
        ]],
        hangs: true,
      },
      {
        name: "walker-indirect-not-negotiated",
        about: "indirect tables are taken though INDIRECT_DESC was not negotiated",
        edits: [["if (!this.#indirect) {", "if (false) {"]],
      },
      {
        name: "walker-indirect-and-next",
        about: "a split indirect descriptor may have NEXT too",
        edits: [["    if (next) throw", "    if (next && before < 0) throw"]],
      },
      {
        name: "walker-indirect-in-list",
        about: "a packed indirect descriptor may be the last of a list with others",
        edits: [["if (this.#packed && (next || before > 0)) {", "if (this.#packed && next) {"]],
      },
      {
        name: "walker-packed-table-flags",
        about: "flags of entries of a packed table count that are to be ignored",
        edits: [[
          "(flags & VIRTQ_DESC_F_INDIRECT) !== 0 && !(packed && inTable)",
          "(flags & VIRTQ_DESC_F_INDIRECT) !== 0",
        ]],
      },
      {
        name: "walker-next-ignored",
        about: "an unusual split chain ends at the first descriptor that is read",
        edits: [[
          `          if ((flags & VIRTQ_DESC_F_NEXT) === 0) break;
          index`,
          `          if (packed || !packed) break;
          index`,
        ]],
      },
      {
        name: "walker-table-next-followed",
        about:
          "an unusual packed table ends at the first entry without NEXT, which is reserved there",
        edits: [[
          "if (inTable ? index + 1 === this.#entries : (flags & VIRTQ_DESC_F_NEXT) === 0) break;",
          "if ((flags & VIRTQ_DESC_F_NEXT) === 0) break;",
        ]],
      },
      {
        name: "walker-list-not-wrapped",
        about: "an unusual packed list does not go on at the start of the ring",
        edits: [["index = index + 1 === this.#entries ? 0 : index + 1;", "index = index + 1;"]],
      },
      {
        name: "walker-write-ignored",
        about: "VIRTQ_DESC_F_WRITE of an unusual buffer is not looked at",
        edits: [["(flags & VIRTQ_DESC_F_WRITE) !== 0;", "flags < 0;"]],
      },
      {
        name: "walker-id-lost",
        about: "the buffer id of an unusual packed list is that of its first descriptor",
        edits: [["if (!inTable) chain.id = word & 0xffff;", ""]],
      },
      {
        name: "walker-table-id-lost",
        about: "the buffer id of an unusual packed table is lost",
        edits: [["if (packed) chain.id = word & 0xffff;", ""]],
      },
      {
        name: "walker-slots-lost",
        about: "an unusual packed list counts too few slots",
        edits: [["if (!inTable) slots++;", ""]],
      },
      {
        name: "walker-before-table-counted",
        about: "descriptors before a split table count as its entries",
        edits: [[
          `        before = descriptors;
`,
          "",
        ]],
      },
      {
        name: "table-address-high-half-ignored",
        about: "indirect tables above 4 GiB are looked for below",
        edits: [["const address = low + high * 0x1_0000_0000;", "const address = low;"]],
      },
      {
        name: "table-length-unchecked",
        about: "the length of an indirect table need not be a multiple of 16",
        edits: [["if (length === 0 || length % DESCRIPTOR_SIZE !== 0) {", "if (length === 0) {"]],
      },
      {
        name: "table-length-unchecked-in-place",
        about: "the length of an indirect table in the usual region need not be a multiple of 16",
        edits: [[" && (length & 15) === 0 &&", " &&"]],
      },
      {
        name: "table-length-signed",
        about: "an indirect table of more than 2 GiB is taken for one of negative length",
        edits: [["offset >= 0 && length > 0 && length <=", "offset >= 0 && length <="]],
        hangs: true,
      },
      {
        name: "table-misaligned-in-place",
        about: "an indirect table at an odd address is read from the word before",
        edits: [["(offset & 3) === 0 && length", "length"]],
      },
    ],
  },
  {
    file: "packages/vring/chain_pool.ts",
    mutants: [
      {
        name: "abandon-keeps-chains",
        about: "chains of a queue that was reset can still be used",
        edits: [["chain.owner = ChainOwner.dropped;", ""]],
      },
      {
        name: "abandon-leaves-buffers",
        about: "a chain that a reset dropped can still be written through",
        edits: [[
          `  chain.begin();
  chain.reader.begin();
  chain.writer.begin();
`,
          "",
        ]],
      },
      {
        name: "undo-not-last",
        about: "a chain can be put back though another was popped after it",
        edits: [[
          ` &&
      ((chain.sequence + 1) & SEQUENCES) === this.#popped;`,
          ";",
        ]],
      },
      {
        name: "undo-foreign",
        about: "a chain can be put back that was used already",
        edits: [["const last = chain.owner === DEVICE && chain.pool", "const last = chain.pool"]],
      },
      {
        name: "abandon-reuses-chains",
        about: "chains that a reset dropped are handed out again",
        edits: [["chains.length = this.#free;", "this.#free = chains.length;"]],
      },
      {
        name: "put-back-keeps-turn",
        about: "with IN_ORDER a chain that was put back is waited for",
        edits: [["if (this.ordered !== 0) this.#waiting--;", ""]],
      },
      {
        name: "pool-place-lost",
        about: "with several chains in flight a free one is handed out twice",
        edits: [["if (chain.index !== this.#free) this.#move(chain);", ""]],
      },
      {
        name: "in-order-gap",
        about: "with IN_ORDER chains are used though an earlier one is not done",
        edits: [["if (chain.owner !== ChainOwner.ordered) return null;", ""]],
      },
    ],
  },
  {
    file: "packages/vring/chain.ts",
    mutants: [
      {
        name: "reader-goes-on-into-writable",
        about: "the reader does not end where the device-readable bytes do",
        edits: [["this.reader.start(readable);", "this.reader.start(readable + writable);"]],
      },
      {
        name: "segment-region-forgotten",
        about: "a segment of another region is taken to lie in the usual one",
        edits: [["if (this.region !== region) this.mixed = 1;", ""]],
      },
    ],
  },
  {
    file: "packages/vring/cursor.ts",
    mutants: [
      {
        name: "writer-starts-at-readable",
        about: "the writer begins at the device-readable segments",
        edits: [["this.segment = readableCount;", "this.segment = readableCount * 0;"]],
      },
      {
        name: "used-length-without-status",
        about: "the used length leaves the status at the end out",
        edits: [[
          "return this.#tailWritten ? this.chain.writable : this.chain.writable - this.#tail;",
          "return this.chain.writable - this.#tail;",
        ]],
      },
      {
        name: "used-length-over-gap",
        about: "the used length counts the status though bytes before it were not written",
        edits: [[
          "if (this.left > 0) return this.chain.writable - this.#tail - this.left;",
          "if (this.left > 0) return this.chain.writable - this.left;",
        ]],
      },
      {
        name: "used-length-whole-buffer",
        about: "the used length counts everything that the device could have written",
        edits: [[
          "if (this.left > 0) return this.chain.writable - this.#tail - this.left;",
          "if (this.left > 0) return this.chain.writable;",
        ]],
      },
      {
        name: "status-at-segment-start",
        about: "the status goes to the first byte of the last segment instead of the last",
        edits: [[
          "this.#tailWithin = chain.lengths[segment]! - before;",
          "this.#tailWithin = before - before;",
        ]],
      },
      {
        name: "status-in-last-segment-only",
        about: "a status that is cut in two starts in the wrong segment",
        edits: [[
          "while (chain.lengths[segment]! < before) before -= chain.lengths[segment--]!;",
          "before = Math.min(before, chain.lengths[segment]!);",
        ]],
      },
      {
        name: "cut-structure-misread",
        about: "a structure that is cut into several descriptors is read as if it were not",
        edits: [[
          "if (length <= here && length <= this.left &&",
          "if (length <= this.left &&",
        ]],
      },
      {
        name: "piece-in-segment-forgotten",
        about: "a piece starts at its segment, not where the last one ended in it",
        edits: [[
          "this.offset = chain.offsets[this.segment]! + this.within;",
          "this.offset = chain.offsets[this.segment]!;",
        ]],
      },
    ],
  },
];

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
        edits: [["memory.lookup(address, layout.size)", "memory.lookup(address, 1)"]],
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
        name: "address-high-half-ignored",
        about: "buffers above 4 GiB are looked for below",
        edits: [["high === 0 ? low : low + high * 0x1_0000_0000", "low"]],
      },
      {
        name: "table-address-high-half-ignored",
        about: "indirect tables above 4 GiB are looked for below",
        edits: [["const address = low + high * 0x1_0000_0000;", "const address = low;"]],
      },
      {
        name: "table-length-unchecked",
        about: "the length of an indirect table need not be a multiple of 16",
        edits: [["if (length === 0 || length % 16 !== 0) {", "if (length === 0) {"]],
      },
      {
        name: "table-empty-accepted",
        about: "an indirect table may have no entries",
        edits: [["if (length === 0 || length % 16 !== 0) {", "if (length % 16 !== 0) {"]],
      },
      {
        name: "table-unbounded",
        about: "an indirect table may have any number of entries",
        edits: [["if (length / 16 > limit) {", "if (false) {"]],
      },
      {
        name: "readable-after-writable",
        about: "a device-readable descriptor may come after a device-writable one",
        edits: [["if (chain.count !== chain.readableCount) {", "if (false) {"]],
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
    file: "packages/vring/chain_pool.ts",
    mutants: [
      {
        name: "in-flight-off-by-one",
        about: "the driver may have one chain more in flight than the queue has entries",
        edits: [[
          "if (this.inFlight + unflushed >= this.#size) {",
          "if (this.inFlight + unflushed > this.#size) {",
        ]],
      },
      {
        name: "in-flight-unflushed-forgotten",
        about: "chains that are used but not published do not count as the device's",
        edits: [[
          "if (this.inFlight + unflushed >= this.#size) {",
          "if (this.inFlight >= this.#size) {",
        ]],
      },
      {
        name: "in-order-gap",
        about: "with IN_ORDER chains are used though an earlier one is not done",
        edits: [["if (chain.owner !== ChainOwner.ordered) return null;", ""]],
      },
      {
        name: "abandon-keeps-chains",
        about: "chains of a queue that was reset can still be used",
        edits: [[
          "if (chain.owner !== ChainOwner.pool) chain.owner = ChainOwner.dropped;",
          "",
        ]],
      },
      {
        name: "undo-not-last",
        about: "a chain can be put back though another was popped after it",
        edits: [["this.#after(chain.sequence) !== this.#popped", "false"]],
      },
      {
        name: "undo-counts-twice",
        about: "a chain that was put back still counts as in flight",
        edits: [[
          `    this.#popped = chain.sequence;
    this.inFlight--;`,
          "    this.#popped = chain.sequence;",
        ]],
      },
    ],
  },
  {
    file: "packages/vring/cursor.ts",
    mutants: [
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
        name: "writer-starts-at-readable",
        about: "the writer begins at the device-readable segments",
        edits: [["this.segment = this.chain.readableCount;", "this.segment = 0;"]],
      },
      {
        name: "reader-goes-on-into-writable",
        about: "the reader does not end where the device-readable bytes do",
        edits: [[
          "this.left = this.chain.readable;",
          "this.left = this.chain.readable + this.chain.writable;",
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

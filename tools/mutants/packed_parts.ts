import type { MutatedFile } from "./mutant.ts";

/** What `PackedQueue` is made of: what is available, what is used, and who wants to be told. */
export const PACKED_PARTS: readonly MutatedFile[] = [
  {
    file: "packages/vring/packed_scan.ts",
    mutants: [
      {
        name: "packed-scan-wrap-forgotten",
        about:
          "what is available is looked for with the old wrap counter after the end of the ring",
        edits: [["const wrapped = expected ^ BOTH;", "const wrapped = expected;"]],
      },
      {
        name: "packed-arm-without-recheck",
        about: "the device asks for kicks and does not look again",
        edits: [[
          "return (flags & BOTH) === (wrap === 1 ? AVAIL : USED);",
          "return flags < 0;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "packed-used-bit-ignored",
        about: "a descriptor counts as available whatever its USED bit is",
        edits: [[
          "if ((Atomics.load(u16, first) & BOTH) !== expected) return 0;",
          "if ((Atomics.load(u16, first) & AVAIL) !== (expected & AVAIL)) return 0;",
        ]],
      },
      {
        name: "packed-flags-plain-load",
        about: "the flags of the next descriptor are read without a barrier",
        edits: [[
          "if ((Atomics.load(u16, first) & BOTH) !== expected) return 0;",
          "if ((u16[first]! & BOTH) !== expected) return 0;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "packed-last-plain-load",
        about: "what was made available in a later batch is read without a barrier",
        edits: [[
          "if (seen > 1) Atomics.load(u16, last);",
          "if (seen > 1) last = 0;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
    ],
  },
  {
    file: "packages/vring/packed_events.ts",
    mutants: [
      {
        name: "packed-disable-ignored",
        about: "RING_EVENT_FLAGS_DISABLE is not looked at",
        edits: [["if (flags === RING_EVENT_FLAGS_DISABLE) return false;", ""]],
      },
      {
        name: "packed-desc-not-negotiated",
        about: "RING_EVENT_FLAGS_DESC is honoured though EVENT_IDX was not negotiated",
        edits: [[
          "if (flags !== RING_EVENT_FLAGS_DESC || !this.eventIdx) return true;",
          "if (flags !== RING_EVENT_FLAGS_DESC) return true;",
        ]],
      },
      {
        name: "packed-desc-ignored",
        about: "RING_EVENT_FLAGS_DESC interrupts always",
        edits: [[
          "if (flags !== RING_EVENT_FLAGS_DESC || !this.eventIdx) return true;",
          "if (flags !== RING_EVENT_FLAGS_DISABLE) return true;",
        ]],
      },
      {
        name: "packed-event-wrap-ignored",
        about: "the wrap bit of the event is not looked at",
        edits: [["if (((word >>> 15) & 1) !== wrap) event -= this.#size;", ""]],
      },
      {
        name: "packed-event-wrap-doubled",
        about: "an event of the other round is taken to be two rounds away",
        edits: [[
          "if (((word >>> 15) & 1) !== wrap) event -= this.#size;",
          "if (((word >>> 15) & 1) !== wrap) event -= 2 * this.#size;",
        ]],
      },
      {
        name: "packed-event-wrap-inverted",
        about: "an event of this round is taken to be of the other",
        edits: [[
          "if (((word >>> 15) & 1) !== wrap) event -= this.#size;",
          "if (((word >>> 15) & 1) === wrap) event -= this.#size;",
        ]],
      },
      {
        name: "packed-arm-wrap-missing",
        about: "the device asks for kicks without its wrap counter",
        edits: [["next | (wrap << 15) |", "next |"]],
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
          "this.#tell(RING_EVENT_FLAGS_ENABLE << 16);",
          "",
        ]],
      },
    ],
  },
  {
    file: "packages/vring/packed_used.ts",
    mutants: [
      {
        name: "packed-used-wrap-not-toggled",
        about: "the wrap counter for used descriptors never changes",
        edits: [[
          `      next = (next - this.#size) | 0;
      this.wrap ^= 1;`,
          "      next = (next - this.#size) | 0;",
        ]],
      },
      {
        name: "packed-added-never-reset",
        about: "slots that were published count again at the next flush",
        edits: [[
          "    this.#published = next;",
          "",
        ]],
      },
      {
        name: "packed-restored-wrap-forgotten",
        about: "a restored queue begins with used wrap counter 1",
        edits: [["this.wrap = position.usedWrap;", ""]],
      },
      {
        name: "packed-used-wrap-late",
        about: "the next used slot is one behind the ring after its last slot",
        edits: [[
          `    let next = (this.next + chain.slots) | 0;
    if (next >= this.#size) {`,
          `    let next = (this.next + chain.slots) | 0;
    if (next > this.#size) {`,
        ]],
      },
      {
        name: "packed-used-skips-one",
        about: "using a list of several descriptors moves on by one slot",
        edits: [[
          "let next = (this.next + chain.slots) | 0;",
          "let next = (this.next + 1) | 0;",
        ]],
      },
      {
        name: "packed-head-published-early",
        about: "the first used descriptor of a batch is visible before the others",
        edits: [[
          "this.#headWord = word;",
          `this.#headWord = word;
      words[(at + 3) | 0] = word;`,
        ]],
      },
      {
        name: "packed-flags-before-length",
        about: "a used descriptor is visible before its length",
        edits: [[
          "    words[(at + 2) | 0] = written;",
          `    Atomics.store(words, (at + 3) | 0, word);
    words[(at + 2) | 0] = written;`,
        ]],
      },
      {
        name: "packed-plain-store",
        about: "used descriptors are published without a barrier",
        edits: [[
          "Atomics.store(this.#region.i32, (this.#headAt + 3) | 0, this.#headWord);",
          "this.#region.i32[(this.#headAt + 3) | 0] = this.#headWord;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "packed-decision-before-publish",
        about: "whether to interrupt is decided before the used descriptors are published",
        edits: [[
          "    Atomics.store(this.#region.i32, (this.#headAt + 3) | 0, this.#headWord);",
          `    const told = events.wanted(next, this.wrap, slots);
    Atomics.store(this.#region.i32, (this.#headAt + 3) | 0, this.#headWord);`,
        ], [
          "return events.wanted(next, this.wrap, slots);",
          "return told;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "packed-added-counts-chains",
        about: "the event is compared with chains, not with slots",
        edits: [[
          `    this.added = 0;
    const next`,
          `    const { added } = this;
    this.added = 0;
    const next`,
        ], [
          "return events.wanted(next, this.wrap, slots);",
          "return events.wanted(next, this.wrap, added);",
        ]],
      },
      {
        name: "packed-length-without-write-flag",
        about: "a used descriptor has a length but not the flag that makes it count",
        edits: [[" | (written > 0 ? WRITE : 0);", " | (written < 0 ? WRITE : 0);"]],
      },
    ],
  },
];

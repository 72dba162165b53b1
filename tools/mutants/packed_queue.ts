import type { MutatedFile } from "./mutant.ts";

/** The device side of packed queues. */
export const PACKED_QUEUE: readonly MutatedFile[] = [
  {
    file: "packages/vring/packed_queue.ts",
    mutants: [
      {
        name: "packed-undo-wrap-not-toggled",
        about: "the wrap counter stays when a chain is put back over the end of the ring",
        edits: [[
          `      before += this.size;
      this.#availWrap ^= 1;`,
          "      before += this.size;",
        ]],
      },
      {
        name: "packed-id-lost",
        about: "the buffer id of a list is not taken over",
        edits: [[
          `      slots = count;
      chain.id = word & 0xffff;`,
          "      slots = count;",
        ]],
      },
      {
        name: "packed-table-id-lost",
        about: "the buffer id of an indirect descriptor is not taken over",
        edits: [[
          `        chain.id = word & 0xffff;
        words = region.i32;`,
          "        words = region.i32;",
        ]],
      },
      {
        name: "packed-list-before-available",
        about: "a list is used though its last descriptors are not available yet",
        edits: [[
          "if (slots > this.#seen || readable + writable > 0x7fff_ffff) this",
          "if (slots > this.size || readable + writable > 0x7fff_ffff) this",
        ]],
      },
      {
        name: "packed-list-before-available-unusual",
        about: "an unusual list is used though its last descriptors are not available yet",
        edits: [[
          `    if (chain.slots > this.#seen) this.#check(chain);
    this.#popped`,
          "    this.#popped",
        ]],
      },
      {
        name: "packed-list-stale",
        about: "a list that was not all available is not read again when it is",
        edits: [[
          `      chain.begin();
      this.#walker.enter`,
          `      if (slots > 0) return;
      chain.begin();
      this.#walker.enter`,
        ]],
      },
      {
        name: "packed-table-next-followed",
        about: "a table ends at the first entry without NEXT, which is reserved there",
        edits: [[
          `      if (inTable === 0) {
        // The last`,
          `      if (inTable !== 0 && (word & F_NEXT) === 0) break;
      if (inTable === 0) {
        // The last`,
        ]],
      },
      {
        name: "packed-total-unchecked",
        about: "a chain may describe more than 2^32 bytes",
        edits: [[
          "if (slots > this.#seen || readable + writable > 0x7fff_ffff) this",
          "if (slots > this.#seen) this",
        ]],
      },
      {
        name: "packed-region-end-unchecked",
        about: "a buffer may go on behind its region",
        edits: [["length > ((size - offset) | 0) ||", "length > size ||"]],
      },
      {
        name: "packed-readable-after-writable",
        about: "a device-readable descriptor may come after a device-writable one",
        edits: [["if (writable !== 0) this.#failed(chain, wrongOrder());", ""]],
      },
      {
        name: "packed-indirect-not-negotiated",
        about: "indirect tables are taken though INDIRECT_DESC was not negotiated",
        edits: [[" === F_INDIRECT && this.#indirect) {", " === F_INDIRECT) {"]],
      },
      {
        name: "packed-indirect-and-next",
        about: "an indirect descriptor may have NEXT too",
        edits: [[
          "if ((word & (F_INDIRECT | F_NEXT)) === F_INDIRECT && this",
          "if ((word & F_INDIRECT) !== 0 && this",
        ]],
      },
      {
        name: "packed-indirect-as-buffer",
        about: "an unusual indirect table is taken for a buffer",
        edits: [[
          `        (word & F_INDIRECT) !== 0 || count === capacity
      ) {`,
          `        count === capacity
      ) {`,
        ]],
      },
      {
        name: "packed-segments-beyond-room",
        about: "a chain of more segments than ever loses the last ones",
        edits: [[
          `(word & F_INDIRECT) !== 0 || count === capacity
      ) {`,
          `(word & F_INDIRECT) !== 0
      ) {`,
        ]],
      },
      {
        name: "packed-hand-over-counts-lost",
        about: "the long way does not know what the short one counted",
        edits: [[
          `          chain.readable = readable;
          chain.writable = writable;
`,
          "",
        ]],
      },
      {
        name: "packed-used-wrap-not-toggled",
        about: "the wrap counter for used descriptors never changes",
        edits: [[
          `      next = (next - this.size) | 0;
      this.#usedWrap ^= 1;`,
          "      next = (next - this.size) | 0;",
        ]],
      },
      {
        name: "packed-scan-wrap-forgotten",
        about:
          "what is available is looked for with the old wrap counter after the end of the ring",
        edits: [["const wrapped = expected ^ BOTH;", "const wrapped = expected;"]],
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
        name: "packed-added-never-reset",
        about: "slots that were published count again at the next flush",
        edits: [[
          "    this.#published = next;",
          "",
        ]],
      },
      {
        name: "packed-arm-without-recheck",
        about: "the device asks for kicks and does not look again",
        edits: [[
          "return (flags & BOTH) === (this.#availWrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED);",
          "return flags < 0;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
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
        name: "packed-restored-wrap-forgotten",
        about: "a restored queue begins with used wrap counter 1",
        edits: [["this.#usedWrap = config.position.usedWrap;", ""]],
      },
      {
        name: "packed-avail-wrap-not-toggled",
        about: "the wrap counter for available descriptors never changes",
        edits: [[
          `      next = (next - this.size) | 0;
      this.#availWrap ^= 1;`,
          "      next = (next - this.size) | 0;",
        ]],
      },
      {
        name: "packed-undo-counts",
        about: "a chain that was put back still counts as in flight",
        edits: [[
          `    this.#owed--;
`,
          "",
        ]],
      },
      {
        name: "packed-used-wrap-late",
        about: "the next used slot is one behind the ring after its last slot",
        edits: [[
          `    let next = (this.#nextUsed + slots) | 0;
    if (next >= this.size) {`,
          `    let next = (this.#nextUsed + slots) | 0;
    if (next > this.size) {`,
        ]],
      },
      {
        name: "packed-used-skips-one",
        about: "using a list of several descriptors moves on by one slot",
        edits: [[
          "let next = (this.#nextUsed + slots) | 0;",
          "let next = (this.#nextUsed + 1) | 0;",
        ]],
      },
      {
        name: "packed-pop-skips-one",
        about: "popping a list of several descriptors moves on by one slot",
        edits: [[
          "let next = (this.#nextAvail + slots) | 0;",
          "let next = (this.#nextAvail + 1) | 0;",
        ]],
      },
      {
        name: "packed-used-bit-ignored",
        about: "a descriptor counts as available whatever its USED bit is",
        edits: [[
          "if ((Atomics.load(u16, first) & BOTH) !== expected) return false;",
          "if ((Atomics.load(u16, first) & AVAIL) !== (expected & AVAIL)) return false;",
        ]],
      },
      {
        name: "packed-flags-plain-load",
        about: "the flags of the next descriptor are read without a barrier",
        edits: [[
          "if ((Atomics.load(u16, first) & BOTH) !== expected) return false;",
          "if ((u16[first]! & BOTH) !== expected) return false;",
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
          "Atomics.store(this.#ringRegion.i32, (this.#headAt + 3) | 0, this.#headWord);",
          "this.#ringRegion.i32[(this.#headAt + 3) | 0] = this.#headWord;",
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "packed-decision-before-publish",
        about: "whether to interrupt is decided before the used descriptors are published",
        edits: [[
          `    const word = Atomics.load(this.#driverRegion.i32, this.#driverEvent);
    const flags`,
          "    const flags",
        ], [
          "    Atomics.store(this.#ringRegion.i32, (this.#headAt + 3) | 0, this.#headWord);",
          `    const word = Atomics.load(this.#driverRegion.i32, this.#driverEvent);
    Atomics.store(this.#ringRegion.i32, (this.#headAt + 3) | 0, this.#headWord);`,
        ]],
        first: ["tests/interleaving/notification_test.ts"],
      },
      {
        name: "packed-added-counts-chains",
        about: "the event is compared with chains, not with slots",
        edits: [[
          "return needEvent(event, next, slots);",
          "return needEvent(event, next, added);",
        ]],
      },
      {
        name: "packed-in-flight-off-by-one",
        about: "the driver may have one chain more in flight than the queue has entries",
        edits: [[
          "if (this.#owed >= this.size) throw",
          "if (this.#owed > this.size) throw",
        ]],
      },
      {
        name: "packed-in-flight-unflushed-forgotten",
        about: "chains that are used but not published do not count as the device's",
        edits: [[
          "if (this.#owed >= this.size) throw",
          "if (this.#owed - this.#added >= this.size) throw",
        ]],
      },
      {
        name: "packed-list-not-wrapped",
        about: "a list does not go on at the start of the ring",
        edits: [["if (index === entries) index = 0;", ""]],
      },
      {
        name: "packed-length-without-write-flag",
        about: "a used descriptor has a length but not the flag that makes it count",
        edits: [[" | (written > 0 ? WRITE : 0);", " | (written < 0 ? WRITE : 0);"]],
      },
      {
        name: "packed-error-forgotten",
        about: "a queue goes on after an error of the driver",
        edits: [["this.#broken = error;", ""]],
      },
      {
        name: "packed-in-order-ignored",
        about: "chains are used as they are done though IN_ORDER was negotiated",
        edits: [["(features & VIRTIO_F_IN_ORDER) !== 0n,", "false,"]],
      },
      {
        name: "packed-address-high-half-ignored",
        about: "buffers above 4 GiB are looked for below",
        edits: [["high !== baseHigh || offset < 0 ||", "offset < 0 ||"]],
      },
      {
        name: "packed-length-signed",
        about: "a buffer of more than 2 GiB is taken for one of negative length",
        edits: [["offset < 0 || length <= 0 ||", "offset < 0 ||"]],
      },
      {
        name: "packed-segment-region-forgotten",
        about: "a segment of another region is taken to lie in the usual one",
        edits: [["mixed = chain.mixed = 1;", ""]],
      },
      {
        name: "packed-write-ignored",
        about: "VIRTQ_DESC_F_WRITE is not looked at",
        edits: [["if ((word & F_WRITE) !== 0) {", "if ((word & 0) !== 0) {"]],
      },
      {
        name: "packed-next-read-twice",
        about: "the flags of a descriptor are read again after they were used",
        edits: [[
          "if ((word & F_NEXT) === 0) break;",
          "if ((words[(at + 3) | 0]! & F_NEXT) === 0) break;",
        ]],
      },
      {
        name: "packed-length-read-twice",
        about: "the length of a buffer is read again after it was checked",
        edits: [["lengths[count] = length;", "lengths[count] = words[(at + 2) | 0]!;"]],
      },
    ],
  },
];

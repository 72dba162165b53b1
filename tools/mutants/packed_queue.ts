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
        name: "packed-used-length-too-long",
        about: "the used length is all that the device could have written",
        edits: [["written: number = chain.written", "written: number = chain.writable"]],
      },
      {
        name: "packed-used-length-unchecked",
        about: "a device may say that it wrote more than there is room for",
        edits: [[
          "!(written >= 0 && written <= chain.writable)",
          "!(written >= 0)",
        ]],
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
        name: "packed-pop-skips-one",
        about: "popping a list of several descriptors moves on by one slot",
        edits: [[
          "let next = (this.#nextAvail + slots) | 0;",
          "let next = (this.#nextAvail + 1) | 0;",
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
          "if (this.#owed - this.#used.added >= this.size) throw",
        ]],
      },
      {
        name: "packed-list-not-wrapped",
        about: "a list does not go on at the start of the ring",
        edits: [["if (index === entries) index = 0;", ""]],
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

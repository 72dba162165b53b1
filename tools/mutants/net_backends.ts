import type { MutatedFile } from "./mutant.ts";

/** Back ends of the network device: switch, stream, tap, capture. */
export const NET_BACKENDS: readonly MutatedFile[] = [
  {
    file: "packages/net/backends/mac_table.ts",
    mutants: [
      {
        name: "switch-table-gap-not-closed",
        about: "removing a station hides those that stand behind it",
        edits: [[
          "if (((next - home) & mask) < ((next - gap) & mask)) continue;",
          "if (home >= 0) continue;",
        ]],
      },
      {
        name: "switch-table-vlan-cut",
        about: "VLANs that differ in their highest bits share stations",
        edits: [[
          "const slot = this.#slotOf(high | vlan << 24, low | vlan >>> 8 << 24);",
          "const slot = this.#slotOf(high | vlan << 24, low);",
        ], [
          "    const b = low | vlan >>> 8 << 24;\n    let slot",
          "    const b = low;\n    let slot",
        ]],
      },
      {
        name: "switch-table-per-port-unbounded",
        about: "one port takes the whole table",
        edits: [[
          "if (this.#counts[port]! >= limit) return Learned.refused;",
          "if (this.#counts[port]! < 0) return Learned.refused;",
        ]],
      },
      {
        name: "switch-table-unbounded",
        about: "the table takes more stations than it may",
        edits: [[
          "      if (this.#size >= this.capacity) return Learned.refused;",
          "      if (this.#size >= 1.5 * this.capacity) return Learned.refused;",
        ]],
      },
      {
        name: "switch-table-never-old",
        about: "a station that was not heard for long is still found",
        edits: [[
          "return port !== EMPTY && now - this.#heard[slot]! > this.#age ? -1 : port;",
          "return port;",
        ]],
      },
      {
        name: "switch-table-not-refreshed",
        about: "a station is forgotten although it is heard",
        edits: [[
          "      this.#heard[slot] = now;\n      return Learned.known;",
          "      return Learned.known;",
        ]],
      },
      {
        name: "switch-table-walked-each-time",
        about: "each station that a full table does not take costs a walk through it",
        edits: [["if (now - this.#searched < this.#age / 16) return;", "if (now < 0) return;"]],
      },
    ],
  },
  {
    file: "packages/net/backends/switch.ts",
    mutants: [
      {
        name: "switch-sends-back",
        about: "a frame leaves by the port by which it came",
        edits: [["return from !== to && !(", "return !("]],
      },
      {
        name: "switch-isolated-reach-each-other",
        about: "isolated ports reach each other",
        edits: [["!(from.isolated && to.isolated) && ", ""]],
      },
      {
        name: "switch-vlan-not-checked-out",
        about: "a frame leaves by a port that its VLAN does not pass",
        edits: [[
          "!(from.isolated && to.isolated) && to.vlans.has(vlan)",
          "!(from.isolated && to.isolated)",
        ]],
      },
      {
        name: "switch-flood-unlimited",
        about: "frames to several ports are not limited",
        edits: [["if (!from.bucket.take(now)) return Drop.flood;", "from.bucket.take(now);"]],
      },
      {
        name: "switch-group-source-learned",
        about: "a group's address as a sender is learned",
        edits: [["if ((high & 0x01_0000) !== 0 || (high | low) === 0) return Drop.source;", ""]],
      },
      {
        name: "switch-reserved-passed-on",
        about: "addresses of bridges' own protocols are passed on",
        edits: [[
          "if (toHigh === 0x01_80c2 && (toLow & 0xff_fff0) === 0) return Drop.reserved;",
          "",
        ]],
      },
      {
        name: "switch-lock-of-others-ignored",
        about: "a port sends with an address that is locked to another",
        edits: [[
          "return this.#locks.size === 0 || this.#locks.find(high, low, 0, 0) < 0;",
          "return true;",
        ]],
      },
      {
        name: "switch-own-lock-ignored",
        about: "a locked port sends with any address",
        edits: [["if (lock !== null) return lock.high === high && lock.low === low;", ""]],
      },
      {
        name: "switch-not-held",
        about: "a frame for several is not fetched from the sender's memory",
        edits: [["if (count > 1) frame.hold();", ""]],
      },
      {
        name: "switch-inner-tag-surfaces",
        about: "a tag under a tag becomes the tag",
        edits: [["      if (hasInnerTag(frame)) {", "      if (hasInnerTag(frame) && vlan < 0) {"]],
      },
      {
        name: "switch-tag-stays",
        about: "the tag that was inserted for one receiver stays for the next",
        edits: [[
          "        this.#give(frame, to);\n        removeTag(frame);",
          "        this.#give(frame, to);",
        ]],
      },
      {
        name: "switch-successor-inherits",
        about: "what a closed port sent counts as its successor's",
        edits: [["(this.#lives[index]! + 1) % LIVES", "this.#lives[index]! % LIVES"]],
      },
      {
        name: "switch-mtu-counts-ethernet",
        about: "the largest packet counts the Ethernet header",
        edits: [["return frame.length - header;", "return frame.length;"]],
      },
      {
        name: "switch-error-stops-others",
        about: "a receiver that throws costs others their frames",
        edits: [["else this.#thrown ??= { error };", "else throw error;"]],
      },
    ],
  },
  {
    file: "packages/net/backends/port_vlans.ts",
    mutants: [
      {
        name: "switch-access-port-takes-tags",
        about: "a frame with a tag enters by an access port",
        edits: [["return this.tagged && vlan", "return vlan"]],
      },
    ],
  },
  {
    file: "packages/net/backends/vlan_tag.ts",
    mutants: [
      {
        name: "switch-tag-without-header",
        about: "a tag moves the checksum, and the net header does not follow",
        edits: [["if (frame.csumStart !== 0) frame.csumStart += by;", ""]],
      },
    ],
  },
  {
    file: "packages/net/backends/turn.ts",
    mutants: [
      {
        name: "turn-recursion",
        about: "an answer is handled in the middle of what it answers",
        edits: [[
          "if (this.#busy || this.#timer !== null) return",
          "if (this.#timer !== null) return",
        ]],
      },
      {
        name: "turn-without-end",
        about: "a conversation without end never gives the event loop its turn",
        edits: [[
          "for (let left = BUDGET; left > 0; left--) {",
          "for (let left = BUDGET; left > 0;) {",
        ]],
        hangs: true,
      },
      {
        name: "turn-numbers-mixed",
        about: "who waits is taken for somebody else",
        edits: [[
          "this.#numbers[(this.#first + count) % FRAMES]",
          "this.#numbers[this.#first % FRAMES]",
        ]],
      },
    ],
  },
  {
    file: "packages/net/backends/stream_framing.ts",
    mutants: [
      {
        name: "stream-any-length",
        about: "a length that no frame has is believed",
        edits: [[
          "if (this.#length > MAX_FRAME_SIZE) return",
          "if (this.#length > 2 ** 40) return",
        ]],
      },
      {
        name: "stream-short-delivered",
        about: "frames without an Ethernet header are delivered",
        edits: [["if (length < ETHERNET_HEADER_SIZE) {", "if (length < 0) {"]],
      },
      {
        name: "stream-cut-length",
        about: "a length that arrives in two parts is misread",
        edits: [[
          "this.#length = this.#length * 256 +",
          "this.#length = (at === 0 ? 0 : this.#length) * 256 +",
        ]],
      },
    ],
  },
  {
    file: "packages/net/backends/stream_link.ts",
    mutants: [
      {
        name: "stream-write-each",
        about: "each frame of a turn is a write of its own",
        edits: [["queueMicrotask(this.#flush);", "this.#flush();"]],
      },
      {
        name: "stream-partial-write",
        about: "what a write did not take is lost",
        edits: [[
          "for (let done = 0; done < bytes.length;) {",
          "for (let done = 0; done === 0;) {",
        ]],
      },
      {
        name: "stream-cut-off-unseen",
        about: "a stream that ends within a frame ends well",
        edits: [["if (!splitter.complete) {", "if (count !== null) {"]],
      },
    ],
  },
  {
    file: "packages/net/backends/stream_backend.ts",
    mutants: [
      {
        name: "stream-tries-after-close",
        about: "a client that was closed goes on connecting",
        edits: [["if (this.#closed) return null;\n      if (next", "if (next"]],
        hangs: true,
      },
    ],
  },
  {
    file: "packages/net/backends/tap_header.ts",
    mutants: [
      {
        name: "tap-header-fields-swapped",
        about: "where the checksum starts and where it goes are swapped",
        edits: [[
          "view.setUint16(NetHeaderOffset.csum_start, frame.csumStart, true);",
          "view.setUint16(NetHeaderOffset.csum_start, frame.csumOffset, true);",
        ]],
      },
    ],
  },
  {
    file: "packages/net/backends/pcapng_writer.ts",
    mutants: [
      {
        name: "capture-unpadded",
        about: "a frame whose length is no multiple of four spoils what follows",
        edits: [["    this.#at += kept;\n    this.#pad();", "    this.#at += kept;"]],
      },
      {
        name: "capture-directions-swapped",
        about: "what the driver sends is inbound",
        edits: [[
          'direction === "sent" ? OUTBOUND : INBOUND',
          'direction === "sent" ? INBOUND : OUTBOUND',
        ]],
      },
    ],
  },
];

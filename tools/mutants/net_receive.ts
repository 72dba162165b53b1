import type { MutatedFile } from "./mutant.ts";

/** Frames on their way to the driver, and how often it is told. */
export const NET_RECEIVE: readonly MutatedFile[] = [
  {
    file: "packages/net/frame.ts",
    mutants: [
      {
        name: "net-frame-held-shifted",
        about: "the rest of a frame in one place is fetched from where its head is",
        edits: [["this.#offset + headLength, this.#bytes", "this.#offset, this.#bytes"]],
      },
      {
        name: "net-frame-read-twice",
        about: "what lies in the sender's memory is read a second time",
        edits: [[
          " && (this.#reader !== null || this.#region !== null)",
          " && this.#reader !== null",
        ]],
      },
    ],
  },
  {
    file: "packages/net/receive.ts",
    mutants: [
      {
        name: "net-receive-one-short",
        about: "a buffer that lacks a byte is taken for one with room for all",
        edits: [["first.lengths[at]! < need", "first.lengths[at]! + 1 < need"]],
      },
      {
        name: "net-receive-no-merge-cut",
        about: "without MRG_RXBUF a frame goes over into the next buffer",
        edits: [["if (!this.#mergeable) {", "if (room < 0) {"]],
      },
      {
        name: "net-receive-merge-always",
        about: "buffers are never merged",
        edits: [[
          "this.#mergeable = hasFeature(features, VIRTIO_NET_F_MRG_RXBUF);",
          "this.#mergeable = false;",
        ]],
      },
      {
        name: "net-receive-kept-buffers",
        about: "the buffers that were too few for a frame are not given back",
        edits: [[
          "        this.#giveBack(buffers, taken);\n        // No driver",
          "        // No driver",
        ]],
      },
      {
        name: "net-receive-back-in-order",
        about: "buffers are given back in the order in which they were taken",
        edits: [[
          "for (let i = count - 1; i >= 0; i--) buffers.untake",
          "for (let i = 0; i < count; i++) buffers.untake",
        ]],
      },
      {
        name: "net-receive-tiny-buffer",
        about: "a buffer without room for a header is used",
        edits: [[
          "if (chain.writable < this.#headerSize) return",
          "if (chain.writable < 1) return",
        ]],
      },
      {
        name: "net-receive-num-buffers",
        about: "num_buffers is always 1",
        edits: [["frame.csumOffset | count << 16", "frame.csumOffset | 1 << 16"]],
      },
      {
        name: "net-receive-flags-unasked",
        about: "a driver without GUEST_CSUM is told of checksums",
        edits: [[
          "return (offloads & CSUM) === 0 ? 0",
          "return offloads < 0 ? 0",
        ]],
      },
      {
        name: "net-receive-unknown-flags",
        about: "no flag is told",
        edits: [[
          "const TOLD = VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID;",
          "const TOLD = VIRTIO_NET_HDR_F_NEEDS_CSUM;",
        ]],
      },
      {
        name: "net-receive-no-hash",
        about: "the hash is not written",
        edits: [["view.setUint32(at + HASH_VALUE, this.hashValue, true);", ""]],
      },
      {
        name: "net-receive-header-cut",
        about: "a header across descriptors is written into the first one only",
        edits: [["writer.writeFrom(this.#header, length, this.#headerSize - length);", ""]],
      },
      {
        name: "net-receive-never-never",
        about: "a frame that all buffers of a full queue cannot hold waits",
        edits: [[
          "return slots < queue.size ? Placed.short : Placed.never;",
          "return Placed.short;",
        ]],
      },
      {
        name: "net-receive-once",
        about: "a frame can be given to one device only",
        edits: [["    frame.rewind();\n", ""]],
      },
    ],
  },
  {
    file: "packages/net/inbound.ts",
    mutants: [
      {
        name: "net-inbound-overtakes",
        about: "a frame overtakes those that wait",
        edits: [[
          "if (receiver.waiting.count !== 0 || !this.#place(frame, receiver))",
          "if (!this.#place(frame, receiver))",
        ]],
      },
      {
        name: "net-inbound-after-reset",
        about: "a frame waits for a driver that is gone",
        edits: [["      if (!this.#live) return;\n", ""]],
      },
      {
        name: "net-inbound-blocked",
        about: "a frame that is too long for the buffers holds up the others for ever",
        edits: [[
          "waiting.count === 0 || receiver.outcome !== Placed.short) return;",
          "waiting.count >= 0) return;",
        ]],
      },
      {
        name: "net-inbound-looks-always",
        about: "every frame has all buffers looked at, though they are too few",
        edits: [[
          "if (waiting.count > 0 && receiver.outcome !== Placed.short) this.#drain(receiver);",
          "if (waiting.count > 0) this.#drain(receiver);",
        ]],
      },
      {
        name: "net-inbound-unfinished",
        about: "a frame that waited is given as it is though the driver takes it no more",
        edits: [["if ((frame.needs & ~this.offloads) === 0) {", "if (frame.length > 0) {"]],
      },
      {
        name: "net-inbound-mtu",
        about: "a frame that is longer than the negotiated MTU is passed on",
        edits: [[
          "this.#mtu = hasFeature(features, VIRTIO_NET_F_MTU) ? mtu : 0;",
          "this.#mtu = 0;",
        ]],
      },
      {
        name: "net-inbound-kept",
        about: "what waits survives a reset",
        edits: [[
          "    }\n    this.abandon(0);",
          "    }",
        ]],
      },
      {
        name: "net-inbound-old-hash",
        about: "a frame that waited is reported with another one's hash",
        edits: [["      this.#steering.pairOf(frame);\n", ""]],
      },
    ],
  },
  {
    file: "packages/net/waiting.ts",
    mutants: [
      {
        name: "net-waiting-wrap",
        about: "a frame across the end of the ring is cut there",
        edits: [["if (first < length) ring.copyFrom(0, from, first, length - first);", ""]],
      },
      {
        name: "net-waiting-bytes",
        about: "waiting frames may take more bytes than there are",
        edits: [[" || this.bytes + size > this.#maxBytes) return false;", ") return false;"]],
      },
      {
        name: "net-waiting-frames",
        about: "one frame more may wait",
        edits: [["if (this.count >= this.#maxFrames", "if (this.count > this.#maxFrames"]],
      },
    ],
  },
  {
    file: "packages/net/moderation.ts",
    mutants: [
      {
        name: "net-moderation-none",
        about: "notifications are not held back",
        edits: [[
          "if (this.#isCoalesced(queue) && this.#packets[queue] !== 0) {",
          "if (queue < 0) {",
        ]],
      },
      {
        name: "net-moderation-lost",
        about: "what was held back when a queue stops is never said",
        edits: [[
          "this.#coalescing.forget(queue);\n    this.notify(queue);",
          "this.#coalescing.forget(queue);",
        ]],
      },
    ],
  },
];

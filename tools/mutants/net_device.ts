import type { MutatedFile } from "./mutant.ts";

/** The network device: from a frame in a ring to the cable, and back. */
export const NET_DEVICE: readonly MutatedFile[] = [
  {
    file: "packages/net/transmit.ts",
    mutants: [
      {
        name: "net-transmit-header-always-12",
        about: "headers with a hash are taken for shorter ones (CVE-2023-6693)",
        edits: [["hashed ? NET_HEADER_HASH_SIZE : NET_HEADER_SIZE;", "NET_HEADER_SIZE;"]],
      },
      {
        name: "net-transmit-short-accepted",
        about: "a frame without a header is not an error of the driver",
        edits: [["if (chain.readable < headerSize) throw", "if (chain.readable < 1) throw"]],
      },
      {
        name: "net-transmit-unchecked",
        about: "what a header says is not checked against the frame",
        edits: [[
          "return reason === null || this.#malformed(stats, reason);",
          "return reason !== undefined;",
        ]],
      },
      {
        name: "net-transmit-checksum-unseen",
        about: "a header that only asks for a checksum counts as one that asks for nothing",
        edits: [["const MEANT = VIRTIO_NET_HDR_F_NEEDS_CSUM | ", "const MEANT = "]],
      },
      {
        name: "net-transmit-tunnel-unseen",
        about: "a tunnel's checksum is taken for a flag that means nothing",
        edits: [[" | VIRTIO_NET_HDR_F_UDP_TUNNEL_CSUM |\n", " |\n"]],
      },
      {
        name: "net-transmit-no-frame",
        about: "what is too short for an Ethernet header is sent",
        edits: [["length < SHORTEST || length", "length"]],
      },
      {
        name: "net-transmit-too-long",
        about: "a frame that is longer than any is tried to be sent",
        edits: [[" || length > LONGEST) {", ") {"]],
      },
      {
        name: "net-transmit-mtu-for-gso",
        about: "a frame that is to be segmented is dropped because it is longer than the MTU",
        edits: [["if (frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) return true;", ""]],
      },
      {
        name: "net-transmit-mtu-not-negotiated",
        about: "the MTU binds a driver that does not know it",
        edits: [["hasFeature(features, VIRTIO_NET_F_MTU) ? mtu : 0;", "mtu;"]],
      },
    ],
  },
  {
    file: "packages/net/ethernet.ts",
    mutants: [
      {
        name: "net-ethernet-one-tag",
        about: "the MTU counts the second tag",
        edits: [["tags < 2 &&", "tags < 1 &&"]],
      },
    ],
  },
  {
    file: "packages/net/receive.ts",
    mutants: [
      {
        name: "net-receive-one-short",
        about: "a buffer that lacks a byte is taken for one with room for all",
        edits: [["if (writer.length !== need) return", "if (writer.length + 1 < need) return"]],
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
    file: "packages/net/pass.ts",
    mutants: [
      {
        name: "net-pass-unfinished",
        about: "a sink gets what it does not take",
        edits: [[
          "if ((frame.needs & ~sink.offloads) === 0) {\n    sink.deliver(frame);\n    return true;",
          "if (frame.length > 0) {\n    sink.deliver(frame);\n    return true;",
        ]],
      },
      {
        name: "net-pass-believes",
        about: "a back end's header is believed before arithmetic is done with it",
        edits: [[
          "if (checkHeader(frame, layout, Offload.all, true) !== null) return false;",
          "",
        ]],
        hangs: true,
      },
      {
        name: "net-pass-shared-work",
        about: "a sink that passes frames on disturbs the one that gives them to it",
        edits: [["  depth++;\n", ""], ["    depth--;\n", ""]],
      },
      {
        name: "net-pass-udp-zero",
        about: "a completed checksum of UDP may be 0",
        edits: [["udp ? finishUdp(sum) : finish(sum)", "finish(sum)"]],
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
  {
    file: "packages/net/settings.ts",
    mutants: [
      {
        name: "net-settings-announce-without-status",
        about: "GUEST_ANNOUNCE is offered without STATUS",
        edits: [["  [VIRTIO_NET_F_GUEST_ANNOUNCE, VIRTIO_NET_F_STATUS],\n", ""]],
      },
      {
        name: "net-settings-ecn-alone",
        about: "a driver may accept HOST_ECN without segmentation",
        edits: [[
          "return !hasFeature(features, VIRTIO_NET_F_HOST_ECN) || (features & HOST_TSO) !== 0n;",
          "return true;",
        ]],
      },
      {
        name: "net-settings-group-mac",
        about: "a random address may be one of a group",
        edits: [["(mac[0]! & 0xfc) | 2;", "(mac[0]! & 0xfd) | 2;"]],
      },
      {
        name: "net-settings-mtu-of-backend",
        about: "an MTU is offered that the back end cannot carry",
        edits: [["if (mtu > most) {", "if (mtu > most && most === 0) {"]],
      },
    ],
  },
  {
    file: "packages/net/device.ts",
    mutants: [
      {
        name: "net-device-unfiltered",
        about: "frames that the driver does not want reach it",
        edits: [["if (!control.filter.accepts(frame)) {", "if (frame.length === 0) {"]],
      },
      {
        name: "net-device-link-ignored",
        about: "frames are received while the link is down",
        edits: [[
          "if (this.activation === null || !this.linkUp) {",
          "if (this.activation === null) {",
        ]],
      },
      {
        name: "net-device-link-ignored-sending",
        about: "frames are sent while the link is down",
        edits: [[
          "    if (!this.linkUp) {\n      stats.linkDown++;",
          "    if (stats.frames < 0) {\n      stats.linkDown++;",
        ]],
      },
      {
        name: "net-device-control-queue-fixed",
        about: "the control queue is behind the last pair, negotiated or not",
        edits: [[
          "hasFeature(features, VIRTIO_NET_F_CTRL_VQ) ? 2 * this.#pairs : -1;",
          "hasFeature(features, VIRTIO_NET_F_CTRL_VQ) ? 2 * this.#settings.pairs : -1;",
        ]],
      },
      {
        name: "net-device-queue-not-negotiated",
        about: "queues of pairs that were not negotiated are served",
        edits: [[
          "this.#pairs = many ? this.#settings.pairs : 1;",
          "this.#pairs = this.#settings.pairs;",
        ]],
      },
      {
        name: "net-device-offloads-stale",
        about: "a change of offloads takes effect at the next reset",
        edits: [[
          "    control.handle(chain);\n    this.#inbound.offloads = control.offloads;",
          "    control.handle(chain);",
        ]],
      },
      {
        name: "net-device-pairs-kept",
        about: "what waits for a pair that was given up stays",
        edits: [["    this.#inbound.abandon(control.steering.receivePairs);\n", ""]],
      },
      {
        name: "net-device-mac-kept",
        about: "an address that the driver set survives a reset",
        edits: [["    this.#mac.set(this.#settings.mac);\n", ""]],
      },
      {
        name: "net-device-mac-shown",
        about: "an address is shown though VIRTIO_NET_F_MAC was not negotiated",
        edits: [["if (hasFeature(features, VIRTIO_NET_F_MAC)) {", "if (features >= 0n) {"]],
      },
      {
        name: "net-device-announce-unasked",
        about: "a driver is asked to announce itself that does not know how",
        edits: [[" || !hasFeature(activation.features, VIRTIO_NET_F_GUEST_ANNOUNCE)) {", ") {"]],
      },
      {
        name: "net-device-suspended-drops",
        about: "frames are dropped while the device is suspended",
        edits: [[
          "return this.#inbound.isStarted(pair) || this.#started === 0;",
          "return this.#inbound.isStarted(pair);",
        ]],
      },
      {
        name: "net-device-no-steering",
        about: "answers do not come on the pair of the question",
        edits: [["    this.#control.steering.sentOn(frame, pair);\n", ""]],
      },
      {
        name: "net-device-coalescing-after-suspend",
        about: "a suspend counts as a reset of every queue",
        edits: [["if (this.#started === 0) this.#reset.fill(0);\n    else if", "if"]],
      },
    ],
  },
];

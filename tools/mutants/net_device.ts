import type { MutatedFile } from "./mutant.ts";

/** The network device: its options, frames on their way to the cable, and what both directions share. */
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

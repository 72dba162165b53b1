import type { MutatedFile } from "./mutant.ts";

/** Offloads of the network device in software: what is believed of a frame, checksums, segments, hashes. */
export const NET_OFFLOAD: readonly MutatedFile[] = [
  {
    file: "packages/net/offload/parse.ts",
    mutants: [
      {
        name: "net-parse-tag-unchecked",
        about: "a tag at the end of the frame is read beyond it",
        edits: [["if (at + TAG_SIZE + 2 > available) return this;", ""]],
      },
      {
        name: "net-parse-ipv4-short-header",
        about: "an IPv4 header shorter than 20 bytes is one",
        edits: [["|| headerSize < IPV4_SIZE ||", "||"]],
      },
      {
        name: "net-parse-later-fragment",
        about: "the data of a later fragment are taken for a transport header",
        edits: [["if ((flags & 0x1fff) === 0) this.#transport", "this.#transport"]],
      },
      {
        name: "net-parse-extension-unchecked",
        about: "an extension header may be longer than the packet",
        edits: [["if (at + size > limit) return;\n      if (protocol", "if (protocol"]],
      },
      {
        name: "net-parse-tcp-offset-unchecked",
        about: "a TCP header may be shorter than 20 bytes",
        edits: [["if (size < TCP_SIZE) return;", ""]],
      },
      {
        name: "net-parse-transport-behind-packet",
        about: "a transport header may lie in the padding behind the packet",
        edits: [[
          "const limit = available < this.end ? available : this.end;",
          "const limit = available;",
        ]],
      },
      {
        name: "net-parse-fragment-place",
        about: "a fragment header goes behind destination options that are not for every node",
        edits: [["if (protocol !== IPPROTO_DSTOPTS && !this.fragment) {", "if (!this.fragment) {"]],
      },
      {
        name: "net-parse-leftover",
        about: "a packet is on a detour because the last one was",
        edits: [["    this.routed = false;\n", ""]],
      },
    ],
  },
  {
    file: "packages/net/offload/checksum.ts",
    mutants: [
      {
        name: "net-checksum-overflow",
        about: "the sums of large frames overflow",
        edits: [[
          "const stop = to - at > 0x1_0000 ? at + 0x1_0000 :",
          "const stop = to - at > 0x100_0000 ? at + 0x100_0000 :",
        ]],
      },
      {
        name: "net-checksum-odd-byte",
        about: "a last odd byte is not summed",
        edits: [["if (at < to) rest += view.getUint8(at);", ""]],
      },
      {
        name: "net-checksum-udp-zero",
        about: "a UDP checksum of 0 is written, which says that there is none",
        edits: [["return checksum === 0 ? 0xffff : checksum;", "return checksum;"]],
      },
      {
        name: "net-checksum-behind-end",
        about: "a checksum is written behind the end of the frame",
        edits: [["csumOffset >= 0 && at + 2 <= length", "csumOffset >= 0 && at <= length"]],
      },
      {
        name: "net-checksum-fragment-valid",
        about: "the checksum of a first fragment is taken for its own",
        edits: [["transport < 0 || layout.fragment ||", "transport < 0 ||"]],
      },
      {
        name: "net-checksum-udp-none-valid",
        about: "no UDP checksum is a right one",
        edits: [[" || view.getUint16(at + 6) === 0) return false;", ") return false;"]],
      },
      {
        name: "net-checksum-ip-ignored",
        about: "a wrong IPv4 header checksum does not count",
        edits: [["if (sumBytes(view, network, at) !== 0xffff) return false;", "void network;"]],
      },
    ],
  },
  {
    file: "packages/net/offload/header.ts",
    mutants: [
      {
        name: "net-header-csum-place",
        about: "the last byte of a checksum may lie behind the frame",
        edits: [[
          "csumStart + csumOffset + 2 > layout.length",
          "csumStart + csumOffset >= layout.length",
        ]],
      },
      {
        name: "net-header-csum-over-addresses",
        about: "a checksum may be written over addresses that were already looked at",
        edits: [["if (lowest === 0 || csumStart < lowest) {", "if (lowest === 0) {"]],
      },
      {
        name: "net-header-protocol-unchecked",
        about: "TCPV4 may be asked for of a frame that is not TCP over IPv4",
        edits: [["return ipVersion === 4 && transport === IPPROTO_TCP", "return ipVersion > 0"]],
      },
      {
        name: "net-header-uso-version",
        about: "USO over IPv6 is allowed by the bit of IPv4",
        edits: [["ipVersion === 6 ? Offload.uso6 : Offload.uso4", "Offload.uso4"]],
      },
      {
        name: "net-header-gso-size-zero",
        about: "segments may have no bytes",
        edits: [["if (gsoSize < least) return", "if (gsoSize < least - 1) return"]],
      },
      {
        name: "net-header-too-many-segments",
        about: "a frame may be cut into any number of segments",
        edits: [["> MAX_SEGMENTS) {", "> 0x1_0000) {"]],
      },
      {
        name: "net-header-gso-without-csum",
        about: "a frame may be cut though nothing says where its checksum is",
        edits: [["if ((flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) === 0) {", "if (gsoSize > 0xffff) {"]],
      },
      {
        name: "net-header-driver-believed",
        about: "a driver may say that it found the checksum right",
        edits: [[
          "believed ? flags & VIRTIO_NET_HDR_F_DATA_VALID : 0",
          "flags & VIRTIO_NET_HDR_F_DATA_VALID",
        ]],
      },
      {
        name: "net-header-hdr-len-passed-on",
        about: "the receiver is told the header length that the sender made up",
        edits: [["header.headerLength = layout.payloadOffset;", ""]],
      },
    ],
  },
  {
    file: "packages/net/offload/segment.ts",
    mutants: [
      {
        name: "net-segment-fin-everywhere",
        about: "every segment has FIN and PSH",
        edits: [["if (!last) flags &= ~TCP_FIN_PSH;", ""]],
      },
      {
        name: "net-segment-cwr-everywhere",
        about: "every segment says that the window was reduced",
        edits: [["if (this.#count > 0) flags &= ~TCP_CWR;", ""]],
      },
      {
        name: "net-segment-one-id",
        about: "all segments have the same IPv4 identification",
        edits: [[
          "this.#ipHeader(target, length, this.#count, -1);",
          "this.#ipHeader(target, length, 0, -1);",
        ]],
      },
      {
        name: "net-segment-pseudo-length",
        about: "the pseudo header keeps the length of the whole frame",
        edits: [["const pseudo = fold(this.#checksum + upper);", "const pseudo = this.#checksum;"]],
        // The host's stack drops such segments, and sends them again until the test gives up.
        first: ["packages/net/offload/segment_test.ts"],
      },
      {
        name: "net-segment-more-fragments",
        about: "the last fragment says that there are more",
        edits: [[
          "(place / FRAGMENT_UNIT) | (last ? 0 : IPV4_MF)",
          "(place / FRAGMENT_UNIT) | IPV4_MF",
        ]],
      },
      {
        name: "net-segment-fragment-unit",
        about: "fragments are cut where an offset cannot say",
        edits: [[
          "size - FRAGMENT_HEADER_SIZE) & -FRAGMENT_UNIT;",
          "size - FRAGMENT_HEADER_SIZE);",
        ]],
      },
      {
        name: "net-segment-options-copied",
        about: "every fragment has the options that are for the first",
        edits: [["if ((type & 0x80) === 0) {", "if (type < 0) {"]],
      },
      {
        name: "net-segment-fragment-too-long",
        about: "a fragment of the largest frame is longer than it",
        edits: [[
          "Math.min(header.gsoSize, size - FRAGMENT_HEADER_SIZE)",
          "Math.min(header.gsoSize, size)",
        ]],
      },
    ],
  },
  {
    file: "packages/net/offload/hash.ts",
    mutants: [
      {
        name: "net-hash-fragment-ports",
        about: "the first fragment is hashed with its ports, and goes another way than the others",
        edits: [[
          "const isTcp = transport === IPPROTO_TCP && !fragment;",
          "const isTcp = transport === IPPROTO_TCP;",
        ]],
      },
      {
        name: "net-hash-extension-ignored",
        about: "home addresses are not hashed",
        edits: [["layout.extensions ? this.#extended", "layout.tags > 2 ? this.#extended"]],
      },
      {
        name: "net-hash-short-key",
        about: "the last bits of the key do not count",
        edits: [["const low = key[i + 4] ?? 0;", "const low = i + 4 < 39 ? key[i + 4] ?? 0 : 0;"]],
      },
      {
        name: "net-hash-disabled-type",
        about: "ports are hashed though only UDP was enabled",
        edits: [[
          "if (isTcp && (types & VIRTIO_NET_HASH_TYPE_TCPv4) !== 0) {",
          "if (isTcp && types !== 0) {",
        ]],
      },
    ],
  },
];

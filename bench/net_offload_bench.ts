/**
 * Offloads of the network device in software. Run by `deno bench bench/net_offload_bench.ts`.
 *
 * - sum: the internet checksum of 64, 1500 and 65,000 bytes; beside it the loop over 16-bit words that it replaces, and
 *   copying while summing. Guards that a sum costs a small part of a nanosecond a byte.
 * - parse: the layout of TCP over IPv4, over IPv6, and behind extension headers and tags; with it the check of a header.
 * - segment: 64 KiB of TCP into 1448 bytes each, with checksums complete and left partial; the same of UDP and of fragments.
 * - hash: an IPv4 and an IPv6 flow, and a new key.
 *
 * Each iteration is 1000 operations (segment: 10 frames), so that milliseconds a run read as microseconds an operation.
 */
import {
  Offload,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "@virtio/net";
import { checksumOffset, copyAndSum, fold, sumBytes } from "../packages/net/offload/checksum.ts";
import { HASH_TYPES, PacketHash } from "../packages/net/offload/hash.ts";
import { checkHeader } from "../packages/net/offload/header.ts";
import { FrameLayout } from "../packages/net/offload/parse.ts";
import { Segmenter } from "../packages/net/offload/segment.ts";
import { buildFrame, type FrameSpec, pattern, viewOf } from "../packages/net/offload/testing.ts";

const TIMES = 1000;
const FRAMES = 10;
let sink = 0;

function plainSum(view: DataView, from: number, to: number): number {
  let sum = 0;
  for (let at = from; at < to; at += 2) sum += view.getUint16(at);
  return fold(sum);
}

for (const size of [64, 1500, 65_000]) {
  const source = viewOf(pattern(size));
  const target = viewOf(new Uint8Array(size));
  const group = `sum, ${size}`;
  const times = size > 10_000 ? TIMES / 10 : TIMES;
  Deno.bench(`sum of ${size} bytes, ${times} times`, { group, baseline: true }, () => {
    for (let i = 0; i < times; i++) sink ^= sumBytes(source, 0, size);
  });
  Deno.bench(`16 bits at a time`, { group }, () => {
    for (let i = 0; i < times; i++) sink ^= plainSum(source, 0, size);
  });
  Deno.bench(`copied and summed`, { group }, () => {
    for (let i = 0; i < times; i++) sink ^= copyAndSum(source, 0, target, 0, size);
  });
}

const SPECS: readonly [name: string, FrameSpec][] = [
  ["TCP over IPv4", { ip: 4 }],
  ["TCP over IPv6", { ip: 6 }],
  ["UDP over IPv6, 2 extension headers, 2 tags", {
    ip: 6,
    transport: "udp",
    tags: [1, 2],
    extensions: [
      { type: 0, bytes: [0, 0, 1, 4, 0, 0, 0, 0] },
      { type: 60, bytes: [0, 0, 1, 4, 0, 0, 0, 0] },
    ],
  }],
];

for (const [name, spec] of SPECS) {
  const bytes = buildFrame({ ...spec, payload: pattern(100) });
  const view = viewOf(bytes);
  const layout = new FrameLayout();
  const header = {
    flags: 0,
    gsoType: 0,
    headerLength: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
  };
  Deno.bench(`parse ${name}`, { group: "parse", baseline: name === SPECS[0]![0] }, () => {
    for (let i = 0; i < TIMES; i++) sink ^= layout.parse(view, bytes.length).payloadOffset;
  });
  Deno.bench(`parse and check ${name}`, { group: "parse" }, () => {
    for (let i = 0; i < TIMES; i++) {
      layout.parse(view, bytes.length);
      header.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      header.csumStart = layout.transportOffset;
      header.csumOffset = checksumOffset(layout.transport);
      if (checkHeader(header, layout, Offload.csum) !== null) throw new Error("refused");
    }
  });
}

for (
  const [name, transport, gsoType, partial] of [
    ["TCP, complete checksums", "tcp", VIRTIO_NET_HDR_GSO_TCPV4, false],
    ["TCP, partial checksums", "tcp", VIRTIO_NET_HDR_GSO_TCPV4, true],
    ["UDP datagrams", "udp", VIRTIO_NET_HDR_GSO_UDP_L4, false],
    ["IP fragments", "udp", VIRTIO_NET_HDR_GSO_UDP, false],
  ] as const
) {
  const bytes = buildFrame({ ip: 4, transport, payload: pattern(65_160), checksum: "partial" });
  const view = viewOf(bytes);
  const layout = new FrameLayout().parse(view, bytes.length);
  const header = {
    flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
    gsoType,
    headerLength: layout.payloadOffset,
    gsoSize: 1448,
    csumStart: layout.transportOffset,
    csumOffset: checksumOffset(layout.transport),
  };
  const segmenter = new Segmenter(1);
  const target = viewOf(new Uint8Array(70_000));
  Deno.bench(name, { group: "segment", baseline: name.startsWith("TCP, complete") }, () => {
    for (let i = 0; i < FRAMES; i++) {
      segmenter.start(view, header, layout, partial);
      while (segmenter.next(target)) sink ^= segmenter.length;
    }
  });
}

const key = pattern(40, 5);
for (const ip of [4, 6] as const) {
  const bytes = buildFrame({ ip });
  const view = viewOf(bytes);
  const layout = new FrameLayout().parse(view, bytes.length);
  const hash = new PacketHash();
  hash.setKey(key);
  hash.types = HASH_TYPES;
  Deno.bench(`hash of IPv${ip}`, { group: "hash", baseline: ip === 4 }, () => {
    for (let i = 0; i < TIMES; i++) {
      hash.calculate(view, layout);
      sink ^= hash.value;
    }
  });
}
const rekeyed = new PacketHash();
Deno.bench("one new key", { group: "hash" }, () => {
  rekeyed.setKey(key);
});

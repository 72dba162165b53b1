/**
 * What software offloads put on the wire, judged by somebody else: tshark has to find every checksum of it right, and to put
 * fragments together again.
 */
import { assert, assertEquals } from "@std/assert";
import {
  Frame,
  type FrameSink,
  pass,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "@virtio/net";
import { checksumOffset } from "../../packages/net/offload/checksum.ts";
import { FrameLayout } from "../../packages/net/offload/parse.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";
import { buildFrame, pattern } from "../../packages/net/offload/testing.ts";

const KINDS = [
  [4, "tcp", VIRTIO_NET_HDR_GSO_TCPV4],
  [4, "tcp", VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN],
  [6, "tcp", VIRTIO_NET_HDR_GSO_TCPV6],
  [4, "udp", VIRTIO_NET_HDR_GSO_UDP_L4],
  [6, "udp", VIRTIO_NET_HDR_GSO_UDP_L4],
  [4, "udp", VIRTIO_NET_HDR_GSO_UDP],
  [6, "udp", VIRTIO_NET_HDR_GSO_UDP],
  [4, "udp", VIRTIO_NET_HDR_GSO_NONE],
  [6, "icmp", VIRTIO_NET_HDR_GSO_NONE],
] as const;
const ROUNDS = 40;
const TIME_STAMPS = [1, 1, 8, 10, 0, 0, 0, 1, 0, 0, 0, 2];
const HOP_BY_HOP = { type: 0, bytes: [0, 0, 1, 4, 0, 0, 0, 0] };

async function hasTshark(): Promise<boolean> {
  await installTool("tshark", "tshark");
  return await hasTool("tshark", ["--version"], "checksums as tshark sees them");
}

/** A file of captured frames as tcpdump writes it: a header, and one before each frame. */
function pcap(frames: readonly Uint8Array[]): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(frames.reduce((sum, frame) => sum + 16 + frame.length, 24));
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0xa1b2c3d4);
  view.setUint16(4, 2);
  view.setUint16(6, 4);
  view.setUint32(16, 0x4_0000);
  view.setUint32(20, 1);
  let at = 24;
  frames.forEach((frame, i) => {
    view.setUint32(at, i);
    view.setUint32(at + 8, frame.length);
    view.setUint32(at + 12, frame.length);
    bytes.set(frame, at + 16);
    at += 16 + frame.length;
  });
  return bytes;
}

/** What tshark says about each frame: 1 for a right checksum of that kind, 0 for a wrong one, nothing for none. */
async function judge(frames: readonly Uint8Array[]): Promise<string[][]> {
  const file = await Deno.makeTempFile({ suffix: ".pcap" });
  try {
    await Deno.writeFile(file, pcap(frames));
    const options = ["ip", "tcp", "udp"].flatMap((name) => ["-o", `${name}.check_checksum:TRUE`]);
    const fields = [
      "ip.checksum.status",
      "tcp.checksum.status",
      "udp.checksum.status",
      "icmpv6.checksum.status",
    ].flatMap((name) => ["-e", name]);
    const args = ["-n", "-r", file, ...options, "-T", "fields", ...fields];
    const { success, stdout, stderr } = await new Deno.Command("tshark", { args }).output();
    const text = new TextDecoder();
    assert(success, text.decode(stderr));
    return text.decode(stdout).split("\n").slice(0, -1).map((line) => line.split("\t"));
  } finally {
    await Deno.remove(file);
  }
}

/** Frames of all kinds, through a sink that can do nothing. Returns what it got. */
function send(): Uint8Array[] {
  const frames: Uint8Array[] = [];
  const sink: FrameSink = { offloads: 0, deliver: (frame) => frames.push(frame.bytes.slice()) };
  let id = 0x4000;
  for (let round = 0; round < ROUNDS; round++) {
    for (const [ip, transport, gsoType] of KINDS) {
      const frame = new Frame().fromBytes(buildFrame({
        ip,
        transport,
        payload: pattern(1 + round * 151, round),
        tags: new Array(round % 3).fill(5),
        extensions: round % 2 === 0 ? [HOP_BY_HOP] : [],
        tcpOptions: round % 2 === 0 ? TIME_STAMPS : [],
        id: id++,
        sequence: (0xffff_f000 + round) >>> 0,
        // Ports behind which tshark expects no protocol.
        sourcePort: 61_000 + round,
        destinationPort: 62_000,
        checksum: "partial",
      }));
      const layout = new FrameLayout().parse(frame.view, frame.length);
      frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
      frame.gsoType = gsoType;
      frame.gsoSize = 100 + round * 31;
      frame.csumStart = layout.transportOffset;
      frame.csumOffset = checksumOffset(layout.transport);
      assertEquals(pass(frame, sink), true);
    }
  }
  return frames;
}

Deno.test({
  name:
    "every checksum of what was segmented, fragmented or completed in software is right, says tshark",
  ignore: !await hasTshark(),
  fn: async () => {
    const frames = send();
    const lines = await judge(frames);
    assertEquals(lines.length, frames.length);
    const right = { ip: 0, tcp: 0, udp: 0, icmp: 0 };
    const names = ["ip", "tcp", "udp", "icmp"] as const;
    lines.forEach((line, i) => {
      line.forEach((status, column) => {
        assert(status === "" || status === "1", `frame ${i + 1}: ${names[column]} says ${status}`);
        if (status === "1") right[names[column]!]++;
      });
    });
    // Of a datagram in fragments one checksum is judged, once all are there; of all others each has its own.
    const isFragment = (bytes: Uint8Array) =>
      new FrameLayout().parse(new DataView(bytes.buffer), bytes.length).fragment;
    const whole = frames.filter((bytes) => !isFragment(bytes)).length;
    const reassembled = right.tcp + right.udp + right.icmp - whole;
    const cut = new Set(frames.filter(isFragment).map(identification)).size;
    assert(cut > ROUNDS, "there were fragments");
    assertEquals(reassembled, cut);
    assert(right.ip > ROUNDS && right.tcp > ROUNDS && right.icmp === ROUNDS);
    // And a bit that is wrong would have been noticed.
    const broken = frames.find((bytes) => !isFragment(bytes))!.slice();
    broken[broken.length - 1]! ^= 1;
    assert((await judge([broken]))[0]!.includes("0"));
  },
});

/** What tells the fragments of one datagram from those of another. */
function identification(bytes: Uint8Array): string {
  const view = new DataView(bytes.buffer);
  const layout = new FrameLayout().parse(view, bytes.length);
  return layout.ipVersion === 4
    ? `4: ${view.getUint16(layout.networkOffset + 4)}`
    : `6: ${view.getUint32(layout.fragmentOffset + 4)}`;
}

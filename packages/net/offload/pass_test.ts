/** Frames on their way to receivers that can do more or less of what they need. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../constants.ts";
import { Frame } from "../frame.ts";
import { pass } from "../pass.ts";
import { type FrameSink, Offload } from "../sink.ts";
import { checksumOffset, verifyChecksum } from "./checksum.ts";
import { FrameLayout } from "./parse.ts";
import { buildFrame, type FrameSpec, pattern, viewOf } from "./testing.ts";

/** Keeps copies of what it is given, and checks that it may be given it. */
class Recorder implements FrameSink {
  readonly frames: { bytes: Uint8Array; flags: number; gsoType: number }[] = [];
  offloads: number;
  constructor(offloads: number) {
    this.offloads = offloads;
  }
  deliver(frame: Frame): void {
    assertEquals(frame.needs & ~this.offloads, 0);
    const { flags, gsoType } = frame;
    this.frames.push({ bytes: frame.bytes.slice(), flags, gsoType });
  }
}

function unfinished(spec: FrameSpec, gsoType: number, gsoSize: number): Frame {
  const frame = new Frame().fromBytes(buildFrame({ ...spec, checksum: "partial" }));
  const layout = new FrameLayout().parse(frame.view, frame.length);
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.gsoType = gsoType;
  frame.gsoSize = gsoSize;
  frame.headerLength = layout.payloadOffset;
  frame.csumStart = layout.transportOffset;
  frame.csumOffset = checksumOffset(layout.transport);
  return frame;
}

const KINDS: readonly [spec: FrameSpec, gsoType: number, needs: number][] = [
  [{ ip: 4 }, VIRTIO_NET_HDR_GSO_NONE, 0],
  [{ ip: 6, transport: "udp" }, VIRTIO_NET_HDR_GSO_NONE, 0],
  [{ ip: 4 }, VIRTIO_NET_HDR_GSO_TCPV4, Offload.tso4],
  [{ ip: 4 }, VIRTIO_NET_HDR_GSO_TCPV4 | VIRTIO_NET_HDR_GSO_ECN, Offload.tso4 | Offload.ecn],
  [{ ip: 6 }, VIRTIO_NET_HDR_GSO_TCPV6, Offload.tso6],
  [{ ip: 4, transport: "udp" }, VIRTIO_NET_HDR_GSO_UDP_L4, Offload.uso4],
  [{ ip: 6, transport: "udp" }, VIRTIO_NET_HDR_GSO_UDP_L4, Offload.uso6],
  [{ ip: 4, transport: "udp" }, VIRTIO_NET_HDR_GSO_UDP, Offload.ufo],
  [{ ip: 6, transport: "udp" }, VIRTIO_NET_HDR_GSO_UDP, Offload.ufo],
];

Deno.test("every receiver gets what it can take: as it is, or finished and right", () => {
  fc.assert(
    fc.property(fc.constantFrom(...KINDS), fc.nat(127), fc.nat(3000), (kind, offloads, length) => {
      const [spec, gsoType, extra] = kind;
      const needs = Offload.csum | extra;
      const whole = { ...spec, payload: pattern(length) };
      const frame = unfinished(whole, gsoType, 1000);
      const before = frame.bytes.slice();
      assertEquals(frame.needs, needs);
      const sink = new Recorder(offloads);
      assertEquals(pass(frame, sink), true);
      if ((needs & ~offloads) === 0) {
        assertEquals(sink.frames, [{ bytes: before, flags: 1, gsoType }]);
        return;
      }
      let payload = 0;
      for (const { bytes, flags, gsoType } of sink.frames) {
        assertEquals(gsoType, VIRTIO_NET_HDR_GSO_NONE);
        const layout = new FrameLayout().parse(viewOf(bytes), bytes.length);
        if (layout.fragment) {
          assertEquals(flags, 0);
          continue;
        }
        const partial = flags === VIRTIO_NET_HDR_F_NEEDS_CSUM;
        assertEquals(partial, extra !== 0 && (offloads & Offload.csum) !== 0);
        assertEquals(verifyChecksum(viewOf(bytes), layout), !partial);
        payload += bytes.length - layout.payloadOffset;
        if (extra === 0) assertEquals(bytes, buildFrame(whole));
      }
      if (payload > 0) assertEquals(payload, length);
      assertEquals(frame.bytes, before, "the frame is as it was");
      assertEquals(frame.needs, needs);
    }),
    { numRuns: 1000 },
  );
});

Deno.test("a checksum of UDP that comes out as 0 is written as 0xffff; one elsewhere in the frame is not", () => {
  const build = (checksum: "full" | "partial", word: number[]) =>
    buildFrame({ ip: 4, transport: "udp", payload: Uint8Array.from(word), checksum });
  const full = build("full", [0, 0]);
  const missing = viewOf(full).getUint16(40);
  const word = [missing >> 8, missing & 0xff];
  const sink = new Recorder(0);
  const frame = new Frame().fromBytes(build("partial", word));
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.csumStart = 34;
  frame.csumOffset = 6;
  pass(frame, sink);
  assertEquals(viewOf(sink.frames[0]!.bytes).getUint16(40), 0xffff);
  assertEquals(sink.frames[0]!.bytes, build("full", word));
  // In the payload, as of a protocol that UDP carries.
  frame.fromBytes(build("full", [0xff, 0xff]));
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.csumStart = 42;
  pass(frame, sink);
  assertEquals(viewOf(sink.frames[1]!.bytes).getUint16(42), 0);
});

Deno.test("a header that does not fit its frame is not passed on", () => {
  const sink = new Recorder(0);
  const wrong = [
    unfinished({ ip: 4, payload: pattern(99) }, VIRTIO_NET_HDR_GSO_TCPV6, 10),
    unfinished({ ip: 4, payload: pattern(99) }, VIRTIO_NET_HDR_GSO_TCPV4, 0),
    unfinished({ ip: 4, payload: pattern(99) }, VIRTIO_NET_HDR_GSO_NONE, 0),
  ];
  wrong[2]!.csumStart = 0xffff;
  for (const frame of wrong) assertEquals(pass(frame, sink), false);
  assertEquals(sink.frames, []);
});

Deno.test("a sink may pass frames on while it is given segments, and may fail", () => {
  const payload = pattern(3000);
  const answers = new Recorder(0);
  const sink = new Recorder(Offload.csum);
  const deliver = sink.deliver.bind(sink);
  sink.deliver = (frame) => {
    deliver(frame);
    const answer = unfinished({ ip: 6, payload }, VIRTIO_NET_HDR_GSO_TCPV6, 1500);
    assertEquals(pass(answer, answers), true);
  };
  pass(unfinished({ ip: 4, payload }, VIRTIO_NET_HDR_GSO_TCPV4, 1000), sink);
  assertEquals(sink.frames.map(({ flags }) => flags), [1, 1, 1]);
  assertEquals(answers.frames.length, 6);
  const data = (frames: Recorder["frames"], from: number) =>
    frames.flatMap(({ bytes }) => [...bytes.subarray(from)]);
  assertEquals(data(sink.frames, 54), [...payload]);
  assertEquals(data(answers.frames, 74), [...payload, ...payload, ...payload]);
  sink.deliver = () => {
    throw new Error("full");
  };
  let failed = false;
  try {
    pass(unfinished({ ip: 4, payload }, VIRTIO_NET_HDR_GSO_TCPV4, 1000), sink);
  } catch {
    failed = true;
  }
  assert(failed);
  sink.deliver = deliver;
  pass(unfinished({ ip: 4, payload }, VIRTIO_NET_HDR_GSO_TCPV4, 1000), sink);
  assertEquals(sink.frames.length, 6);
});

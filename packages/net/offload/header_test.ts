/** A header is believed only as far as its frame bears it out (5.1.9.2). */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import fc from "fast-check";
import {
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_F_RSC_INFO,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../constants.ts";
import { Offload } from "../sink.ts";
import { checkHeader, type FrameHeader, MAX_SEGMENTS, segmentCount } from "./header.ts";
import { FrameLayout } from "./parse.ts";
import { buildFrame, type FrameSpec, pattern, viewOf } from "./testing.ts";

function layoutOf(spec: FrameSpec): FrameLayout {
  const bytes = buildFrame(spec);
  return new FrameLayout().parse(viewOf(bytes), bytes.length);
}

function header(fields: Partial<FrameHeader>): FrameHeader {
  return {
    flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
    gsoType: VIRTIO_NET_HDR_GSO_NONE,
    headerLength: 0,
    gsoSize: 0,
    csumStart: 0,
    csumOffset: 0,
    ...fields,
  };
}

const PLAIN = header({ flags: 0 });
const tcp4: FrameSpec = { ip: 4, transport: "tcp", payload: pattern(3000) };
const tcp6: FrameSpec = { ip: 6, transport: "tcp", payload: pattern(3000) };
const udp4: FrameSpec = { ip: 4, transport: "udp", payload: pattern(3000) };
const udp6: FrameSpec = { ip: 6, transport: "udp", payload: pattern(3000) };

/** Each kind of segmentation with a frame, a right header and the feature that it takes. */
const GSO: readonly [name: string, FrameSpec, FrameHeader, needs: number][] = [
  ["TSO4", tcp4, gso(VIRTIO_NET_HDR_GSO_TCPV4, 34, 16), Offload.tso4],
  ["TSO6", tcp6, gso(VIRTIO_NET_HDR_GSO_TCPV6, 54, 16), Offload.tso6],
  ["UFO on IPv4", udp4, gso(VIRTIO_NET_HDR_GSO_UDP, 34, 6), Offload.ufo],
  ["UFO on IPv6", udp6, gso(VIRTIO_NET_HDR_GSO_UDP, 54, 6), Offload.ufo],
  ["USO4", udp4, gso(VIRTIO_NET_HDR_GSO_UDP_L4, 34, 6), Offload.uso4],
  ["USO6", udp6, gso(VIRTIO_NET_HDR_GSO_UDP_L4, 54, 6), Offload.uso6],
];

function gso(gsoType: number, csumStart: number, csumOffset: number): FrameHeader {
  return header({ gsoType, gsoSize: 1000, csumStart, csumOffset });
}

function refused(fields: FrameHeader, layout: FrameLayout, allowed: number, part: string): void {
  const before = { ...fields };
  const reason = checkHeader(fields, layout, allowed);
  assert(reason !== null, `accepted, although: ${part}`);
  assertStringIncludes(reason, part);
  assertStringIncludes(reason, "(5.1.9.2");
  assertEquals(fields, before, "a refused header stays as it was");
}

Deno.test("a frame that asks for nothing is taken, whatever it is, and what it says beside that is gone", () => {
  for (const ip of [4, 6, "arp"] as const) {
    const fields = header({
      flags: VIRTIO_NET_HDR_F_DATA_VALID | VIRTIO_NET_HDR_F_RSC_INFO | 0xf0,
      headerLength: 9,
      gsoSize: 9,
      csumStart: 0xffff,
      csumOffset: 0xffff,
    });
    assertEquals(checkHeader(fields, layoutOf({ ip }), 0), null);
    assertEquals(fields, PLAIN);
  }
});

Deno.test("only a back end of the host may say that a checksum was found right", () => {
  const fields = header({ flags: VIRTIO_NET_HDR_F_DATA_VALID | VIRTIO_NET_HDR_F_RSC_INFO });
  assertEquals(checkHeader(fields, layoutOf(tcp4), 0, true), null);
  assertEquals(fields.flags, VIRTIO_NET_HDR_F_DATA_VALID);
});

Deno.test("a checksum to be completed: the feature, the place, the headers before it", () => {
  const layout = layoutOf({ ip: 4, transport: "udp", payload: pattern(2) });
  const good = header({ csumStart: 34, csumOffset: 6, headerLength: 0xffff });
  refused({ ...good }, layout, Offload.all & ~Offload.csum, "NEEDS_CSUM was not negotiated");
  assertEquals(checkHeader(good, layout, Offload.csum), null);
  assertEquals(good, header({ csumStart: 34, csumOffset: 6, headerLength: 42 }));
  assertEquals(layout.length, 44);
  assertEquals(checkHeader(header({ csumStart: 34, csumOffset: 8 }), layout, Offload.csum), null);
  for (
    const [csumStart, csumOffset] of [[34, 9], [43, 0], [44, 0], [0xffff, 0xffff], [
      34,
      0xffff,
    ]] as const
  ) {
    refused(header({ csumStart, csumOffset }), layout, Offload.csum, "behind the end");
  }
  for (const [csumStart, csumOffset] of [[0, 0], [14, 10], [33, 7]] as const) {
    refused(header({ csumStart, csumOffset }), layout, Offload.csum, "before the transport");
  }
  // Not over the addresses of what is not understood either.
  refused(header({ csumStart: 13 }), layoutOf({ ip: "arp", payload: pattern(9) }), 1, "before");
  refused(header({ csumStart: 2 }), new FrameLayout().parse(viewOf(pattern(13)), 13), 1, "before");
  const cut = buildFrame({ ip: 6, transport: "tcp", extensions: [{ type: 60, bytes: [0, 9] }] });
  const unclear = new FrameLayout().parse(viewOf(cut), cut.length);
  refused(header({ csumStart: 53 }), unclear, 1, "before");
});

Deno.test("the type of segmentation: the feature, and the frame's protocol", () => {
  for (const [name, spec, right, needs] of GSO) {
    const layout = layoutOf(spec);
    const fields = { ...right, headerLength: 3 };
    assertEquals(checkHeader(fields, layout, Offload.csum | needs), null, name);
    assertEquals(fields, { ...right, headerLength: layout.payloadOffset }, name);
    refused({ ...right }, layout, Offload.all & ~needs, "was not negotiated");
    for (const [other, otherSpec] of GSO) {
      const same = otherSpec.transport === spec.transport &&
        (otherSpec.ip === spec.ip || right.gsoType === VIRTIO_NET_HDR_GSO_UDP ||
          right.gsoType === VIRTIO_NET_HDR_GSO_UDP_L4);
      if (same) continue;
      const otherLayout = layoutOf(otherSpec);
      const start = otherLayout.transportOffset;
      refused({ ...right, csumStart: start }, otherLayout, Offload.all, "on a frame that is not");
      assert(other !== name);
    }
  }
  for (const gsoType of [2, 6, 0x20, 0x21, 0x40, 0x61, 0x7f, 0x82, 0x83, 0x85]) {
    refused({ ...GSO[0]![2], gsoType }, layoutOf(tcp4), Offload.all, "gso_type is none");
  }
  refused(header({ flags: 9 }), layoutOf(tcp4), Offload.all, "UDP_TUNNEL_CSUM");
});

Deno.test("ECN: a feature of its own, with TCP; alone it asks for nothing", () => {
  for (const [, spec, right, needs] of GSO.slice(0, 2)) {
    const gsoType = right.gsoType | VIRTIO_NET_HDR_GSO_ECN;
    const allowed = Offload.csum | needs;
    refused({ ...right, gsoType }, layoutOf(spec), allowed, "GSO_ECN was not negotiated");
    const fields = { ...right, gsoType };
    assertEquals(checkHeader(fields, layoutOf(spec), allowed | Offload.ecn), null);
    assertEquals(fields.gsoType, gsoType);
  }
  const alone = header({ flags: 0, gsoType: VIRTIO_NET_HDR_GSO_ECN, gsoSize: 7 });
  assertEquals(checkHeader(alone, layoutOf(tcp4), 0), null);
  assertEquals(alone, PLAIN);
});

Deno.test("segmentation takes NEEDS_CSUM at the transport's checksum, a whole packet and a size", () => {
  for (const [name, spec, right] of GSO) {
    const layout = layoutOf(spec);
    refused({ ...right, flags: 0 }, layout, Offload.all, "without VIRTIO_NET_HDR_F_NEEDS_CSUM");
    for (
      const wrong of [
        { csumStart: right.csumStart + 1 },
        { csumStart: right.csumStart + 20 },
        { csumOffset: right.csumOffset + 2 },
        { csumOffset: 0 },
      ]
    ) {
      refused({ ...right, ...wrong }, layout, Offload.all, "not those of the transport");
    }
    refused({ ...right, gsoSize: 0 }, layout, Offload.all, "too small");
    const least = right.gsoType === VIRTIO_NET_HDR_GSO_UDP ? 8 : 2;
    assertEquals(checkHeader({ ...right, gsoSize: least }, layout, Offload.all), null, name);
  }
  // Also where nothing would have to be cut.
  const empty = layoutOf({ ip: 4, transport: "tcp" });
  refused({ ...GSO[0]![2], gsoSize: 0 }, empty, Offload.all, "too small");
  refused({ ...GSO[2]![2], gsoSize: 7 }, layoutOf(udp4), Offload.all, "too small");
  const first = layoutOf({ ...tcp4, fragment: 0x2000 });
  refused({ ...GSO[0]![2] }, first, Offload.all, "on a fragment");
});

Deno.test("a frame may ask for so many segments and no more", () => {
  for (const [name, spec, right] of GSO) {
    const bytes = buildFrame({ ...spec, payload: pattern(60_000) });
    const layout = new FrameLayout().parse(viewOf(bytes), bytes.length);
    let least = 0xffff;
    for (let gsoSize = 1; gsoSize < 100; gsoSize++) {
      if (checkHeader({ ...right, gsoSize }, layout, Offload.all) === null) {
        least = Math.min(least, gsoSize);
        assert(segmentCount(right.gsoType, gsoSize, layout) <= MAX_SEGMENTS, name);
      }
    }
    assertEquals(least, right.gsoType === VIRTIO_NET_HDR_GSO_UDP ? 32 : 30, name);
  }
});

Deno.test("segments hold all that there is", () => {
  const layout = layoutOf(udp4);
  const counts = (type: number, sizes: number[]) =>
    sizes.map((size) => segmentCount(type, size, layout));
  assertEquals(counts(VIRTIO_NET_HDR_GSO_UDP_L4, [1, 1000, 2999, 3000, 9999]), [3000, 3, 2, 1, 1]);
  assertEquals(counts(VIRTIO_NET_HDR_GSO_UDP, [8, 1504, 1511, 3007, 3008]), [376, 2, 2, 2, 1]);
  assertEquals(
    segmentCount(VIRTIO_NET_HDR_GSO_TCPV4, 1000, layoutOf({ ip: 4, transport: "tcp" })),
    1,
  );
});

Deno.test("longer than IP can be: refused where arithmetic would follow", () => {
  const bytes = buildFrame({ ...tcp4, payload: pattern(65_495), padding: 1 });
  const layout = new FrameLayout();
  const fields = () => ({ ...GSO[0]![2] });
  assertEquals(checkHeader(fields(), layout.parse(viewOf(bytes), bytes.length - 1), 127), null);
  refused(fields(), layout.parse(viewOf(bytes), bytes.length), 127, "longer than an IP packet");
});

Deno.test("whatever a header says about whatever frame: no exception, and what is left of it is true", () => {
  const frames = GSO.map(([, spec]) => spec).concat({ ip: "arp", payload: pattern(30) });
  const small = fc.oneof(fc.nat(0xffff), fc.constantFrom(0, 1, 6, 16, 34, 54));
  fc.assert(
    fc.property(
      fc.constantFrom(...frames),
      fc.array(fc.tuple(fc.nat(80), fc.nat(255)), { maxLength: 2 }),
      fc.tuple(fc.nat(255), fc.oneof(fc.nat(255), fc.constantFrom(0, 1, 3, 4, 5)), small, small),
      small,
      small,
      fc.nat(127),
      (spec, changes, [flags, gsoType, headerLength, gsoSize], csumStart, csumOffset, allowed) => {
        const bytes = buildFrame(spec);
        for (const [at, value] of changes) bytes[at % bytes.length] = value;
        const layout = new FrameLayout().parse(viewOf(bytes), bytes.length);
        const fields = { flags, gsoType, headerLength, gsoSize, csumStart, csumOffset };
        if (checkHeader(fields, layout, allowed) !== null) return;
        assertEquals(fields.flags & ~VIRTIO_NET_HDR_F_NEEDS_CSUM, 0);
        if (fields.flags === 0) {
          assertEquals(fields, PLAIN);
          return;
        }
        assert(fields.csumStart + fields.csumOffset + 2 <= bytes.length);
        assert(fields.csumStart >= 14);
        if (fields.gsoType === VIRTIO_NET_HDR_GSO_NONE) return;
        assert(fields.gsoSize > 0 && layout.payloadOffset <= bytes.length);
        assertEquals(fields.headerLength, layout.payloadOffset);
      },
    ),
    { numRuns: 3000 },
  );
});

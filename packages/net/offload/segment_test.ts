/**
 * Segments put together again are what was cut; each is a right frame by itself.
 */
import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../constants.ts";
import { Offload } from "../sink.ts";
import { checksumOffset, completeChecksum, verifyChecksum } from "./checksum.ts";
import { checkHeader, type FrameHeader } from "./header.ts";
import { FrameLayout } from "./parse.ts";
import { Segmenter } from "./segment.ts";
import { buildFrame, type FrameSpec, naiveSum, pattern, viewOf } from "./testing.ts";

interface Piece {
  readonly bytes: Uint8Array;
  readonly layout: FrameLayout;
  readonly header: FrameHeader;
}

function layoutOf(bytes: Uint8Array): FrameLayout {
  return new FrameLayout().parse(viewOf(bytes), bytes.length);
}

function cut(
  bytes: Uint8Array,
  gsoType: number,
  gsoSize: number,
  partial: boolean = false,
  segmenter: Segmenter = new Segmenter(7),
): Piece[] {
  const layout = layoutOf(bytes);
  const header: FrameHeader = {
    flags: VIRTIO_NET_HDR_F_NEEDS_CSUM,
    gsoType,
    headerLength: 0,
    gsoSize,
    csumStart: layout.transportOffset,
    csumOffset: checksumOffset(layout.transport),
  };
  assertEquals(checkHeader(header, layout, Offload.all), null);
  const before = bytes.slice();
  const count = segmenter.start(viewOf(bytes), header, layout, partial);
  const target = new Uint8Array(bytes.length + 8).fill(0xee);
  const pieces: Piece[] = [];
  while (segmenter.next(viewOf(target))) {
    const piece = target.slice(0, segmenter.length);
    const { flags, headerLength, csumStart, csumOffset } = segmenter;
    pieces.push({
      bytes: piece,
      layout: layoutOf(piece),
      header: { flags, gsoType: 0, headerLength, gsoSize: 0, csumStart, csumOffset },
    });
    assert(pieces.length <= count);
    assert(piece.length <= Math.max(bytes.length, layout.fragmentOffset + 16));
  }
  assertEquals(pieces.length, count);
  assertEquals(segmenter.next(viewOf(target)), false);
  assertEquals(bytes, before, "the frame is as it was");
  return pieces;
}

/** A frame as GSO wants it: with a partial checksum. */
function gsoFrame(spec: FrameSpec): Uint8Array {
  return buildFrame({ ...spec, checksum: "partial" });
}

const payload = fc.tuple(fc.nat(3000), fc.nat(255)).map(([length, seed]) => pattern(length, seed));
const tags = fc.array(fc.nat(0xfff), { maxLength: 2 });
const options = (max: number) => fc.nat(max).map((words) => [...pattern(4 * words)]);
const routing = { type: 43, bytes: [0, 0, 4, 0, 0, 0, 0, 0] };
const extensions = fc.constantFrom([], [routing], [
  { type: 0, bytes: [0, 0, 1, 4, 0, 0, 0, 0] },
  routing,
  { type: 60, bytes: [0, 1, 1, 12, ...new Array(12).fill(0)] },
]);
const ip = fc.constantFrom<4 | 6>(4, 6);

Deno.test("TCP: the segments are those that a sender would have built one by one", () => {
  fc.assert(fc.property(
    fc.record({
      ip,
      tags,
      payload,
      extensions,
      tcpOptions: options(10),
      ipOptions: options(10),
      sequence: fc.oneof(fc.nat(0xffff), fc.constant(0xffff_ff00)),
      id: fc.oneof(fc.nat(0xffff), fc.constant(0xfffe)),
      tcpFlags: fc.nat(255),
    }),
    fc.integer({ min: 2, max: 1500 }),
    fc.boolean(),
    (spec, size, ecn) => {
      const type = spec.ip === 4 ? VIRTIO_NET_HDR_GSO_TCPV4 : VIRTIO_NET_HDR_GSO_TCPV6;
      const bytes = gsoFrame(spec);
      const pieces = cut(bytes, type | (ecn ? VIRTIO_NET_HDR_GSO_ECN : 0), size);
      assertEquals(pieces.length, Math.max(1, Math.ceil(spec.payload.length / size)));
      pieces.forEach((piece, i) => {
        const isFirst = i === 0;
        const isLast = i === pieces.length - 1;
        // FIN and PSH at the end, CWR at the beginning.
        const flags = spec.tcpFlags & ~(isLast ? 0 : 9) & ~(isFirst ? 0 : 0x80);
        const expected = buildFrame({
          ...spec,
          payload: spec.payload.subarray(i * size, (i + 1) * size),
          sequence: (spec.sequence + i * size) % 2 ** 32,
          id: (spec.id + i) & 0xffff,
          tcpFlags: flags,
        });
        assertEquals(piece.bytes, expected);
        assertEquals(piece.header.flags, 0);
      });
    },
  ));
});

Deno.test("USO: the segments are those that a sender would have built one by one", () => {
  fc.assert(fc.property(
    fc.record({ ip, tags, payload, extensions, ipOptions: options(10), id: fc.nat(0xffff) }),
    fc.integer({ min: 2, max: 1500 }),
    (fields, size) => {
      const spec = { ...fields, transport: "udp" as const };
      const pieces = cut(gsoFrame(spec), VIRTIO_NET_HDR_GSO_UDP_L4, size);
      pieces.forEach((piece, i) => {
        const part = spec.payload.subarray(i * size, (i + 1) * size);
        assertEquals(
          piece.bytes,
          buildFrame({ ...spec, payload: part, id: (spec.id + i) & 0xffff }),
        );
      });
      assertEquals(pieces.length, Math.max(1, Math.ceil(spec.payload.length / size)));
    },
  ));
});

Deno.test("a receiver that completes checksums gets segments with partial ones", () => {
  fc.assert(fc.property(ip, tags, payload, fc.boolean(), (ip, tags, payload, tcp) => {
    const spec: FrameSpec = { ip, tags, payload, transport: tcp ? "tcp" : "udp" };
    const type = !tcp
      ? VIRTIO_NET_HDR_GSO_UDP_L4
      : ip === 4
      ? VIRTIO_NET_HDR_GSO_TCPV4
      : VIRTIO_NET_HDR_GSO_TCPV6;
    const full = cut(gsoFrame(spec), type, 700);
    cut(gsoFrame(spec), type, 700, true).forEach(({ bytes, layout, header }, i) => {
      assertEquals(header.flags, VIRTIO_NET_HDR_F_NEEDS_CSUM);
      assertEquals(header.headerLength, layout.payloadOffset);
      assertEquals(checkHeader({ ...header }, layout, Offload.csum), null);
      const { csumStart, csumOffset } = header;
      completeChecksum(viewOf(bytes), bytes.length, csumStart, csumOffset, !tcp);
      assertEquals(bytes, full[i]!.bytes);
    });
  }));
});

/** Puts IP fragments together again, as a receiver does. */
function reassemble(pieces: readonly Piece[], spec: FrameSpec): Uint8Array {
  const parts: { place: number; data: Uint8Array; more: boolean }[] = [];
  let headers = new Uint8Array(0);
  for (const { bytes, layout } of pieces) {
    const view = viewOf(bytes);
    const network = layout.networkOffset;
    assertEquals(layout.end, bytes.length);
    if (spec.ip === 4) {
      const start = layout.transportOffset;
      const field = view.getUint16(network + 6);
      assertEquals(naiveSum(bytes.subarray(network, start)), 0xffff);
      const place = 8 * (field & 0x1fff);
      parts.push({ place, data: bytes.subarray(start), more: (field & 0x2000) !== 0 });
      assertEquals(field & 0xc000, 0);
      if (place === 0) headers = bytes.slice(0, start);
    } else {
      const at = layout.fragmentOffset;
      assertEquals(bytes[layout.nextHeaderOffset], 44);
      const field = view.getUint16(at + 2);
      const place = field & 0xfff8;
      parts.push({ place, data: bytes.subarray(at + 8), more: (field & 1) !== 0 });
      assertEquals(view.getUint32(at + 4), 8);
      if (place === 0) {
        headers = bytes.slice(0, at);
        headers[layout.nextHeaderOffset] = bytes[at]!;
      }
    }
  }
  let end = 0;
  parts.forEach(({ place, data, more }, i) => {
    assertEquals(place, end);
    assertEquals(more, i < parts.length - 1);
    if (more) assertEquals(data.length % 8, 0);
    end += data.length;
  });
  const whole = new Uint8Array(headers.length + end);
  whole.set(headers);
  for (const { place, data } of parts) whole.set(data, headers.length + place);
  const view = viewOf(whole);
  const network = layoutOf(whole).networkOffset;
  if (spec.ip === 6) {
    view.setUint16(network + 4, whole.length - network - 40);
  } else {
    view.setUint16(network + 2, whole.length - network);
    view.setUint16(network + 6, spec.fragment ?? 0x4000);
    view.setUint16(network + 10, 0);
    view.setUint16(network + 10, ~naiveSum(whole.subarray(network, headers.length)) & 0xffff);
  }
  return whole;
}

Deno.test("UFO: the fragments together are the datagram, with its checksum", () => {
  fc.assert(fc.property(
    fc.record({ ip, tags, payload, extensions, id: fc.nat(0xffff) }),
    fc.integer({ min: 8, max: 1500 }),
    (fields, size) => {
      const spec = { ...fields, transport: "udp" as const };
      const pieces = cut(gsoFrame(spec), VIRTIO_NET_HDR_GSO_UDP, size);
      const whole = buildFrame(spec);
      if (pieces.length === 1) {
        assertEquals(pieces[0]!.bytes, whole);
        return;
      }
      for (const { bytes, layout, header } of pieces) {
        assertEquals(header.flags, 0);
        const data = bytes.length - layout.fragmentOffset - (spec.ip === 6 ? 8 : 0);
        assert(data <= size);
      }
      assertEquals(reassemble(pieces, spec), whole);
    },
  ));
});

Deno.test("UFO: a checksum of fragments is complete even if the receiver would take a partial one", () => {
  const spec: FrameSpec = { ip: 4, transport: "udp", payload: pattern(100) };
  const pieces = cut(gsoFrame(spec), VIRTIO_NET_HDR_GSO_UDP, 48, true);
  assertEquals(pieces.length, 3);
  assertEquals(reassemble(pieces, spec), buildFrame(spec));
});

Deno.test("UFO: each datagram over IPv6 has an identification of its own; none is longer than the largest frame", () => {
  const segmenter = new Segmenter(0xffff_fffe);
  for (const expected of [0xffff_ffff, 0, 1]) {
    const bytes = gsoFrame({ ip: 6, transport: "udp", payload: pattern(300) });
    for (const piece of cut(bytes, VIRTIO_NET_HDR_GSO_UDP, 100, false, segmenter)) {
      assertEquals(viewOf(piece.bytes).getUint32(58), expected);
    }
  }
  // 65,535 bytes behind the IPv6 header, and a gso_size that leaves next to nothing for the second fragment.
  const spec: FrameSpec = { ip: 6, transport: "udp", payload: pattern(65_527) };
  const pieces = cut(gsoFrame(spec), VIRTIO_NET_HDR_GSO_UDP, 65_534, false, new Segmenter(7));
  assertEquals(pieces.length, 2);
  assertEquals(reassemble(pieces, spec), buildFrame(spec));
});

Deno.test("UFO: options of IPv4 that belong to the whole are in the first fragment only", () => {
  // Record route (7), stream (0x88, copied), no-operation, time stamp (0x44) with a length that runs out of the header.
  const ipOptions = [7, 7, 4, 1, 2, 3, 4, 0x88, 4, 9, 9, 1, 0x44, 40, 5, 6];
  const spec: FrameSpec = { ip: 4, transport: "udp", payload: pattern(60), ipOptions };
  const [first, second] = cut(gsoFrame(spec), VIRTIO_NET_HDR_GSO_UDP, 40);
  assertEquals([...first!.bytes.subarray(34, 50)], ipOptions);
  assertEquals(
    [...second!.bytes.subarray(34, 50)],
    [1, 1, 1, 1, 1, 1, 1, 0x88, 4, 9, 9, 1, 1, 1, 1, 1],
  );
  for (const odd of [[0, 7, 7, 7], [1, 1, 1, 7], [7, 0, 9, 9], [0x88, 0, 9, 9]]) {
    const pieces = cut(gsoFrame({ ...spec, ipOptions: odd }), VIRTIO_NET_HDR_GSO_UDP, 40);
    assertEquals(naiveSum(pieces[1]!.bytes.subarray(14, 38)), 0xffff);
  }
});

Deno.test("a lying length in the IP or UDP header does no harm: segments go by the frame", () => {
  for (const [at, value] of [[16, 0], [16, 45], [16, 0xffff], [38, 0], [38, 0xffff]] as const) {
    const bytes = gsoFrame({ ip: 4, transport: "udp", payload: pattern(500) });
    viewOf(bytes).setUint16(at, value);
    for (const { bytes: piece, layout } of cut(bytes, VIRTIO_NET_HDR_GSO_UDP_L4, 200)) {
      assertEquals(verifyChecksum(viewOf(piece), layout), true, `${at}: ${value}`);
      assertEquals(layout.end, piece.length);
    }
  }
});

Deno.test("a target that is too small is a RangeError", () => {
  const bytes = gsoFrame({ ip: 4, payload: pattern(500) });
  const layout = layoutOf(bytes);
  const segmenter = new Segmenter();
  const header = {
    flags: 1,
    gsoType: VIRTIO_NET_HDR_GSO_TCPV4,
    headerLength: 0,
    gsoSize: 200,
    csumStart: 34,
    csumOffset: 16,
  };
  assertEquals(segmenter.start(viewOf(bytes), header, layout, false), 3);
  assertThrows(() => segmenter.next(new DataView(new ArrayBuffer(253))), RangeError);
});

Deno.test("a frame of the largest size is cut", () => {
  const spec: FrameSpec = { ip: 4, payload: pattern(65_495), tcpFlags: 0x99 };
  const pieces = cut(gsoFrame(spec), VIRTIO_NET_HDR_GSO_TCPV4, 1460);
  assertEquals(pieces.length, 45);
  const parts = pieces.flatMap(({ bytes, layout }) => {
    assertEquals(verifyChecksum(viewOf(bytes), layout), true);
    return [...bytes.subarray(54)];
  });
  assertEquals(parts, [...spec.payload!]);
});

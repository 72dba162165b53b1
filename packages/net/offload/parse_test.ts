/** Where the headers of a frame are found, and that nothing outside of it is ever looked at. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  FrameLayout,
  IPPROTO_DSTOPTS,
  IPPROTO_FRAGMENT,
  IPPROTO_HOPOPTS,
  IPPROTO_ICMP,
  IPPROTO_ICMPV6,
  IPPROTO_ROUTING,
  IPPROTO_TCP,
  IPPROTO_UDP,
} from "./parse.ts";
import { buildFrame, type FrameSpec, pattern, viewOf } from "./testing.ts";

function layoutOf(bytes: Uint8Array, available: number = bytes.length): FrameLayout {
  return new FrameLayout().parse(viewOf(bytes), available, bytes.length);
}

/** An extension header of `8 * units` bytes; the first byte is filled in by the builder. */
function extension(type: number, units: number, ...bytes: number[]) {
  const content = [0, units - 1, ...bytes];
  while (content.length < 8 * units) content.push(0);
  return { type, bytes: content };
}

const HOME = Array.from({ length: 16 }, (_, i) => 0xa0 + i);

Deno.test("the headers of each kind of frame are found, with 0 to 2 tags", () => {
  const cases: [FrameSpec, Record<string, number | boolean>][] = [
    [{ ip: 4, transport: "tcp" }, {
      transport: IPPROTO_TCP,
      transportOffset: 20,
      payloadOffset: 40,
    }],
    [{ ip: 4, transport: "tcp", tcpOptions: pattern4(12), ipOptions: pattern4(8) }, {
      transport: IPPROTO_TCP,
      transportOffset: 28,
      payloadOffset: 60,
    }],
    [{ ip: 4, transport: "udp" }, {
      transport: IPPROTO_UDP,
      transportOffset: 20,
      payloadOffset: 28,
    }],
    [{ ip: 4, transport: "icmp" }, {
      transport: IPPROTO_ICMP,
      transportOffset: 20,
      payloadOffset: 28,
    }],
    [{ ip: 6, transport: "tcp" }, {
      transport: IPPROTO_TCP,
      transportOffset: 40,
      payloadOffset: 60,
    }],
    [{ ip: 6, transport: "udp" }, {
      transport: IPPROTO_UDP,
      transportOffset: 40,
      payloadOffset: 48,
    }],
    [{ ip: 6, transport: "icmp" }, {
      transport: IPPROTO_ICMPV6,
      transportOffset: 40,
      payloadOffset: 44,
    }],
    [{ ip: 4, transport: 47 }, {
      transport: -1,
      protocol: 47,
      transportOffset: 20,
      payloadOffset: 0,
    }],
    [{ ip: 6, transport: 47 }, {
      transport: -1,
      protocol: 47,
      transportOffset: 40,
      payloadOffset: 0,
    }],
  ];
  for (const [spec, expected] of cases) {
    for (const tags of [[], [5], [0x7fff, 6]]) {
      const bytes = buildFrame({ ...spec, tags, payload: pattern(33), padding: 7 });
      const layout = layoutOf(bytes);
      const network = 14 + 4 * tags.length;
      assertEquals(layout.networkOffset, network);
      assertEquals(layout.tags, tags.length);
      assertEquals(layout.vlan, [0, 5, 0xfff][tags.length]);
      assertEquals(layout.ipVersion, spec.ip);
      assertEquals(layout.end, bytes.length - 7);
      assertEquals(layout.truncated, false);
      assertEquals(layout.fragment, false);
      for (const [name, value] of Object.entries(expected)) {
        const isOffset = name.endsWith("Offset") && value !== 0;
        const found = layout[name as keyof FrameLayout];
        assertEquals(found, isOffset ? Number(value) + network : value, `${name} of ${spec.ip}`);
      }
    }
  }
});

function pattern4(length: number): number[] {
  return new Array(length).fill(1);
}

Deno.test("what is not IP is not IP; a third tag is left standing", () => {
  const arp = layoutOf(buildFrame({ ip: "arp", payload: pattern(28), tags: [9] }));
  assertEquals([arp.etherType, arp.ipVersion, arp.networkOffset, arp.protocol], [0x806, 0, 18, -1]);
  const three = layoutOf(buildFrame({ ip: 4, tags: [1, 2, 3] }));
  assertEquals([three.etherType, three.tags, three.ipVersion, three.vlan], [0x8100, 2, 0, 1]);
  assertEquals(layoutOf(new Uint8Array(13)).etherType, -1);
});

Deno.test("extension headers are followed, to the end of those that every fragment has, and to home addresses", () => {
  const bytes = buildFrame({
    ip: 6,
    transport: "udp",
    payload: pattern(9),
    extensions: [
      extension(IPPROTO_HOPOPTS, 1, 1, 4),
      extension(IPPROTO_DSTOPTS, 1, 1, 4),
      extension(IPPROTO_ROUTING, 3, 2, 1, 0, 0, 0, 0, ...HOME),
      extension(IPPROTO_DSTOPTS, 3, 0, 1, 1, 0, 0xc9, 16, ...HOME),
    ],
  });
  const layout = layoutOf(bytes);
  assertEquals(layout.extensions, true);
  assertEquals(layout.routed, true);
  assertEquals(layout.fragmentOffset, 54 + 8 + 8 + 24);
  assertEquals(layout.nextHeaderOffset, 54 + 8 + 8);
  assertEquals(layout.transportOffset, 54 + 8 + 8 + 24 + 24);
  assertEquals(layout.transport, IPPROTO_UDP);
  assertEquals(layout.routingAddressOffset, 54 + 8 + 8 + 8);
  assertEquals(layout.homeAddressOffset, 54 + 8 + 8 + 24 + 8);
});

Deno.test("a routing header that has been used up, or of another type, is no detour and no home address", () => {
  const used = layoutOf(buildFrame({
    ip: 6,
    extensions: [extension(IPPROTO_ROUTING, 3, 4, 0, 0, 0, 0, 0, ...HOME)],
  }));
  assertEquals([used.routed, used.routingAddressOffset, used.transport], [false, 0, IPPROTO_TCP]);
});

Deno.test("more than 8 extension headers are not followed", () => {
  const headers = (count: number) => new Array(count).fill(extension(IPPROTO_DSTOPTS, 1, 1, 4));
  assertEquals(layoutOf(buildFrame({ ip: 6, extensions: headers(8) })).transport, IPPROTO_TCP);
  const nine = layoutOf(buildFrame({ ip: 6, extensions: headers(9) }));
  assertEquals([nine.transport, nine.protocol, nine.transportOffset], [-1, -1, 0]);
});

Deno.test("of fragments only the first has a transport", () => {
  for (
    const [fragment, is, transport] of [
      [0x2000, true, IPPROTO_TCP],
      [0x2001, true, -1],
      [0x0001, true, -1],
      [0x4000, false, IPPROTO_TCP],
      [0x8000, false, IPPROTO_TCP],
    ] as const
  ) {
    const four = layoutOf(buildFrame({ ip: 4, fragment }));
    assertEquals([four.fragment, four.transport], [is, transport], `IPv4 ${fragment.toString(16)}`);
    assertEquals(four.protocol, IPPROTO_TCP);
  }
  for (
    const [place, transport] of [[1, IPPROTO_TCP], [0, IPPROTO_TCP], [8, -1], [9, -1]] as const
  ) {
    const six = layoutOf(buildFrame({
      ip: 6,
      extensions: [{ type: IPPROTO_FRAGMENT, bytes: [0, 0, 0, place, 1, 2, 3, 4] }],
    }));
    assertEquals([six.fragment, six.transport, six.protocol], [true, transport, IPPROTO_TCP]);
    assertEquals([six.fragmentOffset, six.transportOffset], [54, 62]);
  }
});

Deno.test("lengths: 0 reaches to the end of the frame, too many bytes are cut off, less than a header is no packet", () => {
  const bytes = buildFrame({ ip: 4, payload: pattern(10), padding: 5 });
  const view = viewOf(bytes);
  const layout = new FrameLayout();
  view.setUint16(16, 0);
  assertEquals(layout.parse(view, bytes.length).end, bytes.length);
  assertEquals(layout.transport, IPPROTO_TCP);
  view.setUint16(16, 0xffff);
  assertEquals(layout.parse(view, bytes.length).end, bytes.length);
  assertEquals(layout.truncated, true);
  view.setUint16(16, 19);
  assertEquals(layout.parse(view, bytes.length).ipVersion, 0);
  view.setUint16(16, 30);
  // The TCP header does not fit into the packet, although the bytes behind it would do.
  assertEquals([layout.parse(view, bytes.length).ipVersion, layout.transport], [4, -1]);
});

Deno.test("headers that cannot be are not found", () => {
  const layout = new FrameLayout();
  const four = buildFrame({ ip: 4, transport: "tcp" });
  four[14] = 0x44;
  assertEquals(layout.parse(viewOf(four), four.length).ipVersion, 0);
  four[14] = 0x65;
  assertEquals(layout.parse(viewOf(four), four.length).ipVersion, 0);
  const tcp = buildFrame({ ip: 4, transport: "tcp" });
  tcp[14 + 20 + 12] = 0x40;
  assertEquals(layout.parse(viewOf(tcp), tcp.length).transport, -1);
  tcp[14 + 20 + 12] = 0x60;
  assertEquals(layout.parse(viewOf(tcp), tcp.length).transport, -1);
  const six = buildFrame({ ip: 6, transport: "udp" });
  six[14] = 0x40;
  assertEquals(layout.parse(viewOf(six), six.length).ipVersion, 0);
  // ICMP belongs to IPv4 and ICMPv6 to IPv6.
  assertEquals(layoutOf(buildFrame({ ip: 6, transport: 1, payload: pattern(8) })).transport, -1);
  assertEquals(layoutOf(buildFrame({ ip: 4, transport: 58, payload: pattern(8) })).transport, -1);
});

const spec: fc.Arbitrary<FrameSpec> = fc.record({
  ip: fc.constantFrom<4 | 6 | "arp">(4, 6, "arp"),
  transport: fc.constantFrom<"tcp" | "udp" | "icmp" | number>("tcp", "udp", "icmp", 47),
  tags: fc.array(fc.nat(0xffff), { maxLength: 3 }),
  payload: fc.uint8Array({ maxLength: 60 }),
  extensions: fc.array(
    fc.tuple(fc.constantFrom(0, 43, 44, 60), fc.array(fc.nat(255), { maxLength: 22 })).map((
      [type, bytes],
    ) =>
      type === 44 ? { type, bytes: [0, ...pattern(7, bytes[0])] } : extension(type, 3, ...bytes)
    ),
    { maxLength: 4 },
  ),
});

/** The names of a layout's fields that are offsets, which have to be inside of what was looked at. */
const OFFSETS = [
  "networkOffset",
  "fragmentOffset",
  "transportOffset",
  "payloadOffset",
] as const;

Deno.test("random bytes, broken frames and frames cut off: parse never throws and nothing that it reports is outside", () => {
  const broken = fc.tuple(spec, fc.array(fc.tuple(fc.nat(), fc.nat(255)), { maxLength: 4 })).map(
    ([spec, changes]) => {
      const bytes = buildFrame(spec);
      for (const [at, value] of changes) bytes[at % bytes.length] = value;
      return bytes;
    },
  );
  const layout = new FrameLayout();
  fc.assert(
    fc.property(fc.oneof(fc.uint8Array({ maxLength: 90 }), broken), fc.nat(), (bytes, cut) => {
      const available = cut % (bytes.length + 1);
      // A view of just these bytes throws if one behind them is read.
      layout.parse(viewOf(bytes.subarray(0, available)), available, bytes.length);
      for (const name of OFFSETS) assertEquals(layout[name] <= Math.max(available, 0), true, name);
      assertEquals(layout.end <= bytes.length, true);
      for (const name of ["homeAddressOffset", "routingAddressOffset"] as const) {
        if (layout[name] !== 0) assertEquals(layout[name] + 16 <= available, true, name);
      }
      if (layout.transport >= 0) {
        assertEquals(layout.payloadOffset > layout.transportOffset, true);
        assertEquals(layout.payloadOffset <= layout.end, true);
      }
    }),
    { numRuns: 3000 },
  );
});

Deno.test("a head is enough: with the headers in it, the layout is that of the whole frame", () => {
  fc.assert(fc.property(spec, (spec) => {
    const bytes = buildFrame({ ...spec, payload: pattern(400) });
    const whole = { ...layoutOf(bytes) };
    assertEquals({ ...layoutOf(bytes, 256) }, whole);
  }));
});

Deno.test("one object parses any number of frames: nothing is left of the last", () => {
  fc.assert(fc.property(spec, spec, (first, second) => {
    const [a, b] = [buildFrame(first), buildFrame(second)];
    const used = new FrameLayout().parse(viewOf(a), a.length).parse(viewOf(b), b.length);
    assertEquals({ ...used }, { ...layoutOf(b) });
  }));
});

/** The internet checksum against its definition, and what is done with it. */
import { assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  checksumOffset,
  completeChecksum,
  copyAndSum,
  finish,
  finishUdp,
  fold,
  ipv4HeaderChecksum,
  pseudoHeaderSum,
  sumBytes,
  verifyChecksum,
} from "./checksum.ts";
import { FrameLayout, IPPROTO_TCP } from "./parse.ts";
import { be16, be32, buildFrame, type FrameSpec, naiveSum, pattern, viewOf } from "./testing.ts";

Deno.test("the sum of random bytes at any place and of any length is that of the definition", () => {
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 300 }), fc.nat(7), fc.nat(300), (bytes, from, less) => {
      const start = Math.min(from, bytes.length);
      const stop = Math.max(start, bytes.length - less);
      assertEquals(sumBytes(viewOf(bytes), start, stop), naiveSum(bytes.subarray(start, stop)));
    }),
    { numRuns: 2000 },
  );
});

Deno.test("what is copied while it is summed arrives, and nothing beside it", () => {
  const check = (bytes: Uint8Array, from: number, to: number) => {
    const target = new Uint8Array(bytes.length + to + 1).fill(0xee);
    const sum = copyAndSum(viewOf(bytes), from, viewOf(target), to, bytes.length - from);
    assertEquals(sum, naiveSum(bytes.subarray(from)));
    assertEquals(target.subarray(to, -1 - from), bytes.subarray(from));
    assertEquals(target.subarray(0, to).every((byte) => byte === 0xee), true);
    assertEquals(target.subarray(to + bytes.length - from).every((byte) => byte === 0xee), true);
  };
  fc.assert(
    fc.property(fc.uint8Array({ maxLength: 200 }), fc.nat(9), fc.nat(9), (bytes, from, to) => {
      check(bytes, Math.min(from, bytes.length), to);
    }),
    { numRuns: 1000 },
  );
  for (const length of [65_535, 65_536, 65_551, 65_553, 140_001]) {
    check(new Uint8Array(length).fill(0xff), 0, 3);
    check(pattern(length, 9), 1, 0);
  }
  const small = viewOf(new Uint8Array(30));
  assertThrows(() => copyAndSum(viewOf(pattern(40)), 0, small, 0, 31), RangeError);
  assertThrows(() => copyAndSum(small, 0, viewOf(pattern(40)), 0, 31), RangeError);
});

Deno.test("large and extreme sums do not lose a carry", () => {
  for (const length of [65_535, 65_536, 65_537, 65_557, 200_001]) {
    for (const bytes of [new Uint8Array(length).fill(0xff), pattern(length, 3)]) {
      assertEquals(sumBytes(viewOf(bytes), 0, length), naiveSum(bytes), `${length} bytes`);
    }
  }
  assertEquals(sumBytes(viewOf(new Uint8Array(100)), 0, 100), 0);
});

Deno.test("nothing outside of the view is summed", () => {
  for (const to of [9, 17, 40]) {
    assertThrows(() => sumBytes(viewOf(new Uint8Array(8)), 0, to), RangeError);
  }
});

Deno.test("fold keeps what a sum stands for", () => {
  fc.assert(fc.property(fc.maxSafeNat(), (sum) => {
    const small = sum % 2 ** 47;
    const folded = fold(small);
    assertEquals(folded <= 0xffff && folded >= 0, true);
    assertEquals(folded % 0xffff, small % 0xffff);
    assertEquals(folded === 0, small === 0);
  }));
  assertEquals(fold(0xffff_ffff), 0xffff);
  assertEquals(fold(0x1_ffff_fffe), 0xffff);
});

Deno.test("the checksum in the examples of RFC 1071 and of an IPv4 header", () => {
  const rfc = Uint8Array.of(0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7);
  assertEquals(sumBytes(viewOf(rfc), 0, 8), 0xddf2);
  assertEquals(finish(0xddf2), 0x220d);
  // A header that was taken from the wire: 172.16.10.99 to 172.16.10.12.
  const header = Uint8Array.of(
    ...[0x45, 0, 0, 0x3c, 0x1c, 0x46, 0x40, 0, 0x40, 6, 0xb1, 0xe6],
    ...[0xac, 0x10, 0x0a, 0x63, 0xac, 0x10, 0x0a, 0x0c],
  );
  assertEquals(ipv4HeaderChecksum(viewOf(header), 0, 20), 0xb1e6);
});

const kinds: FrameSpec[] = ([4, 6] as const).flatMap((ip) =>
  (["tcp", "udp", "icmp"] as const).map((transport) => ({ ip, transport }))
);

Deno.test("the IPv4 header checksum covers the options and not itself", () => {
  fc.assert(fc.property(fc.nat(0xffff), fc.nat(0xffff), (id, garbage) => {
    const bytes = buildFrame({ ip: 4, id, ipOptions: [7, 7, 4, 0, 1, 2, 3, id & 0xff] });
    const view = viewOf(bytes);
    const right = view.getUint16(24);
    view.setUint16(24, garbage);
    assertEquals(ipv4HeaderChecksum(view, 14, 28), right);
  }));
});

Deno.test("completing a partial checksum gives the full one; UDP writes 0 as 0xffff", () => {
  fc.assert(
    fc.property(fc.constantFrom(...kinds), fc.uint8Array({ maxLength: 80 }), (kind, payload) => {
      const full = buildFrame({ ...kind, payload });
      const partial = buildFrame({ ...kind, payload, checksum: "partial" });
      const layout = new FrameLayout().parse(viewOf(partial), partial.length);
      const field = checksumOffset(layout.transport);
      assertEquals(
        completeChecksum(
          viewOf(partial),
          partial.length,
          layout.transportOffset,
          field,
          kind.transport === "udp",
        ),
        true,
      );
      assertEquals(partial, full);
    }),
  );
  assertEquals([finish(0xffff), finishUdp(0xffff), finishUdp(1)], [0, 0xffff, 0xfffe]);
});

Deno.test("a UDP datagram whose checksum comes out as 0 is sent with 0xffff", () => {
  const build = (word: number) =>
    buildFrame({
      ip: 4,
      transport: "udp",
      payload: Uint8Array.from(be16(word)),
      checksum: "partial",
    });
  // Whatever is missing to ones in all places.
  const word = ~naiveSum(build(0).subarray(34)) & 0xffff;
  const bytes = build(word);
  completeChecksum(viewOf(bytes), bytes.length, 34, 6, true);
  assertEquals(viewOf(bytes).getUint16(40), 0xffff);
  const tcpLike = build(word);
  completeChecksum(viewOf(tcpLike), tcpLike.length, 34, 6, false);
  assertEquals(viewOf(tcpLike).getUint16(40), 0);
});

Deno.test("0 in a UDP header is no checksum, even where it would add up", () => {
  const build = (word: number) =>
    buildFrame({ ip: 4, transport: "udp", payload: Uint8Array.from(be16(word)) });
  const bytes = build(viewOf(build(0)).getUint16(40));
  assertEquals(viewOf(bytes).getUint16(40), 0xffff);
  assertEquals(verified(bytes), true);
  viewOf(bytes).setUint16(40, 0);
  assertEquals(verified(bytes), false);
});

Deno.test("a checksum behind the end of the frame is not written", () => {
  const bytes = new Uint8Array(80);
  const view = viewOf(bytes);
  for (const [start, offset] of [[60, 0], [58, 1], [0xffff, 0xffff], [59, 0], [0, 59], [-2, 4]]) {
    assertEquals(completeChecksum(view, 60, start!, offset!, false), false);
  }
  assertEquals(bytes, new Uint8Array(80));
  assertEquals(completeChecksum(view, 60, 58, 0, false), true);
  assertEquals(view.getUint16(58), 0xffff);
});

Deno.test("the pseudo header of IPv4 and IPv6", () => {
  const four = buildFrame({ ip: 4, tags: [3] });
  const six = buildFrame({ ip: 6 });
  const sum = (bytes: Uint8Array) =>
    pseudoHeaderSum(viewOf(bytes), new FrameLayout().parse(viewOf(bytes), bytes.length), 6, 0xfffe);
  assertEquals(sum(four), naiveSum([...four.subarray(30, 38), 0, 6, ...be16(0xfffe)]));
  assertEquals(sum(six), naiveSum([...six.subarray(22, 54), ...be32(0xfffe), ...be32(6)]));
});

function verified(bytes: Uint8Array): boolean {
  return verifyChecksum(viewOf(bytes), new FrameLayout().parse(viewOf(bytes), bytes.length));
}

Deno.test("right checksums are found right, and any change of one bit is noticed", () => {
  fc.assert(
    fc.property(
      fc.constantFrom(...kinds),
      fc.uint8Array({ minLength: 1, maxLength: 80 }),
      fc.nat(),
      fc.nat(7),
      (kind, payload, place, bit) => {
        const bytes = buildFrame({ ...kind, payload, padding: 3 });
        assertEquals(verified(bytes), true);
        const at = bytes.length - 3 - payload.length + place % payload.length;
        bytes[at]! ^= 1 << bit;
        assertEquals(verified(bytes), false);
        bytes[at]! ^= 1 << bit;
        // An address, which is in the pseudo header or in that of IPv4.
        bytes[14 + 19]! ^= 1 << bit;
        assertEquals(verified(bytes), false);
      },
    ),
  );
});

Deno.test("nothing is said about fragments, detours, missing checksums, packets cut off and unknown protocols", () => {
  assertEquals(verified(buildFrame({ ip: 4, transport: "udp", checksum: "none" })), false);
  assertEquals(verified(buildFrame({ ip: 4, fragment: 0x2000 })), false);
  assertEquals(verified(buildFrame({ ip: 4, transport: 47, payload: pattern(40) })), false);
  assertEquals(verified(buildFrame({ ip: "arp", payload: pattern(40) })), false);
  const cut = buildFrame({ ip: 6, payload: pattern(40) });
  assertEquals(verified(cut.subarray(0, cut.length - 1)), false);
  const routing = { type: 43, bytes: [0, 2, 2, 1, ...new Array(20).fill(0)] };
  assertEquals(verified(buildFrame({ ip: 6, extensions: [routing] })), false);
  const jumbo = buildFrame({ ip: 4, payload: pattern(40) });
  viewOf(jumbo).setUint16(16, 0);
  assertEquals(verified(jumbo), false);
});

Deno.test("UDP's own length says what is summed, and a wrong one is no right checksum", () => {
  const bytes = buildFrame({ ip: 4, transport: "udp", payload: pattern(40) });
  for (const length of [0, 7, 47, 49, 0xffff]) {
    viewOf(bytes).setUint16(38, length);
    assertEquals(verified(bytes), false);
  }
  viewOf(bytes).setUint16(38, 48);
  assertEquals(verified(bytes), true);
  assertEquals(checksumOffset(IPPROTO_TCP), 16);
  assertEquals(checksumOffset(47), -1);
});

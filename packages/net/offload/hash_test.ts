/** The hash against published vectors and against its definition; which fields it takes of which packet (5.1.9.4.3). */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  HASH_KEY_SIZE,
  HASH_TYPES,
  PacketHash,
  VIRTIO_NET_HASH_REPORT_IPv4,
  VIRTIO_NET_HASH_REPORT_IPv6,
  VIRTIO_NET_HASH_REPORT_IPv6_EX,
  VIRTIO_NET_HASH_REPORT_NONE,
  VIRTIO_NET_HASH_REPORT_TCPv4,
  VIRTIO_NET_HASH_REPORT_TCPv6,
  VIRTIO_NET_HASH_REPORT_TCPv6_EX,
  VIRTIO_NET_HASH_REPORT_UDPv4,
  VIRTIO_NET_HASH_REPORT_UDPv6,
  VIRTIO_NET_HASH_REPORT_UDPv6_EX,
  VIRTIO_NET_HASH_TYPE_IP_EX,
  VIRTIO_NET_HASH_TYPE_IPv4,
  VIRTIO_NET_HASH_TYPE_IPv6,
  VIRTIO_NET_HASH_TYPE_TCP_EX,
  VIRTIO_NET_HASH_TYPE_TCPv4,
  VIRTIO_NET_HASH_TYPE_TCPv6,
  VIRTIO_NET_HASH_TYPE_UDP_EX,
  VIRTIO_NET_HASH_TYPE_UDPv4,
  VIRTIO_NET_HASH_TYPE_UDPv6,
} from "./hash.ts";
import { FrameLayout } from "./parse.ts";
import { be16, buildFrame, type FrameSpec, pattern, viewOf } from "./testing.ts";

/** The key that comes with the vectors which are published for receive-side scaling. */
const KEY = Uint8Array.from(
  "6d5a56da255b0ec24167253d43a38fb0d0ca2bcbae7b30b477cb2da38030f20c6a42b73bbeac01fa".match(/../g)!,
  (pair) => parseInt(pair, 16),
);

/** The definition: for each 1 in the input, the 32 bits of the key that begin there. */
function naive(key: Uint8Array, input: readonly number[]): number {
  const bit = (i: number) => ((key[i >> 3] ?? 0) >> (7 - (i & 7))) & 1;
  let hash = 0;
  input.forEach((byte, i) => {
    for (let j = 0; j < 8; j++) {
      if (((byte >> (7 - j)) & 1) === 0) continue;
      let window = 0;
      for (let k = 0; k < 32; k++) window = (window << 1) | bit(8 * i + j + k);
      hash ^= window;
    }
  });
  return hash >>> 0;
}

function hashOf(spec: FrameSpec, types: number, key: Uint8Array = KEY): [number, number] {
  const hash = new PacketHash();
  hash.setKey(key);
  hash.types = types;
  const bytes = buildFrame(spec);
  const report = hash.calculate(
    viewOf(bytes),
    new FrameLayout().parse(viewOf(bytes), bytes.length),
  );
  assertEquals(report, hash.report);
  return [report, hash.value];
}

function four(text: string): number[] {
  return text.split(".").map(Number);
}

function six(text: string): number[] {
  const [left, right] = text.split("::").map((half) =>
    half === "" ? [] : half.split(":").map((word) => parseInt(word, 16))
  );
  const words = right === undefined
    ? left!
    : [...left!, ...new Array(8 - left!.length - right.length).fill(0), ...right];
  return words.flatMap(be16);
}

Deno.test("the published vectors: IPv4 and IPv6, with and without ports", () => {
  const vectors: [4 | 6, string, number, string, number, ip: number, tcp: number][] = [
    [4, "66.9.149.187", 2794, "161.142.100.80", 1766, 0x323e8fc2, 0x51ccc178],
    [4, "199.92.111.2", 14230, "65.69.140.83", 4739, 0xd718262a, 0xc626b0ea],
    [4, "24.19.198.95", 12898, "12.22.207.184", 38024, 0xd2d0a5de, 0x5c2b394a],
    [4, "38.27.205.30", 48228, "209.142.163.6", 2217, 0x82989176, 0xafc7327f],
    [4, "153.39.163.191", 44251, "202.188.127.2", 1303, 0x5d1809c5, 0x10e828a2],
    [6, "3ffe:2501:200:1fff::7", 2794, "3ffe:2501:200:3::1", 1766, 0x2cc18cd5, 0x40207d3d],
    [6, "3ffe:501:8::260:97ff:fe40:efab", 14230, "ff02::1", 4739, 0x0f0c461c, 0xdde51bbf],
    [
      6,
      "3ffe:1900:4545:3:200:f8ff:fe21:67cf",
      44251,
      "fe80::200:f8ff:fe21:67cf",
      38024,
      0x4b61e985,
      0x02d1feef,
    ],
  ];
  for (const [ip, from, sourcePort, to, destinationPort, addresses, ports] of vectors) {
    const parse = ip === 4 ? four : six;
    const spec = { ip, source: parse(from), destination: parse(to), sourcePort, destinationPort };
    const v4 = ip === 4;
    for (const transport of ["tcp", "udp"] as const) {
      const [, value] = hashOf({ ...spec, transport }, HASH_TYPES);
      assertEquals(value.toString(16), ports.toString(16));
    }
    assertEquals(hashOf(spec, v4 ? VIRTIO_NET_HASH_TYPE_IPv4 : VIRTIO_NET_HASH_TYPE_IPv6), [
      v4 ? VIRTIO_NET_HASH_REPORT_IPv4 : VIRTIO_NET_HASH_REPORT_IPv6,
      addresses,
    ]);
  }
});

const addresses = { source: pattern16(1), destination: pattern16(2) };

function pattern16(seed: number): number[] {
  return [...pattern(16, seed)];
}

Deno.test("any key, any addresses, any ports: the definition; keys that are too short count as if zeros followed", () => {
  const key = fc.uint8Array({ maxLength: HASH_KEY_SIZE + 8 });
  const bytes16 = fc.array(fc.nat(255), { minLength: 16, maxLength: 16 });
  fc.assert(
    fc.property(key, bytes16, bytes16, fc.nat(0xffff), fc.nat(0xffff), (key, a, b, c, d) => {
      const spec: FrameSpec = {
        ip: 6,
        source: a,
        destination: b,
        sourcePort: c,
        destinationPort: d,
      };
      const [, value] = hashOf(spec, VIRTIO_NET_HASH_TYPE_TCPv6, key);
      assertEquals(value, naive(key, [...a, ...b, ...be16(c), ...be16(d)]));
    }),
  );
});

Deno.test("a new key replaces the old one", () => {
  const hash = new PacketHash();
  hash.types = HASH_TYPES;
  const bytes = buildFrame({ ip: 4 });
  const layout = new FrameLayout().parse(viewOf(bytes), bytes.length);
  hash.setKey(KEY);
  hash.calculate(viewOf(bytes), layout);
  const first = hash.value;
  hash.setKey(new Uint8Array(40));
  hash.calculate(viewOf(bytes), layout);
  assertEquals(hash.value, 0);
  hash.setKey(KEY);
  hash.calculate(viewOf(bytes), layout);
  assertEquals(hash.value, first);
});

Deno.test("which type is taken: ports before addresses, only what is enabled, nothing else", () => {
  const cases: [FrameSpec, types: number, report: number][] = [
    [{ ip: 4 }, VIRTIO_NET_HASH_TYPE_TCPv4, VIRTIO_NET_HASH_REPORT_TCPv4],
    [{ ip: 4 }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_TCPv4],
    [{ ip: 4 }, VIRTIO_NET_HASH_TYPE_UDPv4, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 4 }, HASH_TYPES & ~VIRTIO_NET_HASH_TYPE_TCPv4, VIRTIO_NET_HASH_REPORT_IPv4],
    [{ ip: 4, transport: "udp" }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_UDPv4],
    [{ ip: 4, transport: "udp" }, VIRTIO_NET_HASH_TYPE_UDPv4, VIRTIO_NET_HASH_REPORT_UDPv4],
    [{ ip: 4, transport: "udp" }, VIRTIO_NET_HASH_TYPE_TCPv4, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 4, transport: "icmp" }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_IPv4],
    [{ ip: 4, fragment: 0x2000 }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_IPv4],
    [{ ip: 4, fragment: 0x0100 }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_IPv4],
    [{ ip: 4, fragment: 0x2000 }, VIRTIO_NET_HASH_TYPE_TCPv4, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 6 }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_TCPv6],
    [{ ip: 6 }, HASH_TYPES & ~VIRTIO_NET_HASH_TYPE_TCPv6, VIRTIO_NET_HASH_REPORT_IPv6],
    // Without extension headers the types for them say nothing.
    [
      { ip: 6 },
      VIRTIO_NET_HASH_TYPE_TCP_EX | VIRTIO_NET_HASH_TYPE_IP_EX,
      VIRTIO_NET_HASH_REPORT_NONE,
    ],
    [{ ip: 6, transport: "udp" }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_UDPv6],
    [{ ip: 6, transport: "udp" }, VIRTIO_NET_HASH_TYPE_UDPv6, VIRTIO_NET_HASH_REPORT_UDPv6],
    [{ ip: 6, transport: "udp" }, VIRTIO_NET_HASH_TYPE_TCPv6, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 6, transport: "icmp" }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_IPv6],
    [{ ip: "arp", payload: pattern(28) }, HASH_TYPES, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 4 }, 0, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 6 }, 0, VIRTIO_NET_HASH_REPORT_NONE],
    [{ ip: 4 }, 0xffff_fe00 | 0, VIRTIO_NET_HASH_REPORT_NONE],
  ];
  for (const [spec, types, report] of cases) {
    const [found, value] = hashOf(spec, types);
    assertEquals(found, report, `${JSON.stringify(spec)} with ${types}`);
    if (report === VIRTIO_NET_HASH_REPORT_NONE) assertEquals(value, 0);
    // The rule that ties the two together (5.1.9.4.5).
    else assertEquals(types & (1 << (report - 1)), 1 << (report - 1));
  }
});

const HOME = pattern16(3);
const LAST = pattern16(4);
const destinationOptions = { type: 60, bytes: [0, 2, 1, 2, 0, 0, 0xc9, 16, ...HOME].slice(0, 24) };
const routing = { type: 43, bytes: [0, 2, 2, 1, 0, 0, 0, 0, ...LAST] };
const other = { type: 0, bytes: [0, 0, 1, 4, 0, 0, 0, 0] };

Deno.test("extension headers: home addresses take the place of the addresses, if there are any", () => {
  const all = { ip: 6, ...addresses, extensions: [routing, destinationOptions] } as const;
  const ports = [...be16(40000), ...be16(80)];
  const { source, destination } = addresses;
  for (
    const [transport, own, report] of [
      ["tcp", VIRTIO_NET_HASH_TYPE_TCP_EX, VIRTIO_NET_HASH_REPORT_TCPv6_EX],
      ["udp", VIRTIO_NET_HASH_TYPE_UDP_EX, VIRTIO_NET_HASH_REPORT_UDPv6_EX],
    ] as const
  ) {
    for (const types of [own, HASH_TYPES]) {
      assertEquals(hashOf({ ...all, transport }, types), [
        report,
        naive(KEY, [...HOME, ...LAST, ...ports]),
      ]);
      assertEquals(hashOf({ ...all, transport, extensions: [other] }, types), [
        report,
        naive(KEY, [...source, ...destination, ...ports]),
      ]);
      assertEquals(hashOf({ ...all, transport, extensions: [routing] }, types), [
        report,
        naive(KEY, [...source, ...LAST, ...ports]),
      ]);
      assertEquals(hashOf({ ...all, transport, extensions: [destinationOptions] }, types), [
        report,
        naive(KEY, [...HOME, ...destination, ...ports]),
      ]);
    }
    assertEquals(hashOf({ ...all, transport }, VIRTIO_NET_HASH_TYPE_IP_EX), [
      VIRTIO_NET_HASH_REPORT_IPv6_EX,
      naive(KEY, [...HOME, ...LAST]),
    ]);
  }
});

Deno.test("extension headers without their types: as if they were not there", () => {
  const spec = { ip: 6, ...addresses, extensions: [routing, destinationOptions] } as const;
  const { source, destination } = addresses;
  const input = [...source, ...destination];
  assertEquals(hashOf(spec, VIRTIO_NET_HASH_TYPE_TCPv6 | VIRTIO_NET_HASH_TYPE_UDP_EX), [
    VIRTIO_NET_HASH_REPORT_TCPv6,
    naive(KEY, [...input, ...be16(40000), ...be16(80)]),
  ]);
  assertEquals(hashOf(spec, VIRTIO_NET_HASH_TYPE_IPv6), [
    VIRTIO_NET_HASH_REPORT_IPv6,
    naive(KEY, input),
  ]);
  const fragment = { type: 44, bytes: [0, 0, 0, 1, 0, 0, 0, 9] };
  assertEquals(hashOf({ ...spec, extensions: [fragment] }, HASH_TYPES), [
    VIRTIO_NET_HASH_REPORT_IPv6_EX,
    naive(KEY, input),
  ]);
});

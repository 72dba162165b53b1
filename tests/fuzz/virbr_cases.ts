/** Cases of fuzzing a network of guests: what guests send, mostly right, and what the outside answers. */
import fc from "fast-check";

/** Damage to a frame: bytes that are changed, and where it is cut off. */
export interface Damage {
  /** Places, as parts of the length of 1000, and what is put there. */
  readonly bytes: readonly (readonly [number, number])[];
  /** Bytes that are left, as a part of 1000; all if null. */
  readonly cut: number | null;
  /** Whether the sums are made right again: those of IPv4's header and of the transport. */
  readonly repaired: boolean;
}

/** A frame of a guest. */
export interface FrameCase {
  readonly do: "frame";
  /** Which guest. */
  readonly guest: number;
  /** Whose addresses it says it has: its own mostly. */
  readonly as: number;
  readonly content: Content;
  readonly damage: Damage | null;
  /** `flags`, `gso_type`, `gso_size`, `csum_start`, `csum_offset`; nothing is asked for if null. */
  readonly header: readonly number[] | null;
}

/** What a frame is about. */
export type Content =
  | { kind: "arp"; operation: number; target: number }
  | { kind: "echo"; version: 4 | 6; target: number; size: number }
  | { kind: "fragment"; version: 4 | 6; id: number; place: number; size: number; more: boolean }
  | { kind: "udp"; version: 4 | 6; target: number; port: number; size: number }
  | { kind: "icmp"; version: 4 | 6; type: number; code: number; body: readonly number[] }
  | { kind: "extensions"; headers: readonly (readonly [number, number])[]; type: number }
  | { kind: "neighbour"; type: number; target: number; options: readonly number[] }
  | {
    kind: "dhcp";
    type: number;
    address: number;
    requested: number;
    server: boolean;
    options: readonly (readonly [number, readonly number[]])[];
  }
  | { kind: "dns"; version: 4 | 6; name: number; type: number; records: readonly number[] };

/** A frame of the other end of the uplink, in mode "routed": its sender and whom it is for, by number. */
export interface UplinkCase {
  readonly do: "uplink";
  readonly content: "reply" | "request" | "datagram";
  readonly from: number;
  readonly to: number;
  readonly damage: Damage | null;
}

/** What happens. */
export type VirbrStep =
  | FrameCase
  | UplinkCase
  | { do: "wait"; seconds: number }
  | { do: "replug"; guest: number }
  | { do: "up"; guest: number; up: boolean };

/** A case. */
export interface VirbrCase {
  /** Whether the way out is an uplink. */
  readonly routed: boolean;
  readonly ipv6: boolean;
  readonly mtu: number;
  readonly claims: boolean;
  readonly steps: readonly VirbrStep[];
  /** What resolvers of the outside send, one after the other: as it should be, or other bytes. */
  readonly answers: readonly (readonly number[] | null)[];
}

const guest = fc.nat(2);
const target = fc.nat(6);
const byte = fc.nat(255);
const bytes = (most: number) => fc.array(byte, { maxLength: most });
const version = fc.constantFrom<4 | 6>(4, 4, 6);

/** Null mostly, else once in so many times. */
function seldom<T>(arbitrary: fc.Arbitrary<T>, times: number): fc.Arbitrary<T | null> {
  return fc.oneof({ weight: times - 1, arbitrary: fc.constant(null) }, { weight: 1, arbitrary });
}

const content: fc.Arbitrary<Content> = fc.oneof(
  fc.record({
    kind: fc.constant("arp" as const),
    operation: fc.constantFrom(1, 1, 2, 3),
    target,
  }),
  fc.record({
    kind: fc.constant("echo" as const),
    version,
    target,
    size: fc.constantFrom(0, 1, 56, 1400, 4000, 65_000),
  }),
  fc.record({
    kind: fc.constant("fragment" as const),
    version,
    id: fc.nat(2),
    place: fc.oneof({ weight: 4, arbitrary: fc.nat(3) }, { weight: 1, arbitrary: fc.nat(8191) }),
    size: fc.constantFrom(8, 8, 16, 3, 160),
    more: fc.boolean(),
  }),
  fc.record({
    kind: fc.constant("udp" as const),
    version,
    target,
    port: fc.constantFrom(0, 9, 53, 67, 68, 546, 547, 5353),
    size: fc.nat(64),
  }),
  fc.record({
    kind: fc.constant("icmp" as const),
    version,
    type: byte,
    code: fc.constantFrom(0, 0, 3),
    body: bytes(60),
  }),
  fc.record({
    kind: fc.constant("extensions" as const),
    headers: fc.array(fc.tuple(fc.constantFrom(0, 43, 44, 60, 51, 59), fc.nat(3)), {
      maxLength: 8,
    }),
    type: fc.constantFrom(128, 133, 134, 135, 136, 137),
  }),
  fc.record({
    kind: fc.constant("neighbour" as const),
    type: fc.constantFrom(133, 135, 136, 134, 137),
    target,
    options: bytes(32),
  }),
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("dhcp" as const),
      type: fc.oneof(fc.constantFrom(1, 3, 3, 4, 7, 8), byte),
      address: target,
      requested: fc.nat(10),
      server: fc.boolean(),
      options: fc.array(
        fc.tuple(
          fc.oneof(
            { weight: 4, arbitrary: fc.constantFrom(12, 55, 57, 61, 81) },
            { weight: 1, arbitrary: fc.constantFrom(50, 52, 53, 54, 0, 255) },
          ),
          bytes(40),
        ),
        { maxLength: 4 },
      ),
    }),
  },
  {
    weight: 3,
    arbitrary: fc.record({
      kind: fc.constant("dns" as const),
      version,
      name: fc.nat(7),
      type: fc.constantFrom(1, 28, 12, 255, 16, 65),
      records: fc.oneof({ weight: 4, arbitrary: fc.constant([]) }, {
        weight: 1,
        arbitrary: bytes(40),
      }),
    }),
  },
);

const damage: fc.Arbitrary<Damage> = fc.record({
  bytes: fc.array(fc.tuple(fc.nat(999), byte), { maxLength: 4 }),
  cut: seldom(fc.nat(1000), 4),
  repaired: fc.boolean(),
});

const header = fc.tuple(
  byte,
  fc.oneof(fc.constantFrom(0, 1, 3, 4, 5), byte),
  fc.nat(0xffff),
  fc.oneof(fc.constantFrom(34, 54), fc.nat(0xffff)),
  fc.oneof(fc.constantFrom(2, 6, 16), fc.nat(0xffff)),
);

const frame: fc.Arbitrary<FrameCase> = guest.chain((from) =>
  fc.record({
    do: fc.constant("frame" as const),
    guest: fc.constant(from),
    as: fc.oneof({ weight: 12, arbitrary: fc.constant(from) }, { weight: 1, arbitrary: guest }),
    content,
    damage: seldom(damage, 8),
    header: seldom(header, 10),
  })
);

const step: fc.Arbitrary<VirbrStep> = fc.oneof(
  { weight: 20, arbitrary: frame },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("uplink" as const),
      content: fc.constantFrom("reply" as const, "request" as const, "datagram" as const),
      from: fc.nat(3),
      to: fc.nat(4),
      damage: seldom(damage, 4),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      seconds: fc.constantFrom(1, 31, 301, 3601),
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("replug" as const), guest }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("up" as const),
      guest,
      up: fc.constantFrom(true, true, false),
    }),
  },
);

/** All cases. */
export const virbrCases: fc.Arbitrary<VirbrCase> = fc.record({
  routed: fc.constantFrom(false, false, true),
  ipv6: fc.boolean(),
  mtu: fc.constantFrom(1280, 1500, 1500, 65_535),
  claims: fc.constantFrom(true, true, false),
  steps: fc.array(step, { maxLength: 40 }),
  answers: fc.array(seldom(bytes(80), 3), { maxLength: 6 }),
});

/** Cases of fuzzing a network device: what a driver and a network do, mostly right. */
import fc from "fast-check";
import { rarely, type Wrong } from "./chains.ts";

/** How descriptors are made of something. */
interface Shaped {
  readonly indirect: boolean;
  readonly kick: boolean;
  readonly wrong: Wrong | null;
}

/** A frame to be sent. */
export interface SendCase extends Shaped {
  readonly do: "send";
  readonly pair: number;
  /** Bytes of the frame. */
  readonly length: number;
  /** Lengths of the pieces; the last one takes the rest. */
  readonly cut: readonly number[];
  /** `flags`, `gso_type`, `gso_size`, `csum_start`, `csum_offset`; nothing is asked for if null. */
  readonly header: readonly number[] | null;
}

/** A receive buffer. */
export interface PostCase extends Shaped {
  readonly do: "post";
  readonly pair: number;
  /** Device-writable elements. */
  readonly sizes: readonly number[];
}

/** A control command. */
export interface ControlCase extends Shaped {
  readonly do: "control";
  readonly bytes: readonly number[];
  readonly room: number;
}

/** A frame of the network. */
export interface GiveCase {
  readonly do: "give";
  readonly count: number;
  readonly length: number;
  readonly header: readonly number[] | null;
}

/** What happens. */
export type NetStep =
  | SendCase
  | PostCase
  | ControlCase
  | GiveCase
  | { do: "kick" | "reap"; queue: number }
  | { do: "wait" | "start" | "reset" | "suspend" | "resume" | "move" | "announce" | "echo" }
  | { do: "link"; up: boolean }
  | { do: "offloads"; bits: number }
  | { do: "resetQueue" | "enable"; queue: number }
  | { do: "status" | "features" | "config"; value: number };

/** A case. */
export interface NetCase {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  /** Whether the driver accepts more than one pair. */
  readonly mq: boolean;
  readonly mergeable: boolean;
  readonly hashed: boolean;
  /** Whether it accepts offloads, in both directions. */
  readonly offloads: boolean;
  readonly steps: readonly NetStep[];
}

const pair = fc.oneof({ weight: 3, arbitrary: fc.constant(0) }, {
  weight: 1,
  arbitrary: fc.constant(1),
});

const shaped = {
  indirect: fc.boolean(),
  kick: fc.boolean(),
  wrong: rarely(50),
};

const header = fc.oneof(
  { weight: 3, arbitrary: fc.constant(null) },
  {
    weight: 1,
    arbitrary: fc.tuple(
      fc.constantFrom(0, 1, 1, 1, 2, 3, 8, 255),
      fc.constantFrom(0, 0, 1, 3, 4, 5, 0x81, 0x20, 0xff),
      fc.oneof(fc.constantFrom(0, 1, 8, 100, 0xffff), fc.nat(700)),
      fc.oneof(fc.constantFrom(34, 34, 54, 14, 0, 0xffff), fc.nat(800)),
      fc.oneof(fc.constantFrom(16, 16, 6, 0, 0xffff), fc.nat(100)),
    ),
  },
);

const length = fc.oneof(
  { weight: 8, arbitrary: fc.integer({ min: 60, max: 800 }) },
  { weight: 1, arbitrary: fc.integer({ min: 0, max: 60 }) },
);

const send: fc.Arbitrary<NetStep> = fc.record({
  do: fc.constant("send" as const),
  pair,
  length,
  cut: fc.array(fc.oneof(fc.nat(20), fc.nat(600)), { maxLength: 5 }),
  header,
  ...shaped,
});

const post: fc.Arbitrary<NetStep> = fc.record({
  do: fc.constant("post" as const),
  pair,
  sizes: fc.array(fc.oneof(fc.nat(20), fc.integer({ min: 20, max: 300 })), {
    minLength: 1,
    maxLength: 4,
  }),
  ...shaped,
});

const COMMANDS: readonly (readonly number[])[] = [
  [0, 0, 1],
  [0, 0, 0],
  [0, 5, 1],
  [1, 1, 2, 0, 0, 0, 0, 1],
  [1, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  [2, 0, 1, 0],
  [3, 0],
  [4, 0, 1, 0],
  [4, 0, 2, 0],
  [4, 2, 7, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 1, 2],
  [4, 1, 7, 0, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 2, 0, 2, 5, 6],
  [5, 0, 0, 0, 0, 0, 0, 0, 0, 0],
  [6, 0, 3, 0, 0, 0, 100, 0, 0, 0],
  [6, 1, 3, 0, 0, 0, 100, 0, 0, 0],
  [6, 1, 0, 0, 0, 0, 0, 0, 0, 0],
  [6, 3, 0, 0, 0, 0],
  [8, 0],
  [8, 1, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0],
];

const control: fc.Arbitrary<NetStep> = fc.record({
  do: fc.constant("control" as const),
  bytes: fc.oneof(
    { weight: 6, arbitrary: fc.constantFrom(...COMMANDS) },
    { weight: 1, arbitrary: fc.array(fc.nat(255), { maxLength: 40 }) },
  ),
  room: fc.oneof({ weight: 20, arbitrary: fc.integer({ min: 1, max: 80 }) }, {
    weight: 1,
    arbitrary: fc.constant(0),
  }),
  ...shaped,
});

const give: fc.Arbitrary<NetStep> = fc.record({
  do: fc.constant("give" as const),
  count: fc.integer({ min: 1, max: 6 }),
  length: fc.oneof(
    { weight: 12, arbitrary: fc.integer({ min: 60, max: 1200 }) },
    { weight: 1, arbitrary: fc.constantFrom(14, 9000, 65597) },
  ),
  header,
});

const step: fc.Arbitrary<NetStep> = fc.oneof(
  { weight: 8, arbitrary: send },
  { weight: 10, arbitrary: post },
  { weight: 3, arbitrary: control },
  { weight: 8, arbitrary: give },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constantFrom("kick" as const, "reap" as const),
      queue: fc.nat(5),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ do: "wait" as const }) },
  {
    weight: 2,
    arbitrary: fc.oneof(
      fc.record({
        do: fc.constantFrom(
          "start" as const,
          "reset" as const,
          "suspend" as const,
          "resume" as const,
          "move" as const,
          "announce" as const,
          "echo" as const,
        ),
      }),
      fc.record({ do: fc.constant("link" as const), up: fc.boolean() }),
      fc.record({ do: fc.constant("offloads" as const), bits: fc.nat(127) }),
    ),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constantFrom("resetQueue" as const, "enable" as const),
          queue: fc.nat(5),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constantFrom("status" as const, "features" as const, "config" as const),
          value: fc.oneof(fc.nat(0x1ff), fc.nat(2 ** 31)),
        }),
      },
    ),
  },
);

/** Makes cases. */
export const netCases: fc.Arbitrary<NetCase> = fc.record({
  packed: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  indirect: fc.boolean(),
  mq: fc.boolean(),
  mergeable: fc.boolean(),
  hashed: fc.boolean(),
  offloads: fc.boolean(),
  steps: fc.array(step, { maxLength: 40 }),
});

/** Cases of fuzzing a block device: what a driver does, mostly right. */
import fc from "fast-check";
import { rarely, type Wrong } from "./chains.ts";

/** Sectors of the disk. */
export const SECTORS = 16;

/** One request. */
export interface RequestCase {
  readonly do: "request";
  readonly queue: number;
  readonly type: number;
  readonly sector: number;
  /** Sectors of data, plus a few bytes now and then. */
  readonly sectors: number;
  readonly odd: number;
  /** Lengths of the pieces; the last one takes the rest. */
  readonly cut: readonly number[];
  readonly indirect: boolean;
  readonly kick: boolean;
  readonly wrong: Wrong | null;
}

/** What a driver, or the machine around the device, does. */
export type BlkStep =
  | RequestCase
  | { do: "kick" | "reap"; queue: number }
  | { do: "wait" | "start" | "reset" | "suspend" | "resume" | "move" }
  | { do: "resetQueue" | "disable" | "enable"; queue: number }
  | { do: "status"; value: number }
  | { do: "config"; at: number; value: number }
  | { do: "features"; value: number }
  | { do: "resize"; sectors: number }
  | { do: "hold" | "release" };

/** A case. */
export interface BlkCase {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  /** Whether the back end answers later. */
  readonly later: boolean;
  /** Bits 0 to 23 that the driver accepts, where offered. */
  readonly features: number;
  readonly steps: readonly BlkStep[];
}

const request: fc.Arbitrary<BlkStep> = fc.record({
  do: fc.constant("request" as const),
  queue: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, {
    weight: 1,
    arbitrary: fc.constant(1),
  }),
  type: fc.constantFrom(0, 0, 0, 1, 1, 1, 4, 8, 10, 11, 13, 14, 77, 2 ** 32 - 1),
  sector: fc.oneof(
    { weight: 8, arbitrary: fc.nat(SECTORS - 1) },
    { weight: 1, arbitrary: fc.constantFrom(SECTORS, 2 ** 32 - 1, 2 ** 32, 2 ** 53, 2 ** 55) },
  ),
  sectors: fc.nat(4),
  odd: fc.oneof({ weight: 9, arbitrary: fc.constant(0) }, {
    weight: 1,
    arbitrary: fc.constantFrom(1, 16, 20, 511),
  }),
  cut: fc.array(fc.oneof(fc.nat(20), fc.nat(600)), { maxLength: 6 }),
  indirect: fc.boolean(),
  kick: fc.boolean(),
  wrong: rarely(40),
});

const rare = (common: BlkStep, arbitrary: fc.Arbitrary<BlkStep>): fc.Arbitrary<BlkStep> =>
  fc.oneof({ weight: 3, arbitrary: fc.constant(common) }, { weight: 1, arbitrary });

const step: fc.Arbitrary<BlkStep> = fc.oneof(
  { weight: 12, arbitrary: request },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom("kick" as const, "reap" as const),
      queue: fc.nat(2),
    }),
  },
  { weight: 3, arbitrary: fc.constant({ do: "wait" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "start" as const,
        "reset" as const,
        "suspend" as const,
        "resume" as const,
        "move" as const,
        "hold" as const,
        "release" as const,
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: rare(
      { do: "wait" },
      fc.oneof(
        fc.record({
          do: fc.constantFrom("resetQueue" as const, "disable" as const, "enable" as const),
          queue: fc.nat(2),
        }),
        fc.record({ do: fc.constant("status" as const), value: fc.nat(0x1ff) }),
        fc.record({ do: fc.constant("config" as const), at: fc.nat(80), value: fc.nat(255) }),
        fc.record({ do: fc.constant("features" as const), value: fc.nat(2 ** 31) }),
        fc.record({ do: fc.constant("resize" as const), sectors: fc.nat(SECTORS + 4) }),
      ),
    ),
  },
);

/** Makes cases. */
export const blkCases: fc.Arbitrary<BlkCase> = fc.record({
  packed: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  indirect: fc.boolean(),
  later: fc.boolean(),
  features: fc.oneof(fc.constant(0xff_ffff), fc.nat(0xff_ffff)),
  steps: fc.array(step, { maxLength: 60, size: "max" }),
});

/** Cases for the console target: what a driver, a back end and a user of the console do. */
import fc from "fast-check";
import { rarely, type Wrong } from "./chains.ts";

/** Ports that there may be. */
export const PORTS = 3;
/** Their queues, and those for control. */
export const QUEUES = 2 * PORTS + 2;

/** A chain of the driver. */
export interface ChainStep {
  readonly do: "chain";
  readonly queue: number;
  readonly length: number;
  /** Lengths of the pieces; the last one takes the rest. */
  readonly cut: readonly number[];
  /** Control messages: what they say. */
  readonly id: number;
  readonly event: number;
  readonly value: number;
  readonly indirect: boolean;
  readonly kick: boolean;
  readonly wrong: Wrong | null;
}

/** What happens next. */
export type Step =
  | ChainStep
  | { do: "kick" | "reap" | "resetQueue"; queue: number }
  | { do: "wait" | "start" | "reset" | "suspend" | "resume" | "move" }
  | { do: "status" | "features"; value: number }
  | { do: "config"; at: number; value: number }
  | { do: "input"; port: number; length: number }
  | { do: "allow"; port: number; length: number }
  | { do: "open" | "close" | "add" | "remove"; port: number }
  | { do: "resize"; port: number; length: number };

/** A case. */
export interface ConsoleCase {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  readonly multiport: boolean;
  /** Whether the driver begins as drivers do, and answers what it is told of ports. */
  readonly polite: boolean;
  readonly steps: readonly Step[];
}

const chain: fc.Arbitrary<Step> = fc.record({
  do: fc.constant("chain" as const),
  queue: fc.oneof(
    { weight: 3, arbitrary: fc.nat(QUEUES - 1) },
    { weight: 4, arbitrary: fc.constantFrom(2, 3) },
    { weight: 2, arbitrary: fc.constantFrom(0, 1) },
  ),
  length: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 8, max: 500 })),
  cut: fc.array(fc.nat(40), { maxLength: 4 }),
  id: fc.oneof({ weight: 9, arbitrary: fc.nat(PORTS) }, {
    weight: 1,
    arbitrary: fc.constantFrom(0x8000_0000, 0xffff_ffff),
  }),
  event: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(0, 3, 3, 6, 6) }, {
    weight: 1,
    arbitrary: fc.constantFrom(1, 2, 4, 5, 7, 8, 0xffff),
  }),
  value: fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, {
    weight: 2,
    arbitrary: fc.constantFrom(0, 2, 0xffff),
  }),
  indirect: fc.boolean(),
  kick: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, {
    weight: 1,
    arbitrary: fc.constant(false),
  }),
  wrong: rarely(60),
});

const port = fc.nat(PORTS - 1);
const length = fc.nat(300);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 16, arbitrary: chain },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom("kick" as const, "reap" as const),
      queue: fc.nat(QUEUES),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("input" as const, "allow" as const),
      port,
      length,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "open" as const,
        "close" as const,
        "add" as const,
        "remove" as const,
      ),
      port,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("resize" as const), port, length }) },
  { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "start" as const,
        "reset" as const,
        "suspend" as const,
        "resume" as const,
        "move" as const,
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({ do: fc.constant("resetQueue" as const), queue: fc.nat(QUEUES) }),
      fc.record({
        do: fc.constantFrom("status" as const, "features" as const),
        value: fc.nat(0x1ff),
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("config" as const),
      at: fc.oneof(fc.constant(8), fc.nat(20)),
      value: fc.nat(2),
    }),
  },
);

/** Makes cases. */
export const consoleCases: fc.Arbitrary<ConsoleCase> = fc.record({
  packed: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  indirect: fc.boolean(),
  multiport: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, {
    weight: 1,
    arbitrary: fc.constant(false),
  }),
  polite: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, {
    weight: 1,
    arbitrary: fc.constant(false),
  }),
  steps: fc.array(step, { maxLength: 80, size: "max" }),
});

/** Cases of fuzzing a queue: what the other side does, mostly right. */
import fc from "fast-check";
import { chain, type ChainCase } from "./chains.ts";

/** What the driver does next. */
export type Step =
  | { do: "send"; chain: ChainCase }
  | { do: "pop" | "flush" | "arm" | "suspend" | "reap" | "undo" | "restore" | "abandon" }
  | { do: "push"; which: number; part: number }
  | { do: "forge"; at: number; value: number };

/** A case. */
export interface VringCase {
  readonly packed: boolean;
  readonly size: number;
  readonly indirect: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  /** Whether the driver's side is under test, against a device that forges. */
  readonly driver: boolean;
  readonly steps: readonly Step[];
}

const simple = (kind: Step["do"], weight: number) => ({
  weight,
  arbitrary: fc.record({ do: fc.constant(kind) }) as fc.Arbitrary<Step>,
});

const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 6, arbitrary: fc.record({ do: fc.constant("send" as const), chain }) },
  simple("pop", 7),
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("push" as const),
      which: fc.nat(15),
      part: fc.nat(100),
    }),
  },
  simple("flush", 4),
  simple("arm", 2),
  simple("suspend", 1),
  simple("reap", 4),
  simple("undo", 1),
  simple("restore", 1),
  {
    weight: 1,
    arbitrary: fc.oneof(
      { weight: 20, arbitrary: fc.constant({ do: "reap" as const }) },
      { weight: 1, arbitrary: fc.constant({ do: "abandon" as const }) },
    ),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      { weight: 3, arbitrary: fc.constant({ do: "flush" as const }) },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constant("forge" as const),
          at: fc.nat(0x7fff),
          value: fc.nat(0xffff),
        }),
      },
    ),
  },
);

/** All of them. */
export const vringCases: fc.Arbitrary<VringCase> = fc.record({
  packed: fc.boolean(),
  size: fc.constantFrom(1, 2, 3, 4, 5, 8, 16),
  indirect: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  driver: fc.oneof({ weight: 3, arbitrary: fc.constant(false) }, {
    weight: 1,
    arbitrary: fc.constant(true),
  }),
  steps: fc.array(step, { maxLength: 80, size: "max" }),
}).map((test) => ({
  ...test,
  size: test.packed ? test.size : 2 ** Math.floor(Math.log2(test.size)),
}));

/** Cases of fuzzing a device through its registers: what a driver does, mostly right. */
import fc from "fast-check";
import type { Width } from "./buses.ts";
import { chain, type ChainCase } from "./chains.ts";

/** What the driver does next. */
export type Step =
  | { do: "send"; queue: number; chain: ChainCase; kick: boolean }
  | { do: "kick"; queue: number }
  | { do: "wait" | "start" | "busReset" | "move" | "hold" | "release" | "update" }
  | { do: "status"; value: number }
  /** A write or read of a register that means something; which space is the target's business. */
  | { do: "register"; which: number; width: Width; value: number; write: boolean }
  /** Any access at all. */
  | { do: "access"; space: number; offset: number; width: Width; value: number; write: boolean };

/** A case. */
export interface BusCase {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  readonly notificationData: boolean;
  /** PCI: 0 memory, 1 I/O, 2 both; with MSI-X or not. */
  readonly layout: number;
  readonly msix: boolean;
  readonly steps: readonly Step[];
}

const width = fc.constantFrom<Width>(1, 2, 4, 4);
const value = fc.oneof(
  fc.nat(20),
  fc.nat(0xffff),
  fc.constantFrom(0, 1, 0x80, 0xff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff),
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      queue: fc.nat(1),
      chain,
      kick: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("kick" as const), queue: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "start" as const,
        "busReset" as const,
        "move" as const,
        "hold" as const,
        "release" as const,
        "update" as const,
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("register" as const),
      which: fc.nat(63),
      width,
      value,
      write: fc.constant(false),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
      {
        weight: 1,
        arbitrary: fc.record({ do: fc.constant("status" as const), value: fc.nat(0xff) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          do: fc.constant("register" as const),
          which: fc.nat(63),
          width,
          value,
          write: fc.constant(true),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constant("access" as const),
          space: fc.nat(7),
          offset: fc.oneof(fc.nat(0xff), fc.nat(0x3fff), fc.nat(0xffff_ffff)),
          width,
          value,
          write: fc.boolean(),
        }),
      },
    ),
  },
);

/** All of them. */
export const busCases: fc.Arbitrary<BusCase> = fc.record({
  packed: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  indirect: fc.boolean(),
  notificationData: fc.boolean(),
  layout: fc.nat(2),
  msix: fc.boolean(),
  steps: fc.array(step, { maxLength: 60, size: "max" }),
});

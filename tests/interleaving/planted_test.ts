/** The explorer is worth something: it finds each of these mistakes, planted into the project's own queues. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import { type Access, type Exploration, explore, InterleavingError } from "./explorer.ts";
import { PackedField, type RingCase, ringExploration, SplitField } from "./rings.ts";

const DRIVER_SIDE = 0;
const DEVICE_SIDE = 1;
const split: RingCase = {
  packed: false,
  size: 2,
  eventIdx: true,
  requests: 3,
  batch: 1,
  pair: true,
  quiet: false,
  eager: false,
};
const packed: RingCase = { ...split, packed: true };
/** Id and flags of a descriptor in the packed ring. */
const isPackedFlags = ({ at }: Access): boolean => at < 0x80 && at % 16 >= 12;

type Plant = NonNullable<Exploration["plant"]>;
const late = (side: number, where: (access: Access) => boolean): Plant => (access, on) =>
  on === side && access.kind === "store" && where(access) ? "late" : null;
const plain = (side: number, where: (access: Access) => boolean): Plant => (access, on) =>
  on === side && access.atomic && where(access) ? "plain" : null;

const mistakes: [string, RegExp, RingCase][] = [
  ["the device looks at used_event before it publishes", /for ever/, {
    ...split,
    plant: late(DEVICE_SIDE, ({ at }) => at === SplitField.usedIdx),
  }],
  ["the device looks at the driver's flags before it publishes", /for ever/, {
    ...split,
    eventIdx: false,
    quiet: true,
    plant: late(DEVICE_SIDE, ({ at }) => at === SplitField.usedIdx),
  }],
  ["the driver looks at avail_event before it publishes", /for ever/, {
    ...split,
    pair: false,
    plant: late(DRIVER_SIDE, ({ at }) => at === SplitField.availIdx),
  }],
  ["the device arms and does not look again", /for ever/, {
    ...split,
    pair: false,
    careless: "arm",
  }],
  ["the device arms by flags and does not look again", /for ever/, {
    ...split,
    eventIdx: false,
    pair: false,
    careless: "arm",
  }],
  ["the driver enables interrupts and does not look again", /for ever/, {
    ...split,
    careless: "enableInterrupts",
  }],
  ["the driver enables interrupts by flags and does not look again", /for ever/, {
    ...split,
    eventIdx: false,
    quiet: true,
    careless: "enableInterrupts",
  }],
  ["the device arms after it looked again", /for ever/, {
    ...split,
    pair: false,
    plant: late(DEVICE_SIDE, ({ at }) => at === SplitField.availEvent(2)),
  }],
  ["the used entry is written after the used index", /race|not in flight|seen before/, {
    ...split,
    eager: true,
    plant: late(DEVICE_SIDE, ({ at, size }) => at >= SplitField.usedRing && size === 4),
  }],
  ["the used index is stored without order", /race/, {
    ...split,
    plant: plain(DEVICE_SIDE, ({ at }) => at === SplitField.usedIdx),
  }],
  ["the available index is stored without order", /race/, {
    ...split,
    plant: plain(DRIVER_SIDE, ({ at }) => at === SplitField.availIdx),
  }],
  ["packed: the device looks at the event structure before it publishes", /for ever/, {
    ...packed,
    plant: late(DEVICE_SIDE, isPackedFlags),
  }],
  ["packed: the driver looks at the event structure before it publishes", /for ever/, {
    ...packed,
    pair: false,
    plant: late(DRIVER_SIDE, (access) => access.atomic && isPackedFlags(access)),
  }],
  ["packed: the device arms and does not look again", /for ever/, {
    ...packed,
    pair: false,
    careless: "arm",
  }],
  ["packed: the driver enables interrupts and does not look again", /for ever/, {
    ...packed,
    careless: "enableInterrupts",
  }],
  ["packed: the device takes the driver's wrap bit for set", /for ever/, {
    ...packed,
    plant: ({ kind, at }, side, value) =>
      side === DEVICE_SIDE && kind === "load" && at === PackedField.driverEvent
        ? (value | 0x8000) >>> 0
        : null,
  }],
  ["packed: the used length is written after the flags", /race|wrong used length/, {
    ...packed,
    eager: true,
    plant: late(DEVICE_SIDE, ({ at, size }) => at < 0x80 && at % 16 === 8 && size === 4),
  }],
  ["packed: used flags are stored without order", /race/, {
    ...packed,
    plant: plain(DEVICE_SIDE, isPackedFlags),
  }],
  ["packed: the last descriptor of a batch is made available without order", /race/, {
    ...packed,
    size: 3,
    plant: plain(DRIVER_SIDE, isPackedFlags),
  }],
];

/** Cases without a mistake that were explored already. */
const known = new Set<string>();

for (const [what, reason, test] of mistakes) {
  Deno.test(`a planted mistake is found: ${what}`, () => {
    const error = assertThrows(() => explore(ringExploration(test)), InterleavingError);
    assert(reason.test(error.message), error.message);
    // With the steps that lead there.
    assert(error.message.split("\n").length > 5, error.message);
    // The same case without the mistake is fine.
    const { plant: _plant, careless: _careless, ...fine } = test;
    const key = JSON.stringify(fine);
    if (known.has(key)) return;
    explore(ringExploration(fine));
    known.add(key);
  });
}

Deno.test("the explorer sees every order of two counters, and the lost update among them", () => {
  const results = new Set<number>();
  const programs: Exploration["programs"] = [
    ({ memory }) => {
      const { u16 } = memory.regions[0]!;
      const one = Atomics.load(u16, 0);
      Atomics.store(u16, 0, one + 1);
      // Waits for the other one.
      if (Atomics.load(u16, 4) === 1) results.add(Atomics.load(u16, 0));
    },
    ({ memory }) => {
      const { u16 } = memory.regions[0]!;
      const one = Atomics.load(u16, 0);
      Atomics.store(u16, 0, one + 1);
      Atomics.store(u16, 4, 1);
    },
  ];
  explore({ bytes: 16, programs, racy: () => null, publishes: () => true });
  assertEquals([...results].sort(), [1, 2]);
});

Deno.test("the explorer does not take atomics of unequal widths for an order", () => {
  assertThrows(
    () =>
      explore({
        bytes: 16,
        racy: () => null,
        publishes: () => true,
        programs: [
          ({ memory }) => {
            Atomics.load(memory.regions[0]!.u16, 3);
          },
          ({ memory }) => {
            Atomics.store(memory.regions[0]!.i32, 1, 0x10000);
          },
        ],
      }),
    InterleavingError,
    "unequal ranges",
  );
});

Deno.test("the explorer finds a plain message that nothing orders, and lets one pass that an atomic orders", () => {
  const message = (atomic: boolean): Exploration => ({
    bytes: 16,
    racy: () => null,
    publishes: () => true,
    programs: [
      ({ memory }) => {
        const { view, u16 } = memory.regions[0]!;
        if (Atomics.load(u16, 4) === 1) view.getUint32(0, true);
      },
      ({ memory }) => {
        const { view, u16 } = memory.regions[0]!;
        if (!atomic) Atomics.store(u16, 4, 1);
        view.setUint32(0, 7, true);
        if (atomic) Atomics.store(u16, 4, 1);
      },
    ],
  });
  explore(message(true));
  assertThrows(() => explore(message(false)), InterleavingError, "a data race on byte 0");
});

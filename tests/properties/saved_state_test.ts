/** A block device saved at any point and restored gives the same run; a hostile saved state is refused, or stands for a real one. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport, type SavedMmio } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { PciTransport, type SavedPci } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import {
  FORMATS,
  placeQueue,
  type RawDriver,
  rawDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { begin, turns } from "../hostile/machine.ts";

const BUSES = ["mmio", "pci"] as const;
type Bus = typeof BUSES[number];
const SECTORS = 16;
const MEMORY = 0x4_0000;
const BUFFERS = 0x2_0000;

/** One transport or the other, behind what both can do. */
interface Machine {
  readonly driver: DriverTransport;
  readonly memory: GuestMemory;
  readonly disk: Uint8Array;
  save(): Promise<SavedMmio | SavedPci>;
  restore(saved: unknown): void;
  kick(queue: number): void;
  unpause(): void;
  readonly errors: Error[];
}

function machine(bus: Bus, later: boolean, disk: Uint8Array, bytes?: Uint8Array): Machine {
  const memory = GuestMemory.allocate(MEMORY);
  if (bytes !== undefined) memory.write(0, bytes);
  const backend = new MemoryBackend(disk);
  const device = new BlkDevice({
    backend: later ? new LaterBackend(backend) : backend,
    queueSize: 16,
    queues: 2,
  });
  const errors: Error[] = [];
  const options = {
    memory,
    features: CORE_FEATURES,
    onError: (error: Error) => {
      errors.push(error);
    },
  };
  // Kicks go past the driver's half: after a move it is a fresh one, which has enabled no queue.
  const onMmio = bus === "mmio"
    ? connectMmio((host) => new MmioTransport(device, { ...options, host }))
    : null;
  const onPci = onMmio === null
    ? connectPci((host) => new PciTransport(device, { ...options, host }))
    : null;
  const { transport } = (onMmio ?? onPci)!;
  return {
    driver: (onMmio ?? onPci)!.driver,
    kick: (queue) =>
      onMmio === null
        ? onPci!.transport.barWrite(2, 0x3000, 2, queue)
        : onMmio.transport.write(0x50, 4, queue),
    memory,
    disk,
    errors,
    save: () => transport.save(),
    restore: (saved) => transport.restore(saved as never),
    unpause: () => transport.state.unpause(),
  };
}

const freshDisk = () => new Uint8Array(SECTORS * 512).map((_, i) => (i >> 9) + 1);

interface Step {
  readonly write: boolean;
  readonly sector: number;
  readonly value: number;
  readonly queue: number;
  readonly kick: boolean;
  readonly wait: boolean;
}

const steps: fc.Arbitrary<Step[]> = fc.array(
  fc.record({
    write: fc.boolean(),
    sector: fc.nat(SECTORS - 1),
    value: fc.nat(255),
    queue: fc.nat(1),
    kick: fc.boolean(),
    wait: fc.boolean(),
  }),
  { minLength: 1, maxLength: 20, size: "max" },
);

/**
 * Runs the steps on two queues; before step `at` the device and its memory are moved to another machine.
 *
 * @returns The disk, and the status and first data byte of every request.
 */
async function run(
  bus: Bus,
  features: FeatureSet,
  later: boolean,
  steps: readonly Step[],
  at: number,
): Promise<{ disk: Uint8Array; answers: number[][]; used: number[] }> {
  const packed = (features & 1n << 34n) !== 0n;
  let here = machine(bus, later, freshDisk());
  const configs = [0, 1].map((i) =>
    placeQueue(16, 0x1000 + 0x8000 * i, packed ? "packed" : "split")
  );
  let rings: RawDriver[] = configs.map((config) => rawDriver(here.memory, config, features));
  begin(here.driver, features | (1n << 12n), configs);
  const used = [0, 0];
  const reap = (): void => {
    rings.forEach((ring, i) => used[i]! += ring.takeUsed().length);
  };
  for (const [i, step] of steps.entries()) {
    if (i === at) {
      const saved = structuredClone(await here.save());
      const bytes = new Uint8Array(MEMORY);
      here.memory.read(0, bytes);
      const disk = here.disk;
      const next = machine(bus, later, disk, bytes);
      next.restore(saved);
      next.unpause();
      // The driver is in the memory that moved: its rings are where they were.
      rings = rings.map((ring) => Object.assign(ring, { memory: next.memory }));
      assertEquals(next.driver.readStatus(), 15);
      here = next;
    }
    const base = BUFFERS + 0x400 * i;
    here.memory.fill(base, 0x400);
    here.memory.writeU32(base, step.write ? 1 : 0);
    here.memory.writeU32(base + 8, step.sector);
    here.memory.fill(base + 16, 512, step.write ? step.value : 0xee);
    here.memory.writeU8(base + 528, 0xee);
    rings[step.queue]!.send([
      { address: base, length: 16 },
      { address: base + 16, length: 512, write: !step.write },
      { address: base + 528, length: 1, write: true },
    ]);
    if (step.kick) here.kick(step.queue);
    if (step.wait) {
      await turns(2);
      reap();
    }
    // No more than fits into the rings.
    if (i % 4 === 3) {
      for (const queue of [0, 1]) here.kick(queue);
      await turns(3);
      reap();
    }
  }
  for (const queue of [0, 1]) here.kick(queue);
  await turns(4);
  reap();
  assertEquals(here.errors, []);
  const answers = steps.map((_, i) => {
    const base = BUFFERS + 0x400 * i;
    return [
      here.memory.readU8(base + 528),
      here.memory.readU8(base + 16),
      here.memory.readU8(base + 527),
    ];
  });
  return { disk: here.disk, answers, used };
}

for (const bus of BUSES) {
  for (const [format, ring] of FORMATS) {
    for (const later of [false, true]) {
      const name = `${format} over ${bus}, ${later ? "asynchronous" : "synchronous"} back end`;
      Deno.test(`saved at any point, in the middle of requests too, and restored in another machine, a run goes on as if nothing had happened: ${name}`, async () => {
        await fc.assert(
          fc.asyncProperty(
            steps,
            fc.nat(),
            fc.constantFrom(0n, VIRTIO_F_EVENT_IDX, VIRTIO_F_IN_ORDER),
            async (steps, seed, extra) => {
              const features = ring | extra | VIRTIO_F_INDIRECT_DESC;
              // What overlaps in time may end in any order: each sector is written once or only read.
              const written = new Set<number>();
              const clean = steps.filter(({ write, sector }) => {
                const fine = write ? !written.has(sector) && sector % 2 === 0 : sector % 2 === 1;
                if (fine && write) written.add(sector);
                return fine;
              });
              fc.pre(clean.length > 0);
              const expected = await run(bus, features, later, clean, -1);
              const got = await run(bus, features, later, clean, seed % clean.length);
              assertEquals(got.answers, expected.answers);
              assertEquals(got.used, expected.used);
              assert(got.disk.every((byte, i) => byte === expected.disk[i]));
              assert(got.answers.every(([status]) => status === 0));
            },
          ),
          { numRuns: later ? 8 : 15 },
        );
      });
    }
  }
}

/** Values that a field of a saved state may be replaced with. */
const junk: fc.Arbitrary<unknown> = fc.oneof(
  fc.constantFrom<unknown>(
    null,
    undefined,
    0,
    1,
    -1,
    2,
    15,
    16,
    255,
    256,
    65535,
    65536,
    2 ** 31,
    2 ** 32,
    2 ** 53,
    -0.5,
    NaN,
    Infinity,
    0n,
    1n,
    -1n,
    1n << 63n,
    1n << 64n,
    1n << 200n,
    "",
    "0",
    true,
    false,
    [],
    {},
    [[]],
    () => {},
    Symbol("no"),
    new Uint8Array(3),
    new Date(0),
  ),
  fc.integer(),
  fc.bigInt({ min: 0n, max: 1n << 64n }),
  fc.jsonValue(),
  fc.array(fc.integer(), { maxLength: 4 }),
);

/** Paths to all fields of plain data. */
function paths(value: unknown, prefix: (string | number)[] = []): (string | number)[][] {
  if (typeof value !== "object" || value === null) return [prefix];
  // Long arrays (configuration space, vectors) are all alike.
  const keys = Array.isArray(value)
    ? [...value.keys()].filter((i) => i < 4 || i % 16 === 0)
    : Object.keys(value);
  return [prefix, ...keys.flatMap((key) => paths((value as never)[key], [...prefix, key]))];
}

function replace(value: unknown, path: readonly (string | number)[], by: unknown): unknown {
  if (path.length === 0) return by;
  const [key, ...rest] = path as [string | number, ...(string | number)[]];
  const copy = Array.isArray(value) ? [...value] : { ...value as object };
  (copy as Record<string | number, unknown>)[key] = replace((value as never)[key], rest, by);
  return copy;
}

/** A running device with two queues, saved, with its memory. */
async function sample(
  bus: Bus,
  features: FeatureSet,
): Promise<{ saved: unknown; bytes: Uint8Array }> {
  const here = machine(bus, false, freshDisk());
  const packed = (features & 1n << 34n) !== 0n;
  const configs = [0, 1].map((i) =>
    placeQueue(16, 0x1000 + 0x8000 * i, packed ? "packed" : "split")
  );
  const rings = configs.map((config) => rawDriver(here.memory, config, features));
  begin(here.driver, features | (1n << 12n), configs);
  for (let i = 0; i < 3; i++) {
    rings[0]!.send([{ address: BUFFERS, length: 16 }, {
      address: BUFFERS + 512,
      length: 513,
      write: true,
    }]);
  }
  here.kick(0);
  const saved = structuredClone(await here.save());
  const bytes = new Uint8Array(MEMORY);
  here.memory.read(0, bytes);
  return { saved, bytes };
}

/** Restores what may be rubbish: it is refused with a TypeError or RangeError, or the device can be worked with. */
async function tryRestore(
  bus: Bus,
  saved: unknown,
  bytes: Uint8Array,
  name: string,
): Promise<boolean> {
  const here = machine(bus, false, freshDisk(), bytes);
  let refused = false;
  try {
    here.restore(saved);
  } catch (error) {
    if (!(error instanceof TypeError || error instanceof RangeError)) throw error;
    // A sentence, and not what the engine says of a missing check.
    assert(
      !/Cannot (read|convert|mix|destructure|set)|not iterable|is not a/.test(error.message),
      `${name}: ${error.message}`,
    );
    refused = true;
    assertEquals(here.driver.readStatus(), 0, `${name}: nothing was taken over`);
  }
  if (!refused) {
    here.unpause();
    for (const queue of [0, 1, 2]) here.kick(queue);
    await turns(1);
  }
  // Whatever it was: the device works after a reset.
  here.driver.writeStatus(0);
  await turns(1);
  assertEquals(here.driver.readStatus(), 0, name);
  const config = placeQueue(16, 0x1000, "split");
  const ring = rawDriver(here.memory, config, 0n);
  begin(here.driver, 0n, [config]);
  assertEquals(here.driver.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0, name);
  here.memory.fill(BUFFERS, 16);
  ring.send([{ address: BUFFERS, length: 16 }, {
    address: BUFFERS + 512,
    length: 513,
    write: true,
  }]);
  here.kick(0);
  assertEquals(ring.takeUsed().map(({ length }) => length), [513], name);
  return refused;
}

for (const bus of BUSES) {
  for (const [format, ring] of FORMATS) {
    Deno.test(`a saved state with one field replaced is refused, or stands for one that could be: ${format} over ${bus}`, async () => {
      const { saved, bytes } = await sample(bus, ring);
      const all = paths(saved);
      assert(all.length > 30, `${all.length} fields`);
      assertEquals(await tryRestore(bus, saved, bytes, "unchanged"), false);
      let refused = 0;
      await fc.assert(
        fc.asyncProperty(fc.constantFrom(...all), junk, async (path, value) => {
          const name = `${path.join(".")} = ${fc.stringify(value)}`;
          if (await tryRestore(bus, replace(saved, path, value), bytes, name)) refused++;
        }),
        { numRuns: 250 },
      );
      assert(refused > 100, `${refused} were refused`);
    });

    Deno.test(`a saved state with two fields replaced, or memory that does not fit it, does not hurt: ${format} over ${bus}`, async () => {
      const { saved, bytes } = await sample(bus, ring);
      const all = paths(saved);
      await fc.assert(
        fc.asyncProperty(
          fc.constantFrom(...all),
          junk,
          fc.constantFrom(...all),
          junk,
          fc.boolean(),
          async (path, value, other, more, rubbish) => {
            let state = replace(saved, path, value);
            try {
              state = replace(state, other, more);
            } catch {
              // The first replacement took the second field away.
            }
            const memory = rubbish ? bytes.map((byte, i) => byte ^ (i * 7)) : bytes;
            await tryRestore(bus, state, memory, `${path.join(".")} and ${other.join(".")}`);
          },
        ),
        { numRuns: 100 },
      );
    });
  }

  Deno.test(`anything at all as a saved state is refused: ${bus}`, async () => {
    const bytes = new Uint8Array(MEMORY);
    await fc.assert(
      fc.asyncProperty(fc.oneof(junk, fc.anything(), fc.jsonValue()), async (state) => {
        assertEquals(await tryRestore(bus, state, bytes, fc.stringify(state)), true);
      }),
      { numRuns: 150 },
    );
  });
}

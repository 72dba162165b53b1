/** A hostile saved state is refused with a sentence, or stands for one that could be; a reset heals the device either way. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type FeatureSet, VIRTIO_STATUS_DEVICE_NEEDS_RESET } from "@virtio/device";
import { FORMATS, placeQueue, rawDriver } from "../../packages/vring/testing/raw_driver.ts";
import { begin, turns } from "../hostile/machine.ts";
import { BUFFERS, type Bus, BUSES, freshDisk, machine, MEMORY } from "./blk_machine.ts";

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

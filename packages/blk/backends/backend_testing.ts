/** What every back end must do, as one set of tests. Not published. */
import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import fc from "fast-check";
import type { BackendResult, BlkBackend } from "../backend.ts";

const SECTOR = 512;

type Step =
  | { readonly kind: "write"; readonly at: number; readonly length: number; readonly seed: number }
  | { readonly kind: "read"; readonly at: number; readonly length: number }
  | {
    readonly kind: "zero";
    readonly at: number;
    readonly length: number;
    readonly unmap: boolean;
  }
  | { readonly kind: "discard"; readonly at: number; readonly length: number }
  | { readonly kind: "erase"; readonly at: number; readonly length: number }
  | { readonly kind: "flush" };

/** Bytes that tell their place, so that a shifted copy shows. */
export function pattern(length: number, seed: number): Uint8Array {
  const bytes = new Uint8Array(length);
  let state = (seed * 2654435761 + 12345) >>> 0;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
    bytes[i] = state >>> 24;
  }
  return bytes;
}

/** A range as the back end may be asked for: whole sectors for an asynchronous one, any bytes for the others. */
function ranges(capacity: number, whole: boolean): fc.Arbitrary<{ at: number; length: number }> {
  const unit = whole ? SECTOR : 1;
  const limit = capacity / unit;
  const at = fc.oneof(
    fc.integer({ min: 0, max: limit - 1 }),
    // Around multiples of what back ends like to cut at.
    fc.tuple(fc.integer({ min: 0, max: capacity / 4096 - 1 }), fc.integer({ min: -2, max: 2 }))
      .map(([page, delta]) => Math.min(limit - 1, Math.max(0, page * 4096 / unit + delta))),
  );
  const length = fc.oneof(
    fc.integer({ min: 1, max: Math.max(1, Math.floor(2000 / unit)) }),
    fc.constantFrom(4096 / unit, 16384 / unit, 65536 / unit),
    fc.integer({ min: 1, max: Math.floor(200_000 / unit) }),
  );
  return fc.tuple(at, length).map(([from, count]) => ({
    at: from * unit,
    length: Math.min(count, limit - from) * unit,
  }));
}

function steps(backend: BlkBackend): fc.Arbitrary<Step[]> {
  const range = ranges(backend.capacity, backend.asynchronous);
  const whole = ranges(backend.capacity, true);
  const kinds: fc.Arbitrary<Step>[] = [
    fc.record({ range, seed: fc.nat() }).map(({ range, seed }) => ({
      kind: "write" as const,
      ...range,
      seed,
    })),
    range.map((range) => ({ kind: "read" as const, ...range })),
    fc.constant({ kind: "flush" as const }),
  ];
  if (backend.writeZeroes !== undefined) {
    kinds.push(
      fc.record({ whole, unmap: fc.boolean() }).map(({ whole, unmap }) => ({
        kind: "zero" as const,
        ...whole,
        unmap,
      })),
    );
  }
  if (backend.discard !== undefined) {
    kinds.push(whole.map((range) => ({ kind: "discard" as const, ...range })));
  }
  if (backend.secureErase !== undefined) {
    kinds.push(whole.map((range) => ({ kind: "erase" as const, ...range })));
  }
  return fc.array(fc.oneof(...kinds), { minLength: 1, maxLength: 25 });
}

async function readAll(backend: BlkBackend): Promise<Uint8Array> {
  const bytes = new Uint8Array(backend.capacity);
  await backend.read(0, bytes, 0, bytes.length);
  return bytes;
}

async function apply(backend: BlkBackend, model: Uint8Array, step: Step): Promise<void> {
  switch (step.kind) {
    case "write": {
      // At an odd place of a larger buffer, as guest memory would be.
      const bytes = pattern(step.length + 7, step.seed);
      await backend.write(step.at, bytes, 5, step.length);
      model.set(bytes.subarray(5, 5 + step.length), step.at);
      return;
    }
    case "read": {
      const bytes = new Uint8Array(step.length + 9).fill(0xee);
      await backend.read(step.at, bytes, 3, step.length);
      assertEquals(bytes.subarray(0, 3), new Uint8Array(3).fill(0xee));
      assertEquals(bytes.subarray(3 + step.length), new Uint8Array(6).fill(0xee));
      assertSame(
        bytes.subarray(3, 3 + step.length),
        model.subarray(step.at, step.at + step.length),
      );
      return;
    }
    case "zero":
      await backend.writeZeroes!(step.at, step.length, step.unmap);
      model.fill(0, step.at, step.at + step.length);
      return;
    case "discard":
      await backend.discard!(step.at, step.length);
      // Whatever it reads as now, it must stay so, and nothing beside it may have changed.
      await backend.read(step.at, model, step.at, step.length);
      return;
    case "erase": {
      await backend.secureErase!(step.at, step.length);
      const before = model.slice(step.at, step.at + step.length);
      await backend.read(step.at, model, step.at, step.length);
      const after = model.subarray(step.at, step.at + step.length);
      assert(
        before.every((byte) => byte === 0) || !same(before, after),
        "erased data is still there",
      );
      return;
    }
    case "flush":
      await backend.flush();
      return;
  }
}

function same(one: Uint8Array, other: Uint8Array): boolean {
  return one.length === other.length && one.every((byte, i) => byte === other[i]);
}

/** As `assertEquals`, without printing a disk. */
export function assertSame(actual: Uint8Array, expected: Uint8Array): void {
  if (actual.length !== expected.length) {
    throw new Error(`${actual.length} bytes instead of ${expected.length}`);
  }
  for (let i = 0; i < actual.length; i++) {
    if (actual[i] !== expected[i]) {
      throw new Error(`byte ${i} is ${actual[i]} instead of ${expected[i]}`);
    }
  }
}

/** Fails, whether it throws or rejects. */
export async function assertFails(action: () => BackendResult): Promise<Error> {
  let result: BackendResult;
  try {
    result = action();
  } catch (error) {
    return error as Error;
  }
  if (result === undefined) throw new Error("it did not fail");
  return await assertRejects(() => result as Promise<void>, Error);
}

/** Registers the tests of one back end. `make` gives a fresh zeroed disk of 512 KiB and what undoes it. */
export function testBackend(
  name: string,
  make: () => Promise<{ backend: BlkBackend; done: () => void | Promise<void> }>,
): void {
  const test = (what: string, action: (backend: BlkBackend) => Promise<void>): void => {
    Deno.test(`${name}: ${what}`, async () => {
      const { backend, done } = await make();
      try {
        await action(backend);
      } finally {
        await done();
      }
    });
  };

  test("is fresh: zeroes, of the size asked for", async (backend) => {
    assertEquals(backend.capacity, 512 * 1024);
    assertSame(await readAll(backend), new Uint8Array(backend.capacity));
  });

  test("any sequence of requests leaves what an array would hold", async (backend) => {
    const model = new Uint8Array(backend.capacity);
    await fc.assert(
      fc.asyncProperty(steps(backend), async (sequence) => {
        for (const step of sequence) await apply(backend, model, step);
        assertSame(await readAll(backend), model);
      }),
      { numRuns: 40 },
    );
  });

  test("refuses ranges that are not within the disk, and changes nothing", async (backend) => {
    const bytes = new Uint8Array(1024).fill(1);
    const { capacity } = backend;
    for (
      const [at, length] of [
        [capacity, 512],
        [capacity - 512, 1024],
        [-512, 512],
        [NaN, 512],
        [2 ** 53, 512],
        [Infinity, 512],
      ] as const
    ) {
      await assertFails(() => backend.read(at, bytes, 0, length));
      await assertFails(() => backend.write(at, bytes, 0, length));
      if (backend.writeZeroes !== undefined) {
        await assertFails(() => backend.writeZeroes!(at, length, true));
      }
      if (backend.discard !== undefined) await assertFails(() => backend.discard!(at, length));
    }
    assertEquals(bytes, new Uint8Array(1024).fill(1));
    assertEquals(backend.capacity, capacity);
    assertSame(await readAll(backend), new Uint8Array(capacity));
  });

  test("takes requests of no bytes", async (backend) => {
    const none = new Uint8Array(0);
    await backend.read(0, none, 0, 0);
    await backend.write(backend.capacity, none, 0, 0);
    await backend.writeZeroes?.(512, 0, false);
    await backend.discard?.(512, 0);
    assertSame(await readAll(backend), new Uint8Array(backend.capacity));
  });

  test("works on shared memory", async (backend) => {
    const shared = new Uint8Array(new SharedArrayBuffer(8192));
    shared.set(pattern(4096, 3));
    await backend.write(8192, shared, 0, 4096);
    await backend.read(8192, shared, 4096, 4096);
    assertSame(shared.slice(4096), shared.slice(0, 4096));
  });

  test("does many requests at a time", async (backend) => {
    const all = pattern(backend.capacity, 9);
    const results: BackendResult[] = [];
    for (let at = 0; at < all.length; at += 4096) {
      results.push(backend.write(at, all.slice(at, at + 4096), 0, 4096));
    }
    await Promise.all(results);
    const back = new Uint8Array(all.length);
    const reads: BackendResult[] = [];
    for (let at = 0; at < all.length; at += 4096) reads.push(backend.read(at, back, at, 4096));
    await Promise.all(reads);
    assertSame(back, all);
  });

  test("grows with zeroes, shrinks, and says so", async (backend) => {
    if (backend.resize === undefined) return;
    const { capacity } = backend;
    await backend.write(0, pattern(capacity, 5), 0, capacity);
    let told = 0;
    backend.onChange = () => told++;
    await backend.resize(capacity / 2);
    assertEquals(backend.capacity, capacity / 2);
    await assertFails(() => backend.read(capacity / 2, new Uint8Array(512), 0, 512));
    await backend.resize(capacity + 512);
    assertEquals(backend.capacity, capacity + 512);
    const expected = new Uint8Array(capacity + 512);
    expected.set(pattern(capacity, 5).subarray(0, capacity / 2));
    assertSame(await readAll(backend), expected);
    assertEquals(told, 2);
    assertThrows(() => backend.resize!(1000), RangeError, "multiple of 512");
  });
}

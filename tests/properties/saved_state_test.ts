/** A block device saved at any point, in the middle of requests too, and restored gives the same run. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
} from "@virtio/device";
import {
  FORMATS,
  placeQueue,
  type RawDriver,
  rawDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { begin, turns } from "../hostile/machine.ts";
import { BUFFERS, type Bus, BUSES, freshDisk, machine, MEMORY, SECTORS } from "./blk_machine.ts";

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

/**
 * Frames that come back to the guest that sent them: a network device behind vhost-user without what is around it. Run by
 * `deno bench -A bench/net_echo_bench.ts`, or by `deno run -A bench/net_echo_bench.ts split 64` for one shape alone: in a process
 * that has seen one format of ring, as a worker has, the code is faster than where both are in use.
 *
 * 32 frames a batch. In the packed format the fake driver's part, which writes descriptors, is measured by itself and taken off.
 */
import { quantile } from "./harness.ts";
import { type EchoShape, EchoWorld } from "./net_echo_world.ts";

const BATCH = 32;
const BATCHES = 50;
const SHAPES: readonly EchoShape[] = [false, true].flatMap((packed) =>
  [64, 1514].map((frame) => ({ packed, frame, batch: BATCH, inOrder: true }))
);

function nameOf({ packed, frame }: EchoShape): string {
  return `${packed ? "packed" : "split"}, ${frame} bytes`;
}

/** Nanoseconds of a frame: the middle, and the best. */
function measure(run: () => void): [median: number, best: number] {
  for (let i = 0; i < 200; i++) run();
  const samples: number[] = [];
  const end = performance.now() + 500;
  while (performance.now() < end) {
    const start = performance.now();
    run();
    samples.push((performance.now() - start) * 1e6 / (BATCH * BATCHES));
  }
  return [quantile(samples, 0.5), quantile(samples, 0)];
}

if (import.meta.main) {
  const [format, frame] = Deno.args;
  const shapes = SHAPES.filter((shape) =>
    (format === undefined || shape.packed === (format === "packed")) &&
    (frame === undefined || shape.frame === Number(frame))
  );
  for (const shape of shapes) {
    const world = new EchoWorld(shape);
    const whole = measure(() => world.run(BATCHES));
    if (!world.check()) throw new Error("The frame is not what was sent");
    const fake = new EchoWorld(shape);
    const refill = measure(() => {
      for (let n = 0; n < BATCHES; n++) fake.refill();
    });
    const [median, best] = whole.map((value, i) => value - refill[i]!) as [number, number];
    console.log(`${nameOf(shape)}: ${median.toFixed(1)} ns a frame, at best ${best.toFixed(1)}`);
  }
} else {
  for (const shape of SHAPES) {
    const world = new EchoWorld(shape);
    Deno.bench(`${BATCH * BATCHES} frames come back, ${nameOf(shape)}`, () => {
      world.run(BATCHES);
    });
  }
}

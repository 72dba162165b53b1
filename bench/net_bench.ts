/**
 * Frames from one guest to another: two network devices with a cable or the switch between them, and the same in C. Run by
 * `deno bench -A bench/net_bench.ts`, or by `deno run -A bench/net_bench.ts` for ratios of alternating runs.
 *
 * 64 and 1,500 bytes: 64 frames a batch, one receive buffer each; 65,000 bytes: 8 frames a batch, 16 buffers each. Guards the
 * way of a frame from ring to ring: both serve loops, the header's checks, the filter, merged buffers, the copy.
 */
import { alternate, type Block, ratios, spread } from "./harness.ts";
import { NET_SHAPES, type NetShape, NetWorld } from "./net_world.ts";
import { openNativeNet } from "./native/net_device.ts";

const BATCHES = 50;
const native = await openNativeNet();

interface Contender {
  run(batches: number): number;
  check(): boolean;
}

function contenders(shape: NetShape): Map<string, Contender> {
  const all = new Map<string, Contender>();
  if (native !== null) all.set("C", native(shape));
  all.set("cable", new NetWorld(shape, "cable"));
  all.set("switch", new NetWorld(shape, "switch"));
  all.set("switch, shared memory", new NetWorld(shape, "switch", true));
  return all;
}

function report(shape: NetShape): void {
  const all = contenders(shape);
  const blocks: Block[] = [...all].map(([name, contender]) => ({
    name,
    unit: shape.batch,
    run: (n) => void contender.run(n),
  }));
  const samples = alternate(blocks);
  for (const [name, contender] of all) {
    if (!contender.check()) throw new Error(`${name}: the frame is not what was sent`);
    const { median } = spread(samples.get(name)!);
    const against = samples.get("C");
    const ratio = against === undefined ? null : spread(ratios(samples.get(name)!, against));
    console.log(
      `${shape.frame} bytes, ${name}: ${(1e3 / median).toFixed(2)} M frames/s, ` +
        `${(1e3 * shape.frame / median).toFixed(0)} MB/s` +
        (ratio === null
          ? ""
          : `, time ${ratio.median.toFixed(2)} of C (${ratio.low.toFixed(2)} to ${
            ratio.high.toFixed(2)
          })`),
    );
  }
}

if (import.meta.main) {
  for (const shape of NET_SHAPES) report(shape);
} else {
  for (const shape of NET_SHAPES) {
    for (const [name, contender] of contenders(shape)) {
      Deno.bench(`${BATCHES * shape.batch} frames of ${shape.frame} bytes, ${name}`, {
        group: `${shape.frame} bytes`,
        baseline: name === "cable",
      }, () => {
        contender.run(BATCHES);
      });
    }
  }
}

/** Filtering and steering allocate nothing; measured as `tests/allocation` does. */
import { assert } from "@std/assert";
import { Frame } from "../frame.ts";
import { buildFrame } from "../offload/testing.ts";
import { ControlRig, hashConfig, le16, macTable, rssConfig } from "./testing.ts";

const FRAMES = 5000;
/** Seconds until a window must be clean: code that is not compiled yet allocates. */
const PATIENCE = 20;
/** Less than any object. */
const CLEAN = 0.5;

function bytesPerFrame(batch: () => void, patience = PATIENCE): number {
  let least = Infinity;
  const end = performance.now() + 1000 * patience;
  for (let window = 0; least > CLEAN && (window < 20 || performance.now() < end); window++) {
    const before = Deno.memoryUsage().heapUsed;
    batch();
    const grown = Deno.memoryUsage().heapUsed - before;
    // What is less was collected, so something was allocated.
    least = Math.min(least, grown < 0 ? Infinity : grown / FRAMES);
  }
  return least;
}

/** Frames whose addresses and hashes are small numbers and large ones. */
const frames = [...Array(32).keys()].map((n) =>
  new Frame().fromBytes(buildFrame({
    ip: n % 2 === 0 ? 4 : 6,
    transport: n % 3 === 0 ? "udp" : "tcp",
    to: n % 4 === 0 ? [2, 0, 0, 0, 0, 1] : [2, 0xf0 * (n % 5), n, 0xff, n, 7],
    sourcePort: 1000 * n,
    payload: new Uint8Array(100),
  }))
);

function rig(): ControlRig {
  const rig = new ControlRig();
  const macs = frames.map(({ head }) => [...head.subarray(0, 6)]);
  rig.ack(1, 0, macTable(...macs), macTable());
  return rig;
}

const setups: Record<string, (rig: ControlRig) => void> = {
  "one pair": () => {},
  "one pair, with hashes": (rig) => rig.ack(4, 2, hashConfig()),
  "automatic steering": (rig) => rig.ack(4, 0, le16(4)),
  "receive-side scaling": (rig) => rig.ack(4, 1, rssConfig()),
};
for (const [name, setUp] of Object.entries(setups)) {
  Deno.test(`0 bytes are allocated to filter and steer a frame: ${name}`, () => {
    const one = rig();
    setUp(one);
    const { filter, steering } = one.control;
    let seen = 0;
    const bytes = bytesPerFrame(() => {
      for (let i = 0; i < FRAMES; i++) {
        const frame = frames[i & 31]!;
        if (filter.accepts(frame)) seen++;
        steering.sentOn(frame, i & 3);
        seen += steering.pairOf(frame);
        seen += steering.hashValue & 1;
      }
    });
    assert(seen > 0);
    assert(bytes <= CLEAN, `${bytes} bytes a frame`);
  });
}

Deno.test("an allocation for each frame would be seen", () => {
  const { filter } = rig().control;
  const planted: unknown[] = [null];
  const bytes = bytesPerFrame(() => {
    for (let i = 0; i < FRAMES; i++) planted[0] = { accepted: filter.accepts(frames[i & 31]!) };
  }, 0);
  assert(bytes > CLEAN);
});

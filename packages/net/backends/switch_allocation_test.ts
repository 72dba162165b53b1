/** Forwarding allocates nothing; measured as `tests/allocation` does. */
import { assert } from "@std/assert";
import { Offload } from "../sink.ts";
import { Switch } from "./switch.ts";
import { BROADCAST, letter } from "./switch_testing.ts";

const BATCH = 5000;
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
    least = Math.min(least, grown < 0 ? Infinity : grown / BATCH);
  }
  return least;
}

/** Ports of all kinds, and stations 1 to 4 behind them. */
function network(): { send(from: number, to: number): void; broadcast(): void; got(): number } {
  const network = new Switch({ maxStations: 64 });
  let got = 0;
  const sink = { offloads: Offload.all, deliver: () => void got++ };
  const ports = [
    network.port({ flood: { rate: Infinity } }),
    network.port({ mac: "02:00:00:00:00:02" }),
    network.port({ vlan: 7 }),
    network.port({ trunk: { vlans: [7], native: null }, maxMtu: 1500 }),
  ];
  for (const port of ports) port.connect(sink);
  const frames = ports.map((port, i) => {
    const tags = i === 3 ? [7] : [];
    port.send(letter({ to: BROADCAST, from: i + 1, tags }));
    return ports.map((_, j) => letter({ to: j + 1, from: i + 1, tags, size: 1000 }));
  });
  const all = letter({ to: BROADCAST, from: 1 });
  return {
    send: (from, to) => ports[from]!.send(frames[from]![to]!),
    broadcast: () => ports[0]!.send(all),
    got: () => got,
  };
}

for (
  const [name, from, to] of [
    ["between two ports", 0, 1],
    ["and back, from a locked port", 1, 0],
    ["from an access port to a trunk: a tag is inserted", 2, 3],
    ["from a trunk to an access port: a tag is removed", 3, 2],
  ] as const
) {
  Deno.test(`0 bytes are allocated for a frame ${name}`, () => {
    const { send, got } = network();
    const before = got();
    const bytes = bytesPerFrame(() => {
      for (let i = 0; i < BATCH; i++) send(from, to);
    });
    assert(bytes <= CLEAN, `${bytes} bytes a frame`);
    assert(got() - before >= BATCH && (got() - before) % BATCH === 0);
  });
}

Deno.test("0 bytes are allocated for a frame to all", () => {
  const { broadcast } = network();
  const bytes = bytesPerFrame(() => {
    for (let i = 0; i < BATCH; i++) broadcast();
  });
  assert(bytes <= CLEAN, `${bytes} bytes a frame`);
});

Deno.test("an allocation that is planted is found", () => {
  const { send } = network();
  const kept: number[][] = [];
  const bytes = bytesPerFrame(() => {
    for (let i = 0; i < BATCH; i++) {
      kept[0] = [i];
      send(0, 1);
    }
  }, 0);
  assert(bytes > CLEAN, `${bytes} bytes a frame`);
});

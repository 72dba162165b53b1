/** What is seen of a ring is what lies there, in both formats, at every moment of a request; looking changes nothing. */
import { assert, assertEquals } from "@std/assert";
import { HOLD, QueueDevice } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import type { Chain } from "@virtio/vring";
import { Rig } from "../device/testing.ts";
import { FORMATS } from "../vring/testing/raw_driver.ts";
import { EXPLANATIONS, flagNames, Inspector, type QueueView } from "./mod.ts";

class Slow extends QueueDevice {
  readonly chains: Chain[] = [];

  constructor() {
    super({ type: 4, queueSizes: [8, 8] });
  }

  protected override handle(chain: Chain): typeof HOLD {
    this.chains.push(chain);
    return HOLD;
  }

  finish(): void {
    this.complete(0, this.chains.shift()!);
  }
}

const states = ({ slots }: QueueView): string =>
  slots.map(({ state }) => ({ free: ".", available: "a", "in flight": "f", used: "u" })[state])
    .join("");

for (const [name, format] of FORMATS) {
  Deno.test(`inspector, ${name}: a request is seen on its way, and every field has an explanation`, async () => {
    const device = new Slow();
    const rig = new Rig({ device });
    const inspector = new Inspector([{
      name: "slow",
      device,
      memory: rig.memory,
      queueNames: ["requests"],
    }]);
    const view = (): QueueView => inspector.snapshot().devices[0]!.queues[0]!;
    assertEquals([view().started, view().name], [false, "requests"]);
    const queue = rig.start(format);
    assertEquals([view().started, states(view())], [true, "........"]);
    rig.send(queue, 0);
    rig.send(queue, 1);
    // Two descriptors each.
    assertEquals(states(view()), "aaaa....");
    const bytes = rig.memory.regions[0]!.bytes.slice();
    view();
    assertEquals(rig.memory.regions[0]!.bytes, bytes);
    rig.state.notify(0);
    assertEquals(states(view()), "ffff....");
    assertEquals(view().chains.map(({ id, descriptors }) => [id, descriptors]).length, 2);
    await new Promise((resolve) => setTimeout(resolve, 5));
    assert(view().chains.every(({ age }) => age >= 4));
    device.finish();
    await Promise.resolve();
    const after = states(view());
    assertEquals(after, name === "split" ? "..ff...." : "u.ff....");
    assertEquals(view().counters.chains, 2);
    for (const { key, value } of view().fields) {
      assert(EXPLANATIONS[key] !== undefined, key);
      assert(value.length > 0);
    }
    device.finish();
    await Promise.resolve();
    assertEquals([rig.take(queue).length, view().chains.length], [2, 0]);
    const snapshot = inspector.snapshot();
    assertEquals(structuredClone(snapshot), snapshot);
    assertEquals(JSON.parse(JSON.stringify(snapshot)), snapshot);
  });

  Deno.test(`inspector, ${name}: laps of the ring are told apart`, async () => {
    const device = new Slow();
    const rig = new Rig({ device });
    const inspector = new Inspector([{ name: "slow", device, memory: rig.memory }]);
    const queue = rig.start(format);
    for (let i = 0; i < 25; i++) {
      rig.send(queue, i);
      const view = inspector.snapshot().devices[0]!.queues[0]!;
      assertEquals(states(view).replace(/[^a]/g, "").length, 2, `${i}: ${states(view)}`);
      rig.state.notify(0);
      const taken = inspector.snapshot().devices[0]!.queues[0]!;
      assertEquals(states(taken).replace(/[^f]/g, "").length, 2, `${i}: ${states(taken)}`);
      device.finish();
      await Promise.resolve();
      assertEquals(rig.take(queue), [i]);
    }
  });
}

Deno.test("inspector: commands hold, step and let go; what makes no sense is ignored", () => {
  const device = new Slow();
  const rig = new Rig({ device });
  const inspector = new Inspector([{ name: "slow", device, memory: rig.memory }]);
  const queue = rig.start(0n);
  rig.send(queue, 0);
  rig.send(queue, 1);
  assert(inspector.command({ do: "hold", device: 0, queue: 0 }));
  rig.state.notify(0);
  assertEquals(device.chains.length, 0);
  assert(inspector.command({ do: "step", device: 0, queue: 0 }));
  assertEquals(device.chains.length, 1);
  inspector.releaseAll();
  assertEquals(device.chains.length, 2);
  const nonsense: unknown[] = [
    null,
    {},
    { do: "hold", device: 1, queue: 0 },
    { do: "hold", device: 0, queue: 9 },
    { do: "hold", device: -1, queue: 0 },
    { do: "explode", device: 0, queue: 0 },
  ];
  for (const command of nonsense) assertEquals(inspector.command(command as never), false);
});

Deno.test("inspector: memory that a driver fills with anything is shown as it is", () => {
  const memory = GuestMemory.allocate(0x10000);
  for (const [, format] of FORMATS) {
    const device = new Slow();
    const rig = new Rig({ device, memory });
    const inspector = new Inspector([{ name: "slow", device, memory }]);
    rig.start(format);
    const { bytes } = memory.regions[0]!;
    for (let seed = 1; seed < 50; seed++) {
      bytes.forEach((_, i) => bytes[i] = Math.imul(i ^ seed, 0x9e3779b1) >>> 24);
      const view = inspector.snapshot().devices[0]!.queues[0]!;
      assertEquals(view.slots.length, 8);
    }
    bytes.fill(0);
  }
});

Deno.test("flags are named as the standard names them", () => {
  assertEquals(flagNames("split", 7), "NEXT WRITE INDIRECT");
  assertEquals(flagNames("split", 0x80), "none");
  assertEquals(flagNames("packed", 0x8082), "WRITE AVAIL USED");
});

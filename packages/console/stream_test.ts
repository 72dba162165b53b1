/** The order of bytes, however drivers cut buffers, back ends take pieces, and both sides take turns. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED, VIRTIO_F_SUSPEND } from "@virtio/device";
import { ConsoleDevice, receiveQueue, transmitQueue } from "./mod.ts";
import { RawConsoleDriver, SpyConsole } from "./testing.ts";

declare function setImmediate(run: () => void): void;

/** A turn of the event loop, the quick way. */
function turn(): Promise<void> {
  return new Promise((resolve) => setImmediate(resolve));
}

type Step =
  | {
    readonly do: "output";
    readonly port: number;
    readonly length: number;
    readonly cuts: number[];
  }
  | { readonly do: "input"; readonly port: number; readonly length: number }
  | {
    readonly do: "provide";
    readonly port: number;
    readonly length: number;
    readonly cuts: number[];
  }
  | { readonly do: "allow"; readonly port: number; readonly room: number }
  | { readonly do: "publish"; readonly port: number }
  | { readonly do: "turn" }
  | { readonly do: "suspend" }
  | { readonly do: "move" };

const port = fc.integer({ min: 0, max: 1 });
const cuts = fc.array(fc.integer({ min: 1, max: 40 }), { maxLength: 4 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("output" as const),
      port,
      length: fc.integer({ min: 1, max: 120 }),
      cuts,
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("input" as const),
      port,
      length: fc.integer({ min: 0, max: 90 }),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constant("provide" as const),
      port,
      length: fc.integer({ min: 1, max: 80 }),
      cuts,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("allow" as const),
      port,
      room: fc.integer({ min: 0, max: 150 }),
    }),
  },
  { weight: 3, arbitrary: fc.record({ do: fc.constant("publish" as const), port }) },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("turn" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("suspend" as const) }) },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("move" as const) }) },
);

/** A byte stream that shows where it was cut or repeated. */
class Source {
  #at: number;
  all = "";

  constructor(first: number) {
    this.#at = first;
  }

  next(length: number): Uint8Array {
    const bytes = new Uint8Array(length);
    for (let i = 0; i < length; i++) bytes[i] = 33 + this.#at++ % 89;
    return bytes;
  }

  sent(bytes: Uint8Array): void {
    this.all += new TextDecoder().decode(bytes);
  }
}

async function run(core: bigint, steps: readonly Step[]): Promise<void> {
  let spies = [new SpyConsole(), new SpyConsole()];
  const make = (): ConsoleDevice =>
    new ConsoleDevice({
      ports: [{ backend: spies[0]!, inputBuffer: 50 }, { backend: spies[1]!, inputBuffer: 50 }],
      queueSize: 64,
    });
  let device = make();
  const driver = await RawConsoleDriver.open(device, { core });
  driver.ready();
  await driver.portReady(0);
  await driver.portReady(1);
  const outputs = [new Source(0), new Source(7)];
  const inputs = [new Source(3), new Source(5)];
  const before = ["", ""];
  const read = ["", ""];
  const collect = (): void => {
    for (const id of [0, 1]) read[id] += driver.input(id);
  };
  for (const each of steps) {
    switch (each.do) {
      case "output": {
        const queue = transmitQueue(each.port);
        if (driver.queue(queue).free < 6) break;
        const bytes = outputs[each.port]!.next(each.length);
        outputs[each.port]!.sent(bytes);
        driver.send(queue, bytes, each.cuts, each.length % 3 > 0);
        break;
      }
      case "input": {
        const bytes = inputs[each.port]!.next(each.length);
        const count = device.port(each.port)!.write(bytes);
        inputs[each.port]!.sent(bytes.subarray(0, count));
        // What was refused never was.
        inputs[each.port] = Object.assign(new Source(3 + 11 * inputs[each.port]!.all.length), {
          all: inputs[each.port]!.all,
        });
        break;
      }
      case "provide": {
        const queue = receiveQueue(each.port);
        if (driver.queue(queue).free < 6) break;
        driver.provide(queue, each.length, each.cuts, each.length % 3 > 0);
        break;
      }
      case "allow":
        spies[each.port]!.allow(each.room);
        break;
      case "publish":
        driver.session.publish(receiveQueue(each.port));
        driver.session.publish(transmitQueue(each.port));
        break;
      case "turn":
        await turn();
        break;
      case "suspend":
        await driver.session.suspend();
        await driver.session.resume();
        break;
      case "move": {
        await driver.transport.state.pause();
        const saved = structuredClone(driver.transport.state.save());
        for (const id of [0, 1]) before[id] += spies[id]!.text;
        const rooms = spies.map(({ room }) => room);
        spies = rooms.map((room) => Object.assign(new SpyConsole(), { room }));
        device = make();
        driver.moveTo(device, saved);
        driver.transport.state.unpause();
        break;
      }
    }
    collect();
    for (const id of [0, 1]) {
      assert(outputs[id]!.all.startsWith(before[id]! + spies[id]!.text), `output of port ${id}`);
      assert(inputs[id]!.all.startsWith(read[id]!), `input of port ${id}`);
    }
  }
  for (const id of [0, 1]) {
    driver.session.publish(transmitQueue(id));
    driver.session.publish(receiveQueue(id));
    spies[id]!.allow(Infinity);
    for (let i = 0; i < 20; i++) {
      await turn();
      collect();
      if (driver.queue(receiveQueue(id)).free >= 6) driver.provide(receiveQueue(id), 50);
    }
    await turn();
    collect();
    assertEquals(before[id]! + spies[id]!.text, outputs[id]!.all);
    assertEquals(read[id], inputs[id]!.all);
    assertEquals(driver.queue(transmitQueue(id)).inFlight, 0);
  }
  assertEquals(driver.needsReset, false);
  assertEquals(driver.transport.errors, []);
}

const FORMATS: [string, bigint][] = [
  ["split", VIRTIO_F_SUSPEND],
  ["packed", VIRTIO_F_SUSPEND | VIRTIO_F_RING_PACKED],
  ["split in order", VIRTIO_F_SUSPEND | VIRTIO_F_IN_ORDER],
];

for (const [format, core] of FORMATS) {
  Deno.test(`console, ${format}: whatever is cut and whoever waits, both streams stay as they were sent`, async () => {
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 40 }), (steps) => run(core, steps)),
      { numRuns: 100 },
    );
  });
}

/** Virtio 1.4, 3.1 to 3.3: initialisation and operation. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import {
  CORE_FEATURES,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FAILED,
} from "@virtio/device";
import { DriverError } from "@virtio/device/driver";
import { BufferList } from "@virtio/vring/driver";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { SessionBench, statusWrites } from "./session_bench.ts";
import { random } from "./random.ts";

/** A whole initialisation as the transport saw it. */
async function initialise(): Promise<string[]> {
  const bench = new SessionBench();
  await bench.open({
    queues: (session) => {
      session.transport.readConfig(0, 4);
      return [{ index: 0, size: 8 }];
    },
    setup: (session) => {
      session.writeConfig(4, 1, 1);
      bench.send(session, 1);
    },
  });
  return bench.transport.log;
}

/** Where the line is; it must be there once. */
function once(log: readonly string[], match: (line: string) => boolean): number {
  const found = log.flatMap((line, i) => match(line) ? [i] : []);
  assertEquals(found.length, 1, log.join("\n"));
  return found[0]!;
}

Deno.test("3.1.1-G1 3.1.1-G2 3.1.1-G3 3.1.1-G4 3.1.1-G6 3.1.1-G8 3.1.1-G9 3.1.1-G10 the driver initialises in the order of the standard", async () => {
  const log = await initialise();
  const steps = [
    once(log, (line) => line === "status 0"),
    once(log, (line) => line === "status 1"),
    once(log, (line) => line === "status 3"),
    once(log, (line) => line === "features?"),
    once(log, (line) => line.startsWith("features ")),
    once(log, (line) => line === "status 11"),
    log.indexOf("status is 11"),
    once(log, (line) => line === "queue 0?"),
    once(log, (line) => line === "queue 0 of 8"),
    once(log, (line) => line === "config 4 1"),
    once(log, (line) => line === "status 15"),
  ];
  assertEquals(steps, steps.toSorted((a, b) => a - b), log.join("\n"));
  // The reset comes before anything else, and the read of the status right after FEATURES_OK.
  assertEquals(steps[0], 0);
  assertEquals(steps[6], steps[5]! + 1);
  assert(log.slice(steps[0], steps[1]).includes("status is 0"));
});

Deno.test("3.1.1-G4 what the driver writes is a subset of what it read", async () => {
  for (const offered of [VIRTIO_F_VERSION_1, CORE_FEATURES]) {
    const bench = new SessionBench({ features: offered });
    await bench.open();
    assertEquals(bench.transport.accepted, offered);
  }
});

Deno.test("3.1.1-G5 3.1.1-G7 before FEATURES_OK no configuration is written, and after it no features", async () => {
  const log = await initialise();
  const agreed = log.indexOf("status 11");
  assert(!log.slice(0, agreed).some((line) => /^config \d+ /.test(line)));
  assert(!log.slice(agreed).some((line) => line.startsWith("features")));
  // The caller's first word comes after FEATURES_OK, so it cannot do so either.
  const bench = new SessionBench();
  let status = 0;
  await bench.open({
    queues: (session) => {
      status = session.transport.readStatus();
      return [];
    },
  });
  assertEquals(status, 11);
});

Deno.test("3.1.1-G8 the driver gives up on a device that does not keep FEATURES_OK", async () => {
  const bench = new SessionBench();
  bench.transport.lieStatus = (status) => status & ~8;
  await assertRejects(() => bench.open(), DriverError, "refused");
  assertEquals(statusWrites(bench.transport.log), [0, 1, 3, 11, 3 | VIRTIO_STATUS_FAILED]);
});

Deno.test("3.1.1-G11 3.1.1-G12 when a step goes wrong the driver sets FAILED and does not continue", async () => {
  const wrong: [string, (bench: SessionBench) => Promise<unknown>][] = [
    ["reset", (bench) => {
      bench.transport.lieStatus = (status) => status | 3;
      return bench.open();
    }],
    ["VERSION_1", (bench) => {
      bench.transport.offer = () => 0n;
      return bench.open();
    }],
    ["features", (bench) => {
      bench.device.acceptable = () => false;
      return bench.open();
    }],
    ["no such queue", (bench) => bench.open({ queues: () => [{ index: 5, size: 8 }] })],
    ["no memory", (bench) => {
      bench.dma.allocate(bench.dma.available);
      return bench.open();
    }],
    ["the driver's own set-up", (bench) =>
      bench.open({
        setup: () => {
          throw new DriverError("the configuration makes no sense");
        },
      })],
  ];
  for (const [what, run] of wrong) {
    const bench = new SessionBench();
    await assertRejects(() => run(bench), Error, undefined, what);
    const writes = statusWrites(bench.transport.log);
    assertEquals(writes.at(-1)! & VIRTIO_STATUS_FAILED, VIRTIO_STATUS_FAILED, what);
    assert(writes.every((value) => (value & VIRTIO_STATUS_DRIVER_OK) === 0), what);
    assertEquals(bench.transport.log.at(-1), `status ${writes.at(-1)}`, what);
    assertEquals([bench.device.starts, bench.transport.kicks], [0, 0], what);
  }
});

Deno.test("3.1.1-G13 no available buffer notification before DRIVER_OK, whatever the caller does in its set-up", async () => {
  const bench = new SessionBench();
  await bench.open({
    setup: (session) => {
      for (let i = 0; i < 3; i++) bench.send(session, i);
      session.publish(0);
      assertEquals(bench.transport.kicks, 0);
    },
  });
  const { log } = bench.transport;
  assertEquals(bench.transport.kicks, 1);
  assert(log.indexOf("kick 0") > log.indexOf("status 15"));
});

for (const [name, format] of FORMATS) {
  for (const inOrder of [0n, VIRTIO_F_IN_ORDER]) {
    Deno.test(`3.3.1-G1 the driver leaves the entries of exposed buffers alone, whatever else it does (${name}${inOrder === 0n ? "" : ", in order"})`, async () => {
      const bench = new SessionBench();
      const session = await bench.open({ core: format | inOrder });
      bench.device.hold();
      const { descriptorArea } = session.queue(0).config;
      const exposed = new Map<number, string>();
      const entry = (slot: number): string => {
        const bytes = new Uint8Array(16);
        bench.memory.read(descriptorArea + 16 * slot, bytes);
        return bytes.join();
      };
      const pick = random(1);
      let next = 0;
      const slots = new Map<number, number[]>();
      // Of the held chains: buffers reach the device in the order in which they were sent.
      const tokens: number[] = [];
      for (let step = 0; step < 400; step++) {
        const what = pick(4);
        if (what < 2 && session.queue(0).free >= 2) {
          const before = [...Array(8).keys()].map(entry);
          bench.send(session, next);
          // The slots that changed are the buffer's.
          const changed = [...Array(8).keys()].filter((slot) => entry(slot) !== before[slot]);
          for (const slot of changed) assert(!exposed.has(slot), `slot ${slot} is exposed`);
          for (const slot of changed) exposed.set(slot, entry(slot));
          tokens.push(next);
          slots.set(next++, changed);
        } else if (what === 2 && bench.device.held.length > 0) {
          // A packed ring has room for what is used at its oldest slots, so there the device keeps the order.
          const at = name === "split" && inOrder === 0n ? pick(bench.device.held.length) : 0;
          const [held] = bench.device.held.splice(at, 1);
          const [token] = tokens.splice(at, 1);
          for (const slot of slots.get(token!)!) exposed.delete(slot);
          bench.device.finish(0, held!.chain);
          await Promise.resolve();
        } else if (what === 3) {
          session.queue(0).take();
          session.queue(0).disableInterrupts();
          session.queue(0).enableInterrupts();
        }
        for (const [slot, bytes] of exposed) assertEquals(entry(slot), bytes, `slot ${slot}`);
      }
      assert(next > 20);
    });
  }

  Deno.test(`3.3.1-G2 exposed buffers are given back to the caller only when the device was reset and says so (${name})`, async () => {
    const bench = new SessionBench();
    const session = await bench.open({ core: format, patience: 5000 });
    bench.device.hold();
    for (let i = 0; i < 3; i++) bench.send(session, i);
    let reads = 0;
    bench.transport.lieStatus = (status) => status === 0 && reads++ < 3 ? 15 : status;
    let tokens: Map<number, number[]> | null = null;
    const free = bench.dma.available;
    const resetting = session.reset().then((lost) => tokens = lost);
    await Promise.resolve();
    assertEquals([tokens, bench.dma.available], [null, free]);
    await resetting;
    assertEquals(tokens!.get(0)!.toSorted(), [0, 1, 2]);
    assertEquals(reads, 4);
  });
}

Deno.test("3.3.1-G1 nothing takes an exposed buffer back: adding more than fits is refused", async () => {
  for (const [, format] of FORMATS) {
    const bench = new SessionBench();
    const session = await bench.open({ core: format });
    bench.device.hold();
    for (let i = 0; i < 4; i++) bench.send(session, i);
    const { descriptorArea } = session.queue(0).config;
    const image = new Uint8Array(128);
    bench.memory.read(descriptorArea, image);
    const list = new BufferList().readable(0x5000, 4);
    assertEquals(session.queue(0).add(list, 9), false);
    const after = new Uint8Array(128);
    bench.memory.read(descriptorArea, after);
    assertEquals(after, image);
  }
});

/**
 * Our console driver against our console device: every transport, both ring formats, with all ring features and without, with
 * ports that come and go. One table, one life.
 */
import { ConsoleDevice, VIRTIO_CONSOLE_F_SIZE } from "@virtio/console";
import { ConsoleDriver } from "@virtio/console/driver";
import { MemoryConsole } from "@virtio/console/memory";
import {
  CORE_FEATURES,
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_SUSPEND,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals, assertRejects } from "@std/assert";
import { FORMATS, type Join, TRANSPORTS } from "./lifecycle/transports.ts";

const POOL_SIZE = 0xe0000;

const RINGS: [string, FeatureSet][] = [
  ["no options", VIRTIO_F_SUSPEND],
  ["EVENT_IDX INDIRECT", VIRTIO_F_SUSPEND | VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC],
  ["all features", CORE_FEATURES & ~VIRTIO_F_RING_PACKED],
];

/** Bytes that are no pattern, and the same each time. */
function bytes(length: number, seed: number): Uint8Array {
  const all = new Uint8Array(length);
  let state = seed;
  for (let i = 0; i < length; i++) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    all[i] = state >>> 16;
  }
  return all;
}

/** Collects what a port receives. */
function collector(): { take: (part: Uint8Array) => void; all: () => Uint8Array } {
  const parts: Uint8Array[] = [];
  return {
    take: (part) => parts.push(part),
    all: () => {
      const total = parts.reduce((sum, part) => sum + part.length, 0);
      const all = new Uint8Array(total);
      let at = 0;
      for (const part of parts) {
        all.set(part, at);
        at += part.length;
      }
      return all;
    },
  };
}

async function until(what: string, done: () => boolean): Promise<void> {
  for (let i = 0; i < 5000 && !done(); i++) await new Promise((again) => setTimeout(again, 0));
  assert(done(), what);
}

/** Bytes both ways through two ports at once, a suspend, a port added and removed, a resize, a reset, and all of it again. */
async function live(join: Join, core: FeatureSet): Promise<void> {
  const hosts = [new MemoryConsole({ outputBuffer: 3000 }), new MemoryConsole()];
  const device = new ConsoleDevice({
    ports: [{ backend: hosts[0]!, inputBuffer: 500 }, { backend: hosts[1]!, name: "agent" }],
    maxPorts: 4,
    queueSize: 16,
  });
  const memory = GuestMemory.allocate(0x100000);
  const errors: Error[] = [];
  const { driver: transport, counters } = join(device, memory, (error) => errors.push(error));
  const dma = new DmaPool(memory, 0x1000, POOL_SIZE);
  for (let life = 0; life < 2; life++) {
    const driver = await ConsoleDriver.open(transport, { dma, core, bufferSize: 700, buffers: 5 });
    await driver.waitForPort("agent");
    const port = driver.port("agent")!;
    port.open();
    await until("the console is open", () => driver.port(0)!.opened && driver.port(0)!.hostOpen);

    const out = [0, 1].map((id) => bytes(20_000 + id, 10 * life + id + 1));
    const back = [0, 1].map((id) => bytes(15_000 + id, 10 * life + id + 5));
    const got = [collector(), collector()];
    const seen = [collector(), collector()];
    const done: Promise<void>[] = [];
    for (const id of [0, 1]) {
      driver.port(id)!.onData = got[id]!.take;
      done.push(driver.port(id)!.write(out[id]!), hosts[id]!.send(back[id]!));
    }
    const ends = Promise.all(done);
    let suspended = false;
    const pumped = (async () => {
      for (let turn = 0; seen.some((each, id) => each.all().length < out[id]!.length); turn++) {
        if (turn === 3) {
          await driver.session.suspend();
          suspended = true;
          await driver.session.resume();
        }
        for (const id of [0, 1]) seen[id]!.take(hosts[id]!.takeBytes(1000));
        await new Promise((again) => setTimeout(again, 0));
        assert(turn < 5000, "output never ends");
      }
    })();
    await Promise.all([ends, pumped]);
    assert(suspended);
    for (const id of [0, 1]) {
      await until("all input came", () => got[id]!.all().length >= back[id]!.length);
      assertEquals(seen[id]!.all(), out[id]!);
      assertEquals(got[id]!.all(), back[id]!);
    }

    const late = new MemoryConsole();
    const added = device.addPort({ backend: late, name: "late" });
    const lately = await driver.waitForPort("late");
    lately.open();
    await lately.write(new TextEncoder().encode("here"));
    assertEquals(late.takeText(), "here");
    device.removePort(added.id);
    await until("it is gone", () => lately.removed);
    await assertRejects(() => lately.write(new Uint8Array(1)));

    device.port(0)!.resize(100 + life, 30);
    await until("the size is told", () => driver.port(0)!.size?.cols === 100 + life);
    await driver.close();
    assertEquals(dma.available, POOL_SIZE);
    assertEquals(device.ports.map(({ guestOpen }) => guestOpen), [false, false]);
  }

  // A driver that knows nothing of ports.
  const single = await ConsoleDriver.open(transport, {
    dma,
    core,
    features: VIRTIO_CONSOLE_F_SIZE,
  });
  assertEquals(single.port(0)!.size, { cols: 101, rows: 30 });
  await single.port(0)!.write(new TextEncoder().encode("plain"));
  assertEquals(hosts[0]!.takeText(), "plain");
  device.port(0)!.resize(7, 8);
  await until("the size is in the configuration", () => single.port(0)!.size?.cols === 7);
  await single.close();
  assertEquals(errors, []);
  assert(counters.interrupts > 0);
}

for (const [transport, join] of TRANSPORTS) {
  for (const [format, packed] of FORMATS) {
    for (const [ring, features] of RINGS) {
      Deno.test(`console: ${transport}; ${format}; ${ring}`, () => live(join, features | packed));
    }
  }
}

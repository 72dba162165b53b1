import {
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FOUND, MmioBench, ringAddress } from "../testing/bench.ts";
import { type MmioAccess, MmioDriverTransport, ProbeError } from "./driver.ts";
import * as reg from "./mod.ts";

function config(queue: number, size = 8) {
  const base = ringAddress(queue);
  return { size, descriptorArea: base, driverArea: base + 0x400, deviceArea: base + 0x800 };
}

function probe(access: MmioAccess): MmioDriverTransport {
  const driver = MmioDriverTransport.probe(access);
  if (driver === null) throw new Error("no device was found");
  return driver;
}

function bringUp(driver: MmioDriverTransport, bench: MmioBench, features = 0n): void {
  driver.writeStatus(FOUND);
  driver.writeDriverFeatures(features | VIRTIO_F_VERSION_1);
  driver.writeStatus(FOUND | 8);
  driver.negotiated(features | VIRTIO_F_VERSION_1);
  for (const queue of [0, 1]) {
    bench.ring(queue, features);
    driver.enableQueue(queue, config(queue));
  }
  driver.writeStatus(FOUND | 8 | 4);
}

/** Registers of one's choice. */
function registers(values: Record<number, number>): MmioAccess & { reads: number[] } {
  const reads: number[] = [];
  return {
    reads,
    read(offset) {
      reads.push(offset);
      return values[offset] ?? 0;
    },
    write() {},
  };
}

Deno.test("MMIO driver: a device needs the magic, version 2 and a type", () => {
  assertThrows(() => probe(registers({})), ProbeError, "MagicValue");
  assertThrows(() => probe(registers({ 0: reg.VIRTIO_MMIO_MAGIC, 4: 1 })), ProbeError, "Version");
  const empty = registers({ 0: reg.VIRTIO_MMIO_MAGIC, 4: 2 });
  assertEquals(MmioDriverTransport.probe(empty), null);
  assertEquals(empty.reads, [0, 4, 8]);
  assertEquals(MmioDriverTransport.probe(new reg.MmioPlaceholder()), null);
  const driver = probe(new MmioBench({ vendorId: 77 }).transport);
  assertEquals([driver.deviceType, driver.vendorId, driver.queueCount], [4, 77, null]);
});

Deno.test("MMIO driver: features, queues, configuration and shared memory", () => {
  const deviceFeatures = 1n << 5n | 1n << 70n | 1n << 120n;
  const bench = new MmioBench({
    features: 0n,
    deviceFeatures,
    sharedMemory: [{ id: 2, bytes: new Uint8Array(0x123), address: 0x2_0000_0000 }],
  });
  const driver = probe(bench.transport);
  assertEquals(driver.readDeviceFeatures(), deviceFeatures | VIRTIO_F_VERSION_1);
  driver.writeStatus(FOUND);
  driver.writeDriverFeatures(deviceFeatures | VIRTIO_F_VERSION_1);
  const words = [0, 1, 2, 3].map((word) => bench.transport.state.readDriverFeatures(word));
  assertEquals(words, [32, 1, 64, 0x0100_0000]);
  driver.writeStatus(FOUND | 8);
  assertEquals(driver.readStatus(), FOUND | 8);
  assertEquals([driver.queueMaxSize(1), driver.queueMaxSize(2)], [16, 0]);
  driver.enableQueue(1, {
    size: 4,
    descriptorArea: 2 ** 40,
    driverArea: 2 ** 33 + 2,
    deviceArea: 8,
  });
  const queue = bench.transport.state.queues[1]!;
  assertEquals([queue.enabled, queue.size], [true, 4]);
  assertEquals([0, 1, 2].map((area) => queue.address(area as 0)), [2 ** 40, 2 ** 33 + 2, 8]);
  assertThrows(() => driver.enableQueue(1, config(1)), TypeError, "in use");
  assertThrows(() => driver.enableQueue(2, config(2)), RangeError, "no queue 2");
  assertThrows(() => driver.enableQueue(0, config(0, 32)), RangeError, "allows 16");
  driver.writeConfig(4, 4, 0x4433_2211);
  assertEquals([driver.readConfig(4, 4), driver.readConfig(6, 2)], [0x4433_2211, 0x4433]);
  const generation = driver.configGeneration();
  bench.device.config.update((view) => view.setUint8(0, 1));
  assert(driver.configGeneration() !== generation);
  assertEquals(driver.sharedMemory(2), { address: 0x2_0000_0000, length: 0x123 });
  assertEquals(driver.sharedMemory(3), null);
});

Deno.test("MMIO driver: kicks in both formats", () => {
  for (const features of [0n, VIRTIO_F_NOTIFICATION_DATA]) {
    const bench = new MmioBench({ features });
    const writes: [number, number, number][] = [];
    const driver = probe({
      read: (offset, size) => bench.transport.read(offset, size),
      write(offset, size, value) {
        writes.push([offset, size, value]);
        bench.transport.write(offset, size, value);
      },
    });
    bringUp(driver, bench, features);
    writes.length = 0;
    driver.kick(1, 0x8003);
    assertEquals(writes, [[0x50, 4, features === 0n ? 1 : 0x8003_0001]]);
    // The format is negotiated anew after a reset.
    driver.writeStatus(0);
    driver.kick(1, 0x8003);
    assertEquals(writes.at(-1), [0x50, 4, 1]);
  }
});

Deno.test("MMIO driver: interrupts are read, handled and acknowledged", () => {
  const bench = new MmioBench();
  const driver = probe(bench.transport);
  const events: string[] = [];
  driver.interrupts = {
    queue: (index) => events.push(`queue ${index} line ${bench.line}`),
    config: () => events.push(`config line ${bench.line}`),
  };
  bringUp(driver, bench);
  assertEquals(driver.handleInterrupt(), false);
  bench.send(0);
  assertEquals(driver.handleInterrupt(), true);
  // Once before the acknowledgement, and once after it for what came in between.
  assertEquals(events.splice(0), ["queue null line true", "queue null line false"]);
  bench.device.config.update((view) => view.setUint8(0, 1));
  assertEquals(driver.handleInterrupt(), true);
  assertEquals(events.splice(0), ["config line true"]);
  assert(!bench.line);
});

Deno.test("MMIO driver: an event between handling and acknowledging is not lost", () => {
  const bench = new MmioBench();
  const driver = probe(bench.transport);
  const tokens: number[] = [];
  let configs = 0;
  let more = true;
  driver.interrupts = {
    queue() {
      for (let token = bench.take(0); token >= 0; token = bench.take(0)) tokens.push(token);
      // The device uses this at once, while the bit is still set.
      if (more) bench.send(0, 2);
      more = false;
    },
    config() {
      configs++;
      if (configs === 1) bench.device.config.update((view) => view.setUint8(0, 2));
    },
  };
  bringUp(driver, bench);
  bench.send(0, 1);
  bench.device.config.update((view) => view.setUint8(0, 1));
  driver.handleInterrupt();
  assertEquals(tokens, [1, 2]);
  assertEquals(configs, 2);
  assert(!bench.line);
});

Deno.test("MMIO driver: stopping and resetting queues", async () => {
  const bench = new MmioBench();
  const driver = probe(bench.transport);
  bringUp(driver, bench, VIRTIO_F_RING_RESET);
  assertEquals(driver.disableQueue(1), true);
  bench.device.hold = true;
  bench.send(0);
  driver.resetQueue(0);
  assertEquals(driver.queueResetDone(0), false);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(driver.queueResetDone(0), true);
  bench.ring(0);
  driver.enableQueue(0, config(0));
  bench.send(0);
  assertEquals(driver.disableQueue(0), false);
  assertEquals(driver.queueStopped(0), false);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(driver.queueStopped(0), true);
});

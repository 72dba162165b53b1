/** Virtio 1.4, 4.2.2.1: what the device half of MMIO has to do. */
import { CORE_FEATURES, VIRTIO_F_RING_RESET, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { MmioDriverTransport } from "@virtio/transport/mmio/driver";
import * as reg from "@virtio/transport/mmio";
import { assert, assertEquals } from "@std/assert";
import { FOUND, MmioBench } from "../../packages/transport/testing/bench.ts";
import { PlacedMmio } from "./placed_bench.ts";
import { everywhere } from "./places.ts";

// In process only: no device has a part in it.
Deno.test("4.2.2.1-D1 4.2.2.1-D2 MagicValue is 0x74726976 and Version 2", () => {
  const bench = new MmioBench();
  for (let i = 0; i < 2; i++) {
    assertEquals([bench.read(0x000), bench.read(0x004)], [0x74726976, 2]);
    bench.write(0x000, 0);
    bench.write(0x004, 1);
  }
});

everywhere(
  "4.2.2.1-D3 an event is in InterruptStatus from when it happens until it is acknowledged",
  async (place) => {
    const bench = await PlacedMmio.open(place);
    bench.start();
    for (
      const [cause, bit, other] of [
        [() => bench.send(0), reg.VIRTIO_MMIO_INT_VRING, reg.VIRTIO_MMIO_INT_CONFIG],
        [() => bench.echo.change(), reg.VIRTIO_MMIO_INT_CONFIG, reg.VIRTIO_MMIO_INT_VRING],
      ] as const
    ) {
      cause();
      for (let i = 0; i < 3; i++) {
        assertEquals([bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), bench.line], [bit, true]);
      }
      bench.write(reg.VIRTIO_MMIO_INTERRUPT_ACK, other);
      assertEquals([bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), bench.line], [bit, true]);
      bench.write(reg.VIRTIO_MMIO_INTERRUPT_ACK, bit);
      assertEquals([bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), bench.line], [0, false]);
    }
  },
);

everywhere("4.2.2.1-D4 bits of InterruptStatus without an event are 0", async (place) => {
  const bench = await PlacedMmio.open(place);
  const status = () => bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS);
  assertEquals(status(), 0);
  bench.start();
  assertEquals(status(), 0);
  bench.add(0);
  assertEquals(status(), 0);
  bench.kick(0);
  assertEquals(status(), 1);
  bench.write(reg.VIRTIO_MMIO_INTERRUPT_STATUS, 0xffff_ffff);
  assertEquals(status(), 1);
  bench.echo.change();
  assertEquals(status(), 3);
});

everywhere("4.2.2.1-D5 a reset clears InterruptStatus and every QueueReady", async (place) => {
  const bench = await PlacedMmio.open(place, { queueSizes: [8, 8, 8] });
  bench.start();
  bench.send(1);
  bench.echo.change();
  assertEquals([bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), bench.line], [3, true]);
  bench.status = 0;
  assertEquals([bench.read(reg.VIRTIO_MMIO_INTERRUPT_STATUS), bench.line], [0, false]);
  for (let queue = 0; queue < 3; queue++) {
    bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, queue);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  }
});

everywhere(
  "4.2.2.1-D6 ConfigGeneration changes with the configuration, 256 changes or one",
  async (place) => {
    const bench = await PlacedMmio.open(place);
    for (const changes of [1, 2, 256]) {
      const before = bench.read(reg.VIRTIO_MMIO_CONFIG_GENERATION);
      bench.transport.read(0x100, 4);
      bench.echo.change(changes);
      bench.transport.read(0x104, 4);
      assert(bench.read(reg.VIRTIO_MMIO_CONFIG_GENERATION) !== before);
    }
  },
);

everywhere("4.2.2.1-D7 a queue whose QueueReady is 0 is not touched", async (place) => {
  const bench = await PlacedMmio.open(place);
  bench.negotiate();
  bench.ring(0);
  bench.ring(1);
  bench.add(0);
  bench.enable(1);
  const before = bench.memory.regions[0]!.bytes.slice(0x1000, 0x2000);
  bench.status = FOUND | 8 | 4;
  bench.kick(0);
  // And one that was ready.
  bench.send(1);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 1);
  bench.write(reg.VIRTIO_MMIO_QUEUE_READY, 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  bench.add(1);
  const stopped = bench.memory.regions[0]!.bytes.slice(0x2000, 0x3000);
  bench.kick(1);
  await bench.echo.turns(1);
  assertEquals(bench.memory.regions[0]!.bytes.slice(0x1000, 0x2000), before);
  assertEquals(bench.memory.regions[0]!.bytes.slice(0x2000, 0x3000), stopped);
  assertEquals(bench.echo.handled, [0, 1]);
});

everywhere("4.2.2.1-D8 QueueReset reads 0 after a reset", async (place) => {
  const bench = await PlacedMmio.open(place);
  bench.start(VIRTIO_F_RING_RESET);
  bench.echo.hold();
  bench.send(0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 1);
  bench.status = 0;
  await bench.transport.state.settled();
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 0);
});

everywhere("4.2.2.1-D9 QueueReset reads 0 after the queue is enabled", async (place) => {
  const bench = await PlacedMmio.open(place);
  bench.start(VIRTIO_F_RING_RESET);
  for (let i = 0; i < 2; i++) {
    bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 1);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 0);
    bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
    bench.ring(0);
    bench.enable(0);
  }
});

everywhere("4.2.2.1-D10 writing 1 to QueueReset resets the queue", async (place) => {
  const bench = await PlacedMmio.open(place);
  bench.start(VIRTIO_F_RING_RESET);
  bench.send(0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
  bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
  const queue = bench.transport.state.queues[0]!;
  assertEquals([queue.enabled, queue.size, queue.address(0)], [false, 16, 0]);
  bench.add(0);
  bench.kick(0);
  assertEquals(bench.echo.handled, [1, 0]);
  bench.ring(0);
  bench.enable(0);
  bench.send(0, 8);
  bench.send(1, 9);
  assertEquals([bench.take(0), bench.take(1)], [8, 9]);
});

everywhere(
  "4.2.2.1-D11 4.2.2.1-D12 QueueReset reads 1 while the reset goes on, then it and QueueReady read 0",
  async (place) => {
    const bench = await PlacedMmio.open(place);
    bench.start(VIRTIO_F_RING_RESET);
    bench.echo.hold();
    bench.send(0);
    bench.write(reg.VIRTIO_MMIO_QUEUE_SEL, 0);
    bench.write(reg.VIRTIO_MMIO_QUEUE_RESET, 1);
    for (let i = 0; i < 3; i++) {
      assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 1);
      await Promise.resolve();
    }
    bench.echo.release();
    await bench.echo.turns(1);
    await bench.transport.state.settled();
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_RESET), 0);
    assertEquals(bench.read(reg.VIRTIO_MMIO_QUEUE_READY), 0);
  },
);

everywhere(
  "4.2.2 DeviceID, VendorID and the selected words are what the device is",
  async (place) => {
    const bench = await PlacedMmio.open(place, { vendorId: 0x1234, deviceFeatures: 1n << 100n });
    assertEquals([bench.read(0x008), bench.read(0x00c)], [4, 0x1234]);
    assertEquals(
      MmioDriverTransport.probe(bench.transport)!.readDeviceFeatures() & ~CORE_FEATURES,
      1n << 100n,
    );
    assert((bench.transport.state.offered & VIRTIO_F_VERSION_1) !== 0n);
  },
);

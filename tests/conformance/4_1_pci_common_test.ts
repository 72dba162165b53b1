/** Virtio 1.4, 4.1.3 and 4.1.4.3: what the device half has to do in the common configuration. */
import {
  CORE_FEATURES,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import * as pci from "@virtio/transport/pci";
import { assert, assertEquals } from "@std/assert";
import { FOUND, LIVE, MEMORY } from "../../packages/transport/testing/bench.ts";
import { PlacedPci } from "./placed_bench.ts";
import { everywhere } from "./places.ts";

const field = pci.CommonCfg;

everywhere("4.1.3.2-D1 the halves of 64-bit fields are accessed independently", async (place) => {
  const bench = await PlacedPci.open(place);
  for (const at of [field.queueDesc, field.queueDriver, field.queueDevice]) {
    bench.setCommon(at + 4, 4, 0x0102_0304);
    assertEquals([bench.common(at, 4), bench.common(at + 4, 4)], [0, 0x0102_0304]);
    bench.setCommon(at, 4, 0x0506_0708);
    assertEquals([bench.common(at, 4), bench.common(at + 4, 4)], [0x0506_0708, 0x0102_0304]);
  }
  // In the device-specific configuration too.
  bench.negotiate();
  for (const [at, value] of [[12, 0x1122_3344], [8, 0x5566_7788]] as const) {
    bench.transport.barWrite(MEMORY.bar, MEMORY.device + at, 4, value);
  }
  assertEquals(bench.readDevice(12, 4), 0x1122_3344);
  assertEquals(bench.readDevice(8, 4), 0x5566_7788);
  assertEquals(bench.echo.configWrites, [
    [12, [0x44, 0x33, 0x22, 0x11]],
    [8, [0x88, 0x77, 0x66, 0x55]],
  ]);
});

everywhere(
  "4.1.4.3.1-D3 device_feature shows the offered bits of any selected word",
  async (place) => {
    const deviceFeatures = 1n << 1n | 1n << 63n | 1n << 65n | 1n << 127n;
    const bench = await PlacedPci.open(place, { deviceFeatures });
    const offered = bench.transport.state.offered;
    assertEquals(offered & ~CORE_FEATURES, deviceFeatures);
    for (const word of [0, 1, 2, 3, 4, 5, 0x8000_0000, 0xffff_ffff]) {
      bench.setCommon(field.deviceFeatureSelect, 4, word);
      const expected = word > 3 ? 0 : Number((offered >> BigInt(32 * word)) & 0xffff_ffffn);
      assertEquals(bench.common(field.deviceFeature, 4), expected);
    }
  },
);

everywhere(
  "4.1.4.3.1-D4 driver_feature shows the valid bits that the driver wrote to any selected word",
  async (place) => {
    const offered = 1n << 1n | 1n << 63n | 1n << 65n | 1n << 127n;
    const bench = await PlacedPci.open(place, { deviceFeatures: offered });
    bench.status = FOUND;
    bench.writeFeatures(offered | VIRTIO_F_VERSION_1);
    for (const word of [3, 1, 0, 2]) {
      bench.setCommon(field.driverFeatureSelect, 4, word);
      const expected = Number(((offered | VIRTIO_F_VERSION_1) >> BigInt(32 * word)) & 0xffff_ffffn);
      assertEquals(bench.common(field.driverFeature, 4), expected);
    }
    bench.status = FOUND | 8;
    assertEquals(bench.status, FOUND | 8, "they are valid");
    for (const word of [4, 0xffff_ffff]) {
      bench.setCommon(field.driverFeatureSelect, 4, word);
      bench.setCommon(field.driverFeature, 4, 0xffff_ffff);
      assertEquals(bench.common(field.driverFeature, 4), 0);
    }
  },
);

everywhere(
  "4.1.4.3.1-D5 invalid bits are mirrored too, and refused with FEATURES_OK",
  async (place) => {
    const bench = await PlacedPci.open(place);
    bench.status = FOUND;
    bench.writeFeatures(VIRTIO_F_VERSION_1 | 1n << 5n);
    bench.setCommon(field.driverFeatureSelect, 4, 0);
    assertEquals(bench.common(field.driverFeature, 4), 1 << 5);
    bench.status = FOUND | 8;
    assertEquals(bench.status, FOUND);
  },
);

everywhere(
  "4.1.4.3.1-D6 config_generation has changed after a changed value was read, 256 changes or one",
  async (place) => {
    for (const changes of [1, 2, 255, 256, 512]) {
      const bench = await PlacedPci.open(place);
      bench.readDevice(0, 1);
      const before = bench.common(field.configGeneration, 1);
      bench.echo.change(changes);
      bench.readDevice(0, 1);
      assert(bench.common(field.configGeneration, 1) !== before);
    }
    // A driver that reads two fields around a change sees two generations.
    const bench = await PlacedPci.open(place);
    const before = bench.common(field.configGeneration, 1);
    bench.readDevice(0, 4);
    bench.echo.change(1, 4);
    bench.readDevice(4, 4);
    assert(bench.common(field.configGeneration, 1) !== before);
  },
);

everywhere(
  "4.1.4.3.1-D7 writing 0 to device_status resets, and it reads 0 once that is done",
  async (place) => {
    const bench = await PlacedPci.open(place);
    bench.echo.delayStop();
    bench.start();
    bench.status = 0;
    assertEquals(bench.status, LIVE);
    bench.send(0);
    assertEquals(bench.echo.handled, [0, 0]);
    bench.echo.finishStop();
    await bench.echo.turns(1);
    await bench.transport.state.settled();
    assertEquals(bench.status, 0);
    assertEquals(bench.common(field.driverFeature, 4), 0);
  },
);

everywhere(
  "4.1.4.3.1-D8 4.1.4.3.1-D9 queue_enable and queue_reset read 0 after a reset",
  async (place) => {
    const bench = await PlacedPci.open(place);
    bench.start(VIRTIO_F_RING_RESET);
    bench.echo.hold();
    bench.send(0);
    bench.select(0);
    bench.setCommon(field.queueReset, 2, 1);
    assertEquals(bench.common(field.queueReset, 2), 1);
    bench.status = 0;
    await bench.transport.state.settled();
    for (const queue of [0, 1]) {
      bench.select(queue);
      assertEquals([bench.common(field.queueEnable, 2), bench.common(field.queueReset, 2)], [0, 0]);
    }
  },
);

everywhere("4.1.4.3.1-D10 queue_reset reads 0 after the queue is enabled", async (place) => {
  const bench = await PlacedPci.open(place);
  bench.start(VIRTIO_F_RING_RESET);
  bench.select(0);
  assertEquals([bench.common(field.queueEnable, 2), bench.common(field.queueReset, 2)], [1, 0]);
  bench.setCommon(field.queueReset, 2, 1);
  bench.ring(0);
  bench.enable(0);
  assertEquals([bench.common(field.queueEnable, 2), bench.common(field.queueReset, 2)], [1, 0]);
});

everywhere("4.1.4.3.1-D11 writing 1 to queue_reset resets the queue", async (place) => {
  const bench = await PlacedPci.open(place);
  bench.start(VIRTIO_F_RING_RESET);
  bench.send(0);
  bench.select(0);
  bench.setCommon(field.queueReset, 2, 1);
  assertEquals(bench.common(field.queueSize, 2), 16);
  assertEquals(bench.common(field.queueDesc, 4), 0);
  // It starts from the beginning of a new ring, and the other queue knows nothing of it.
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
  "4.1.4.3.1-D12 4.1.4.3.1-D13 queue_reset reads 1 while the reset goes on, then both read 0",
  async (place) => {
    const bench = await PlacedPci.open(place);
    bench.start(VIRTIO_F_RING_RESET);
    bench.echo.hold();
    bench.send(0);
    bench.select(0);
    bench.setCommon(field.queueReset, 2, 1);
    for (let i = 0; i < 3; i++) {
      assertEquals(bench.common(field.queueReset, 2), 1);
      await Promise.resolve();
    }
    bench.echo.release();
    await bench.echo.turns(1);
    await bench.transport.state.settled();
    assertEquals([bench.common(field.queueReset, 2), bench.common(field.queueEnable, 2)], [0, 0]);
  },
);

everywhere("4.1.4.3.1-D14 queue_size reads 0 for a queue that is not there", async (place) => {
  const bench = await PlacedPci.open(place, { queueSizes: [8, 8, 8] });
  for (const queue of [3, 4, 0xffff]) {
    bench.select(queue);
    bench.setCommon(field.queueSize, 2, 8);
    assertEquals(bench.common(field.queueSize, 2), 0);
  }
});

everywhere(
  "4.1.4.3.1-D15 without packed rings queue_size is a power of 2, whatever the device or the driver says",
  async (place) => {
    for (const size of [1, 3, 100, 128, 0x7fff]) {
      const bench = await PlacedPci.open(place, { queueSizes: [size] });
      for (const write of [undefined, 5, 0, 0xffff, 6]) {
        if (write !== undefined) bench.setCommon(field.queueSize, 2, write);
        const shown = bench.common(field.queueSize, 2);
        assert(shown > 0 && shown <= size && (shown & (shown - 1)) === 0, `${shown} for ${size}`);
      }
      bench.negotiate(VIRTIO_F_RING_PACKED);
      assertEquals(bench.common(field.queueSize, 2), size);
    }
  },
);

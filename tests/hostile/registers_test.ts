/** Registers in the wrong order, with the wrong values, at the wrong time (bug class 8). */
import { assert, assertEquals } from "@std/assert";
import {
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "@virtio/device";
import { ringLayout } from "@virtio/vring";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import { FORMATS, rawDriver } from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, BUSES, echoes, END, HIGH, Machine, turns } from "./machine.ts";

const FEATURES_OK = 11;
const LIVE = 15;

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    const on = `${format} over ${bus}`;
    const make = () => new Machine(new EchoDevice({ queueSizes: [8, 8] }), bus);

    Deno.test(`class 8, ${on}: size and addresses written after a queue was enabled change nothing`, async () => {
      const machine = make();
      machine.start(feature);
      const { registers } = machine.victim;
      for (let lap = 0; lap < 3; lap++) {
        registers.select(0);
        for (const size of [0, 1, 2, 4, 16, 0x8000, 0xffff]) registers.size(size);
        for (const area of [0, 1, 2] as const) {
          registers.address(area, 0, 0xffff_fff0);
          registers.address(area, 1, 0xffff_ffff);
        }
        registers.enable(1);
        await echoes(machine);
      }
      assertEquals(machine.victim.state.queues[0]!.size, 8);
      assertEquals(machine.needsReset, false);
    });

    Deno.test(`class 8, ${on}: queues that do not exist can be selected and written, and nothing happens`, async () => {
      const machine = make();
      machine.start(feature);
      const { registers } = machine.victim;
      const unchanged = machine.watch();
      for (const queue of [2, 3, 0x7fff, 0xffff, 0x1_0000, 0xffff_ffff]) {
        registers.select(queue);
        registers.size(8);
        for (const area of [0, 1, 2] as const) registers.address(area, 0, BUFFERS);
        registers.enable(1);
        registers.reset(1);
        registers.enable(0);
        registers.notify(queue);
        machine.kick(queue & 0xffff);
      }
      await turns(2);
      unchanged();
      assertEquals(machine.needsReset, false);
      // PCI has 16 bits to select with: the last one was queue 65535.
      await echoes(machine);
      await machine.checkBystander();
    });

    Deno.test(`class 8, ${on}: a queue of a bad size, or at a bad place, makes the device ask for a reset at DRIVER_OK; a reset heals it`, async () => {
      const good = make().place(0, 8, feature);
      const layout = ringLayout(format, 8);
      const bad = [
        ...(format === "split" && bus === "mmio" ? [{ size: 3 }, { size: 7 }] : []),
        ...(bus === "mmio" ? [{ size: 0 }, { size: 0x1_0008 }, { size: 0xffff_ffff }] : []),
        { size: 16 },
        { size: 0x8000 },
        { descriptorArea: good.descriptorArea + 8 },
        { driverArea: good.driverArea + 1 },
        { deviceArea: good.deviceArea + 2 },
        { descriptorArea: END },
        { descriptorArea: END - layout.descriptorArea.size + 16 },
        { driverArea: END - layout.driverArea.size + 8 },
        { deviceArea: END - layout.deviceArea.size + 8 },
        { deviceArea: HIGH + 0x1_0000 },
        { deviceArea: 0x8000_0000 },
        { descriptorArea: 2 ** 64 - 2048 },
        { driverArea: 2 ** 53 },
      ].map((change) => ({ ...good, ...change }));
      for (const config of bad) {
        const machine = make();
        const { registers, driver } = machine.victim;
        const unchanged = machine.watch();
        registers.status(1);
        registers.status(3);
        driver.writeDriverFeatures(feature | VIRTIO_F_VERSION_1);
        registers.status(FEATURES_OK);
        registers.select(0);
        registers.size(config.size);
        const areas = [config.descriptorArea, config.driverArea, config.deviceArea] as const;
        for (const area of [0, 1, 2] as const) {
          registers.address(area, 0, areas[area] % 2 ** 32);
          registers.address(area, 1, Math.floor(areas[area] / 2 ** 32));
        }
        registers.enable(1);
        assertEquals(machine.needsReset, false, "nothing is looked at before DRIVER_OK");
        registers.status(LIVE);
        const what = JSON.stringify(config);
        assertEquals(machine.needsReset, true, what);
        assertEquals(machine.victim.errors.length, 1);
        unchanged();
        await machine.checkBystander();
        await machine.reset();
        machine.start(feature);
        await echoes(machine);
      }
    });

    Deno.test(`class 8, ${on}: a kick before DRIVER_OK, for a queue that is not enabled, or after a reset, does nothing`, async () => {
      const machine = make();
      const { registers, driver, device } = machine.victim;
      const kickAll = () => {
        for (const value of [0, 1, 2, 0xffff]) registers.notify(value);
      };
      kickAll();
      for (const status of [1, 3]) {
        registers.status(status);
        kickAll();
      }
      driver.writeDriverFeatures(feature | VIRTIO_F_VERSION_1);
      registers.status(FEATURES_OK);
      const config = machine.place(0, 8, feature);
      const ring = rawDriver(machine.memory, config, feature);
      driver.negotiated(feature | VIRTIO_F_VERSION_1);
      driver.enableQueue(0, config);
      ring.send([{ address: BUFFERS, length: 1 }]);
      kickAll();
      assertEquals(device.handled, [0, 0]);
      registers.status(LIVE);
      assertEquals(device.handled, [1, 0], "and what was made available early is not lost");
      kickAll();
      registers.status(0);
      ring.send([{ address: BUFFERS, length: 1 }]);
      kickAll();
      await turns(2);
      assertEquals(device.handled, [1, 0]);
    });

    Deno.test(`class 8, ${on}: features written after FEATURES_OK change nothing`, async () => {
      const machine = make();
      machine.start(feature);
      const before = machine.victim.state.features;
      for (const word of [0, 1, 2, 3, 4, 0xffff_ffff]) {
        machine.victim.registers.features(word, 0xffff_ffff);
        machine.victim.registers.features(word, 0);
      }
      assertEquals(machine.victim.state.features, before);
      await echoes(machine);
    });

    Deno.test(`class 8, ${on}: any two statuses after one another, from any state, leave a device that a reset heals`, async () => {
      const machine = make();
      const features = feature | VIRTIO_F_SUSPEND | VIRTIO_F_RING_RESET;
      const { registers, driver } = machine.victim;
      const prepare: [string, () => void][] = [
        ["reset", () => {}],
        ["agreed", () => {
          registers.status(1);
          registers.status(3);
          driver.writeDriverFeatures(features | VIRTIO_F_VERSION_1);
          registers.status(FEATURES_OK);
        }],
        ["live", () => machine.start(features)],
        ["suspended", () => {
          machine.start(features);
          registers.status(LIVE | 16);
        }],
        ["broken", () => {
          machine.start(features).send([{ address: END, length: 1 }]);
          machine.kick();
        }],
      ];
      const values = [0, 1, 2, 3, 4, 5, 7, 8, 11, 15, 16, 27, 31, 32, 64, 79, 128, 143, 255];
      for (const [, set] of prepare) {
        for (const first of values) {
          for (const second of values) {
            registers.status(0);
            if (driver.readStatus() !== 0) await machine.reset();
            set();
            registers.status(first);
            machine.kick();
            registers.status(second);
            machine.kick();
            assertEquals(driver.readStatus() & ~0xff, 0);
          }
        }
      }
      await machine.reset();
      machine.victim.errors.length = 0;
      machine.start(feature);
      await echoes(machine);
      await machine.checkBystander();
    });

    Deno.test(`class 8, ${on}: queues reset, disabled and enabled again in any order do not confuse the device`, async () => {
      const machine = make();
      const features = feature | VIRTIO_F_RING_RESET;
      const { registers, driver, device } = machine.victim;
      for (const hold of [false, true]) {
        for (
          const steps of [
            "rr",
            "rd",
            "dr",
            "dd",
            "de",
            "re",
            "ree",
            "rde",
            "dre",
            "ss",
            "rs",
            "sr",
            "dse",
            "srl",
            "rsl",
            "sdel",
          ]
        ) {
          await machine.reset();
          const ring = machine.start(features | VIRTIO_F_SUSPEND, 8, 2);
          device.hold = hold;
          ring.send([{ address: BUFFERS, length: 1 }]);
          machine.kick();
          registers.select(0);
          for (const step of steps) {
            if (step === "r") registers.reset(1);
            if (step === "d") registers.enable(0);
            if (step === "e") registers.enable(1);
            if (step === "s") registers.status(LIVE | 16);
            if (step === "l") registers.status(LIVE);
          }
          await turns(1);
          device.hold = false;
          device.release();
          await turns(3);
          // Whatever became of the queue: a reset ends, and heals.
          await machine.reset();
          machine.victim.errors.length = 0;
          machine.start(feature);
          await echoes(machine);
        }
      }
      assertEquals(driver.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET, 0);
    });
  }

  Deno.test(`class 8, ${bus}: configuration accesses at any offset and width are within the device's bytes`, () => {
    const machine = new Machine(new EchoDevice({ queueSizes: [8], configSize: 12 }), bus);
    machine.start();
    const { registers, device, driver } = machine.victim;
    for (const offset of [0, 3, 8, 9, 11, 12, 13, 100, 0xfff, 0xffff]) {
      for (const size of [1, 2, 4] as const) {
        const before = device.configWrites.length;
        if (bus === "mmio" || offset < 0x1000) registers.config(offset, size, 0xffff_ffff);
        const taken = device.configWrites.length > before;
        assert(!taken || offset + size <= 12, `${size} bytes at ${offset}`);
        driver.readConfig(offset, size);
      }
    }
    assertEquals(machine.needsReset, false);
  });
}

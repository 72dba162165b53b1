/** Packed: what each value of the event suppression flags makes the other side do (2.8.10). */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { openQueue, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED } from "./mod.ts";
import { BufferList, openDriverQueue } from "./driver.ts";
import { placeQueue } from "./testing/raw_driver.ts";

/** ENABLE, DISABLE, DESC, and the reserved value: it must not lose a notification. */
const FLAGS = [0, 1, 2, 3];
const config = placeQueue(8, 0, "packed");

function setup(features: bigint) {
  const memory = GuestMemory.allocate(0x8000);
  return {
    memory,
    driver: openDriverQueue(memory, config, VIRTIO_F_RING_PACKED | features),
    device: openQueue(memory, config, VIRTIO_F_RING_PACKED | features),
  };
}

function suppress(memory: GuestMemory, area: number, slot: number, flags: number): void {
  memory.writeU16(area, slot | 1 << 15);
  memory.writeU16(area + 2, flags);
}

for (const [features, far] of [[0n, true], [VIRTIO_F_EVENT_IDX, false]] as const) {
  const name = `packed, ${features === 0n ? "without" : "with"} EVENT_IDX`;

  Deno.test(`${name}: when the device interrupts, by the driver's flags`, () => {
    for (const [slot, wanted] of [[0, true], [5, far]] as const) {
      const told = FLAGS.map((flags) => {
        const { memory, driver, device } = setup(features);
        driver.add(new BufferList().writable(0x4000, 4), 70);
        driver.publish();
        suppress(memory, config.driverArea, slot, flags);
        device.push(device.pop()!);
        return device.flush();
      });
      assertEquals(told, [true, false, wanted, true]);
    }
  });

  Deno.test(`${name}: when the driver kicks, by the device's flags`, () => {
    for (const [slot, wanted] of [[0, true], [5, far]] as const) {
      const told = FLAGS.map((flags) => {
        const { memory, driver } = setup(features);
        suppress(memory, config.deviceArea, slot, flags);
        driver.add(new BufferList().writable(0x4000, 4), 70);
        return driver.publish();
      });
      assertEquals(told, [true, false, wanted, true]);
    }
  });
}

/** A device behind vhost-user allocates nothing for a request either, whether requests in flight are written down or not. */
import { assert } from "@std/assert";
import { QueueDevice } from "@virtio/device";
import { EventFd } from "@virtio/linux";
import { GuestMemory } from "@virtio/memory";
import { type Chain, VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { DeviceRunner } from "../../packages/vhost-user/backend/device_runner.ts";
import { type InflightPlace, inflightSize } from "../../packages/vhost-user/backend/inflight.ts";
import { BATCH, bytesPerRequest, CLEAN } from "./bytes.ts";

const CONFIG = { size: 256, descriptorArea: 0x1000, driverArea: 0x3000, deviceArea: 0x4000 };

class StatusDevice extends QueueDevice {
  planted: unknown = null;
  readonly #plants: boolean;
  constructor(plants: boolean) {
    super({ type: 4, queueSizes: [256] });
    this.#plants = plants;
  }
  protected override handle(chain: Chain): void {
    chain.reader.struct(16);
    if (this.#plants) this.planted = { readable: chain.readable };
    chain.writer.skip(1);
  }
}

class Rig {
  readonly #memory: GuestMemory = GuestMemory.allocate(0x2_0000);
  readonly #driver: DriverQueue;
  readonly #runner: DeviceRunner;
  readonly #list: BufferList = new BufferList();
  readonly call: EventFd = EventFd.create();

  constructor(features: bigint, noted: boolean, plants = false) {
    this.#driver = openDriverQueue(this.#memory, CONFIG, features);
    this.#runner = new DeviceRunner(new StatusDevice(plants), null, {
      interrupt: () => {},
      configChanged: () => {},
      failed: (error) => {
        throw error;
      },
    });
    this.#runner.start(this.#memory, features);
    this.#runner.setCall(0, this.call.descriptor);
    const inflight: InflightPlace = {
      buffer: new SharedArrayBuffer(inflightSize(256, true)),
      offset: 0,
      entries: 256,
    };
    const wrap = features & VIRTIO_F_RING_PACKED ? 1 : 0;
    const position = { nextAvail: 0, nextUsed: 0, availWrap: wrap, usedWrap: wrap };
    this.#runner.startQueue(0, {
      config: { ...CONFIG, position },
      kick: -1,
      polled: false,
      inflight: noted ? inflight : null,
    });
  }

  batch(): void {
    const driver = this.#driver;
    for (let i = 0; i < BATCH; i++) {
      this.#list.clear().readable(0x8000 + 64 * i, 16).writable(0x8020 + 64 * i, 1);
      driver.add(this.#list, i);
    }
    driver.publish();
    this.#runner.kick(0);
    for (let i = 0; i < BATCH; i++) {
      if (driver.take() < 0) throw new Error("A request was not answered");
    }
    driver.enableInterrupts();
  }

  close(): void {
    this.#runner.stop();
    this.call.close();
  }
}

for (const [name, features] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (const noted of [false, true]) {
    Deno.test(`vhost-user, ${name}${noted ? ", notes of what is in flight" : ""}: a request takes no memory`, () => {
      const rig = new Rig(features | VIRTIO_F_EVENT_IDX, noted);
      const bytes = bytesPerRequest(rig);
      assert(bytes <= CLEAN, `${bytes} bytes a request`);
      assert(rig.call.take(), "Interrupts were sent");
      rig.close();
    });
  }
}

Deno.test("vhost-user: what is allocated for one request more is seen", () => {
  const rig = new Rig(0n, true, true);
  const bytes = bytesPerRequest(rig, 0);
  assert(bytes > CLEAN, `${bytes} bytes a request`);
  rig.close();
});

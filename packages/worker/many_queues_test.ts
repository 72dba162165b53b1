/** A device in a worker with very many queues, as a network device of 1024 pairs has. */
import type { Device } from "@virtio/device";
import { assertEquals, assertRejects } from "@std/assert";
import { LIVE, Rig } from "../device/testing.ts";
import { rawDriver } from "../vring/testing/raw_driver.ts";
import { WorkerDevice } from "./mod.ts";

const open = (queues: number): WorkerDevice =>
  new WorkerDevice(new URL("./testing/many_worker.ts", import.meta.url), { data: queues });

Deno.test("each of 2049 queues is kicked and heard for itself", async () => {
  const device = open(2049);
  try {
    await device.ready;
    const rig = new Rig<Device>({ device });
    rig.negotiate();
    // Those whose counters would lie where calls, news and the lease do, if there were room for 1024.
    const tried = [0, 1023, 1024, 1037, 1038, 1053, 1069, 2048];
    const raws = tried.map((queue, i) => {
      const config = rig.place(i, 4, 0n);
      rig.enable(queue, config);
      return rawDriver(rig.memory, config, 0n);
    });
    rig.status = LIVE;
    for (const [i, raw] of raws.entries()) {
      raw.send([{ address: 0x8_0000, length: 4, write: true }]);
      rig.state.notify(tried[i]!);
      for (let tries = 0; tries < 10 && rig.interrupts.length <= i; tries++) device.wait(1000);
      assertEquals(raw.takeUsed().length, 1, `queue ${tried[i]}`);
    }
    assertEquals(rig.interrupts, tried);
    rig.status = 0;
    assertEquals([rig.status, device.alive], [0, true]);
  } finally {
    device.close();
  }
});

Deno.test("a device with more queues than there are counters is refused", async () => {
  const device = open(4097);
  await assertRejects(() => device.ready, RangeError, "4096 queues");
  device.close();
});

/** What a device in a worker wrote is told to the memory's tracker, also where the driver wants no interrupts. */
import { type Device, VIRTIO_F_RING_RESET } from "@virtio/device";
import { assert, assertEquals } from "@std/assert";
import { LIVE, Rig, turns } from "../device/testing.ts";
import { WorkerDevice } from "./mod.ts";

const BUFFER = 0x8_0000;

/** A live device whose driver wants no interrupts. */
async function open(query: string) {
  const source = new URL(`./testing/writing_worker.ts${query}`, import.meta.url);
  const device = new WorkerDevice(source);
  await device.ready;
  const rig = new Rig<Device>({ device });
  const marked: [number, number][] = [];
  rig.memory.tracker = { mark: (address, length) => marked.push([address, length]) };
  const raw = rig.startRaw(VIRTIO_F_RING_RESET);
  rig.memory.writeU16(raw.config.driverArea, 1);
  marked.length = 0;
  const told = (): boolean =>
    marked.some(([at, length]) => at <= BUFFER && at + length >= BUFFER + 4096);
  /** Sends a buffer and looks until it is used, without a turn of the event loop. */
  const send = (later: boolean): void => {
    const readable = later ? [{ address: BUFFER - 16, length: 4 }] : [];
    raw.send([...readable, { address: BUFFER, length: 4096, write: true }]);
    rig.state.notify(0);
    const until = performance.now() + 10_000;
    while (raw.takeUsed().length === 0) assert(performance.now() < until, "it is used");
  };
  return { device, rig, told, send };
}

for (const query of ["", "?sleep"]) {
  for (const later of [false, true]) {
    const name = `${query === "" ? "in the event loop" : "asleep"}, ${later ? "later" : "at once"}`;

    Deno.test(`what was written is told soon, without an interrupt (${name})`, async () => {
      const { device, rig, told, send } = await open(query);
      try {
        send(later);
        const until = performance.now() + 10_000;
        while (!told()) {
          assert(performance.now() < until, "it is told");
          await turns(1);
        }
        assertEquals(rig.interrupts, []);
      } finally {
        device.close();
      }
    });

    Deno.test(`what was written is told before a queue counts as stopped, and before a reset is over (${name})`, async () => {
      for (const stop of ["queue", "reset"]) {
        const { device, rig, told, send } = await open(query);
        try {
          send(later);
          if (stop === "queue") rig.state.resetQueue(0);
          else rig.status = 0;
          assertEquals(rig.status, stop === "queue" ? LIVE : 0);
          assert(told(), stop);
        } finally {
          device.close();
        }
      }
    });
  }
}

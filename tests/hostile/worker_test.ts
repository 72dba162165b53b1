/**
 * A device in a worker in the hands of a hostile driver: what breaks a rule there costs the device, and neither the worker nor
 * this side; a worker that does not answer is given up.
 */
import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { WorkerDevice, WorkerError } from "@virtio/worker";
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  FORMATS,
  type RawDescriptor,
  RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, BUSES, END, Machine, turns } from "./machine.ts";

const module = new URL("../../packages/worker/testing/echo_worker.ts", import.meta.url);

async function until(what: string, done: () => boolean): Promise<void> {
  for (let i = 0; i < 5000; i++) {
    if (done()) return;
    await new Promise((again) => setTimeout(again, 1));
  }
  throw new Error(`In vain: ${what}`);
}

type Rig = Machine<WorkerDevice>;

async function setup(bus: typeof BUSES[number], patience = 10_000): Promise<Rig> {
  const device = new WorkerDevice(module, { patience });
  await device.ready;
  return new Machine(device, bus, {
    memory: new GuestMemory([{ base: 0, buffer: new SharedArrayBuffer(END) }]),
  });
}

/** A request goes through the worker. */
async function works(rig: Rig): Promise<void> {
  const { memory } = rig;
  const ring = rig.rings[0]!;
  memory.writeU32(BUFFERS, 0x1234_5678);
  memory.writeU32(BUFFERS + 16, 0);
  ring.takeUsed();
  ring.send([{ address: BUFFERS, length: 4 }, { address: BUFFERS + 16, length: 4, write: true }]);
  rig.kick();
  let used: number[] = [];
  await until("the worker answers", () => {
    used = ring.takeUsed().map(({ length }) => length);
    return used.length > 0;
  });
  assertEquals(used, [4]);
  assertEquals(memory.readU32(BUFFERS + 16), 0x1234_5678);
}

const BAD: readonly (readonly [what: string, chain: readonly RawDescriptor[]])[] = [
  ["a buffer that is not in guest memory", [{ address: 0x4000_0000, length: 4 }]],
  ["a buffer across the end of guest memory", [{ address: END - 4, length: 8, write: true }]],
  ["a writable buffer before a readable one", [
    { address: BUFFERS, length: 4, write: true },
    { address: BUFFERS + 16, length: 4 },
  ]],
  ["a table within a table's place", [{ address: BUFFERS, length: 17, indirect: true }]],
];

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    Deno.test(`worker, ${format} over ${bus}: a ring error costs the device, and nothing else; a reset heals it`, async () => {
      const rig = await setup(bus);
      try {
        for (const [what, chain] of BAD) {
          rig.victim.driver.writeStatus(0);
          rig.start(feature | VIRTIO_F_INDIRECT_DESC);
          await works(rig);
          rig.victim.errors.length = 0;
          rig.rings[0]!.send(chain);
          const unchanged = rig.watch();
          rig.kick();
          await until(`${what} makes it ask for a reset`, () => rig.needsReset);
          await rig.checkBroken(unchanged, { works: () => works(rig) });
          assert(rig.victim.device.alive, "the worker lives");
        }
      } finally {
        rig.victim.device.close();
      }
    });
  }

  Deno.test(`worker, ${bus}: an available index that jumps ahead, and queues that are none`, async () => {
    const rig = await setup(bus);
    try {
      const ring = rig.start();
      assert(ring instanceof RawSplitDriver);
      rig.memory.writeU16(ring.config.driverArea + 2, 1000);
      rig.kick();
      await until("it asks for a reset", () => rig.needsReset);
      assert(/virtio 1\.4, 2\.7/.test(rig.victim.errors[0]!.message));
      rig.victim.driver.writeStatus(0);
      rig.victim.errors.length = 0;
      const { registers, driver } = rig.victim;
      for (let kick = 0; kick < 100; kick++) registers.notify(kick * 700);
      driver.writeStatus(0);
      rig.start();
      await works(rig);
      assertEquals(rig.victim.errors, []);
      await rig.checkBystander();
    } finally {
      rig.victim.device.close();
    }
  });

  Deno.test(`worker, ${bus}: writes to the configuration of any kind; what the device holds is what is read`, async () => {
    const rig = await setup(bus);
    try {
      rig.start();
      const { registers, device } = rig.victim;
      registers.config(0, 4, 0x1234_5678);
      registers.config(4, 1, 0xff);
      for (const offset of [13, 14, 15, 16, 17, 255, 4000]) {
        registers.config(offset, 4, 0xffff_ffff);
      }
      assertEquals(device.config.read(0, 4), 0x1234_5678);
      assertEquals(device.config.read(4, 1), 0xff);
      assert(device.alive);
      assertEquals(rig.victim.errors, []);
      await works(rig);
    } finally {
      rig.victim.device.close();
    }
  });

  Deno.test(`worker, ${bus}: one that never answers is given up; the device asks for a reset, others go on`, async () => {
    const rig = await setup(bus, 200);
    const other = await setup(bus);
    try {
      rig.start();
      other.start();
      await works(rig);
      const before = performance.now();
      rig.victim.registers.config(8, 1, 1);
      assert(performance.now() - before < 2000, "it waited no longer than it was told");
      assert(rig.needsReset);
      assertEquals(rig.victim.errors.length, 1);
      assert(rig.victim.errors[0] instanceof WorkerError);
      assert(rig.victim.errors[0]!.message.includes("did not answer"));
      assertEquals(rig.victim.device.alive, false);
      for (let i = 0; i < 20; i++) rig.kick();
      await turns(2);
      await rig.checkBystander();
      await works(other);
    } finally {
      rig.victim.device.close();
      other.victim.device.close();
    }
  });

  Deno.test(`worker, ${bus}: a saved state that is none is refused, and the worker lives`, async () => {
    const rig = await setup(bus);
    const next = await setup(bus);
    try {
      rig.start();
      await works(rig);
      const { state } = rig.victim;
      await state.pause();
      const saved = structuredClone(state.save());
      const { state: into, device } = next.victim;
      const [first, ...rest] = saved.queues;
      const position = first!.position!;
      for (
        const queue of [
          { ...first!, position: { ...position, nextAvail: 70_000, nextUsed: 70_000 } },
          { ...first!, position: { ...position, nextAvail: -1, nextUsed: -1 } },
          { ...first!, size: 7 },
          { ...first!, addresses: [1n, 2n, 3n] as const },
          { ...first!, addresses: [1n << 40n, 0n, 0n] as const },
        ]
      ) {
        assertThrows(() => into.restore({ ...saved, queues: [queue, ...rest] }));
        assertEquals(into.status, 0);
        assert(device.alive);
      }
      next.start();
      await works(next);
    } finally {
      rig.victim.device.close();
      next.victim.device.close();
    }
  });
}

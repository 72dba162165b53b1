/**
 * How much a driver can make a device do, or keep (bug classes 1, 2 and 15): bounded for each kick, bounded by the queue, and
 * never from inside itself.
 */
import { assert, assertEquals } from "@std/assert";
import { type Handled, HOLD, QueueDevice, VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import type { Chain } from "@virtio/vring";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, BUSES, echoes, Machine, SEAM, turns } from "./machine.ts";

/** Calls back for every chain. */
class CallDevice extends QueueDevice {
  call: (chain: Chain, queue: number) => Handled = () => {};
  constructor(size = 8, queues = 2) {
    super({ type: 4, queueSizes: Array.from({ length: queues }, () => size) });
  }
  protected override handle(chain: Chain, queue: number): Handled {
    return this.call(chain, queue);
  }
  use(queue: number, chain: Chain): void {
    this.complete(queue, chain);
  }
}

const good = { address: BUFFERS, length: 4 };
const goodWrite = { address: BUFFERS + 16, length: 4, write: true };

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    const on = `${format} over ${bus}`;

    Deno.test(`class 1, ${on}: a driver that fills the queue as fast as it is emptied gets four rings a kick, and the event loop turns`, async () => {
      const device = new CallDevice();
      const machine = new Machine(device, bus, { delivery: "sync" });
      const ring = machine.start(feature);
      let handled = 0;
      device.call = () => {
        handled++;
      };
      let feeding = true;
      // As if another processor took what is used and made as much available at once.
      machine.victim.onTold = () => {
        const count = ring.takeUsed().length;
        for (let i = 0; i < count && feeding; i++) ring.send([good]);
      };
      for (let i = 0; i < 8; i++) ring.send([good]);
      machine.kick();
      assertEquals(handled, 4 * 8);
      for (let i = 0; i < 5; i++) {
        const before = handled;
        // That these timers come at all is the point. On a busy machine one may come before the device's turn.
        await turns(5);
        assert(handled > before, "the device goes on by itself");
      }
      feeding = false;
      await turns(10);
      assertEquals(machine.needsReset, false);
      const before = handled;
      await turns(3);
      assertEquals(handled, before);
      ring.send([good]);
      machine.kick();
      assertEquals(handled, before + 1);
    });

    Deno.test(`class 1, ${on}: the bytes that a device handles in one kick are bounded, and the rest follows by itself`, async () => {
      const device = new CallDevice(256);
      const machine = new Machine(device, bus);
      const ring = machine.start(feature | VIRTIO_F_INDIRECT_DESC, 256);
      let bytes = 0;
      let chains = 0;
      device.call = (chain) => {
        bytes += chain.readable + chain.writable;
        chains++;
      };
      // 256 chains of 512 MiB each, of the same memory again and again: hours of work for a device that copies.
      const table = BUFFERS + 0x1000;
      ring.table(table, Array.from({ length: 1024 }, () => ({ address: 0, length: 0x8_0000 })));
      for (let i = 0; i < 256; i++) {
        ring.send([{ address: table, length: 16 * 1024, indirect: true }]);
      }
      machine.kick();
      assert(bytes <= 2 ** 30, `${bytes} bytes in one kick`);
      assert(chains >= 1);
      for (let i = 0; i < 1000 && chains < 256; i++) await turns(1);
      assertEquals(chains, 256);
      assertEquals(machine.needsReset, false);
      assertEquals(ring.takeUsed().length, 256);
    });

    Deno.test(`class 1, ${on}: the descriptors that a device walks in one kick are bounded, and the rest follows by itself`, async () => {
      const device = new CallDevice(1024);
      const machine = new Machine(device, bus);
      const ring = machine.start(feature | VIRTIO_F_INDIRECT_DESC, 1024);
      let descriptors = 0;
      let chains = 0;
      device.call = (chain) => {
        descriptors += chain.count;
        chains++;
      };
      const table = BUFFERS + 0x1000;
      ring.table(table, Array.from({ length: 1024 }, () => ({ address: 0, length: 1 })));
      for (let i = 0; i < 1024; i++) {
        ring.send([{ address: table, length: 16 * 1024, indirect: true }]);
      }
      machine.kick();
      assert(descriptors <= 2 ** 18, `${descriptors} descriptors in one kick`);
      assert(chains >= 1);
      for (let i = 0; i < 1000 && chains < 1024; i++) await turns(1);
      assertEquals(chains, 1024);
      assertEquals(ring.takeUsed().length, 1024);
    });

    Deno.test(`class 1, ${on}: a broken queue is not tried again, whatever the driver repairs or kicks`, async () => {
      const machine = new Machine(new EchoDevice({ queueSizes: [8, 8] }), bus);
      const ring = machine.start(feature, 8, 2);
      const bad = ring.next;
      ring.send([{ address: SEAM * 4, length: 4 }]);
      machine.kick();
      assertEquals(machine.needsReset, true);
      // Repaired, and another queue of the same device used.
      ring.memory.writeU32(ring.descriptorAddress(bad), BUFFERS);
      machine.rings[1]!.send([good, goodWrite]);
      for (let i = 0; i < 100; i++) {
        machine.kick(0);
        machine.kick(1);
      }
      await turns(5);
      assertEquals(machine.victim.device.handled, [0, 0]);
      assertEquals(machine.victim.errors.length, 1);
    });

    Deno.test(`class 2, ${on}: a device that holds chains never has more than the queue has entries; one more makes it ask for a reset`, async () => {
      const device = new EchoDevice({ queueSizes: [8] });
      const machine = new Machine(device, bus);
      const ring = machine.start(feature);
      device.hold = true;
      for (let lap = 0; lap < 3; lap++) {
        for (let i = 0; i < 8; i++) ring.send([goodWrite]);
        machine.kick();
      }
      assertEquals(device.held.length, 8);
      assertEquals(machine.needsReset, true);
      assert(/still in flight/.test(machine.victim.errors[0]!.message));
      // What it still holds goes nowhere.
      const unchanged = machine.watch();
      device.hold = false;
      device.release();
      await turns(2);
      unchanged();
      await machine.reset();
      machine.start(feature);
      await echoes(machine);
    });

    Deno.test(`class 2, ${on}: the same buffer made available again while it is in flight is counted, not lost`, () => {
      const device = new EchoDevice({ queueSizes: [4] });
      const machine = new Machine(device, bus);
      const ring = machine.start(feature, 4);
      device.hold = true;
      if ("offer" in ring) {
        ring.send([goodWrite]);
        for (let i = 0; i < 3; i++) ring.offer(0);
      } else {
        for (let i = 0; i < 4; i++) ring.send([goodWrite], 7);
      }
      machine.kick();
      assertEquals(device.held.length, 4);
      assertEquals(
        new Set(device.held.map(({ chain }) => chain)).size,
        4,
        "four chains of its own",
      );
      assertEquals(machine.needsReset, false);
    });

    Deno.test(`class 15, ${on}: a kick from inside a request does not run the device inside itself, and loses nothing`, async () => {
      const device = new CallDevice();
      const machine = new Machine(device, bus, { delivery: "sync" });
      const ring = machine.start(feature, 8, 2);
      const other = machine.rings[1]!;
      let depth = 0;
      let deepest = 0;
      let left = 6;
      const counts = [0, 0];
      device.call = (_chain, queue) => {
        counts[queue]!++;
        depth++;
        deepest = Math.max(deepest, depth);
        // The device's own write reaches its doorbell: for this queue, and for the other.
        if (left-- > 0) {
          ring.send([good]);
          machine.kick(0);
          if (queue === 0) {
            other.send([good]);
            machine.kick(1);
          }
        }
        depth--;
      };
      ring.send([good]);
      machine.kick();
      await turns(5);
      assert(deepest <= 2, `${deepest} deep: a queue does not run inside itself`);
      assertEquals(machine.needsReset, false);
      assertEquals(counts[0]! + counts[1]!, ring.takeUsed().length + other.takeUsed().length);
      assert(counts[0]! >= 4 && counts[1]! >= 1);
    });

    Deno.test(`class 15, ${on}: a driver that answers every interrupt with a kick at once does not nest, and gets every answer`, async () => {
      const device = new EchoDevice({ queueSizes: [8] });
      const machine = new Machine(device, bus, { delivery: "sync" });
      const ring = machine.start(feature);
      let depth = 0;
      let deepest = 0;
      let answers = 0;
      let left = 1000;
      machine.victim.onTold = () => {
        depth++;
        deepest = Math.max(deepest, depth);
        answers += ring.takeUsed().length;
        if (left-- > 0) {
          ring.send([good]);
          machine.kick();
        }
        depth--;
      };
      ring.send([good]);
      machine.kick();
      for (let i = 0; i < 400 && answers <= 1000; i++) await turns(1);
      assertEquals(answers, 1001);
      assert(deepest <= 2, `${deepest} deep`);
    });

    Deno.test(`class 15, ${on}: a chain that is completed from inside an interrupt of its own queue is published`, async () => {
      const device = new CallDevice();
      const machine = new Machine(device, bus, { delivery: "sync" });
      const ring = machine.start(feature);
      let held: Chain | null = null;
      device.call = (chain) => {
        if (held !== null) return undefined;
        held = chain;
        return HOLD;
      };
      machine.victim.onTold = () => {
        // The driver's handler made something happen that completes the first chain.
        if (held !== null) device.use(0, held);
      };
      const first = ring.send([goodWrite]);
      const second = ring.send([goodWrite]);
      machine.kick();
      await turns(2);
      assertEquals(ring.takeUsed().map(({ id }) => id), [second, first]);
    });

    Deno.test(`class 20, ${on}: a chain that a device completes twice is used once, then or later`, async () => {
      const device = new CallDevice();
      const machine = new Machine(device, bus);
      const ring = machine.start(feature);
      const seen: Chain[] = [];
      device.call = (chain) => {
        seen.push(chain);
        chain.writer.u8(1);
        device.use(0, chain);
        device.use(0, chain);
        return HOLD;
      };
      const id = ring.send([goodWrite]);
      machine.kick();
      await turns(1);
      assertEquals(ring.takeUsed(), [{ id, length: 1 }]);
      device.use(0, seen[0]!);
      await turns(1);
      assertEquals(ring.takeUsed(), []);
      assertEquals(machine.needsReset, false);
    });

    Deno.test(`class 20, ${on}: a device that completes a chain and says that it is to be used now asks for a reset; the ring has it once`, async () => {
      const device = new CallDevice();
      const machine = new Machine(device, bus);
      const ring = machine.start(feature);
      device.call = (chain) => device.use(0, chain);
      ring.send([goodWrite]);
      machine.kick();
      await turns(1);
      assertEquals(machine.needsReset, true);
      assert(ring.takeUsed().length <= 1);
      await machine.checkBystander();
      device.call = () => {};
      await machine.reset();
      const again = machine.start(feature);
      again.send([goodWrite]);
      machine.kick();
      assertEquals(again.takeUsed().length, 1);
    });

    Deno.test(`class 15, ${on}: a reset from inside an interrupt of the device is a reset, and the next life works`, async () => {
      for (const broken of [false, true]) {
        const device = new EchoDevice({ queueSizes: [8] });
        const machine = new Machine(device, bus, { delivery: "sync" });
        const ring = machine.start(feature);
        let lives = 0;
        machine.victim.onTold = () => {
          if (lives > 0) return;
          lives++;
          // The whole initialisation, with a request waiting, inside the device's own interrupt.
          machine.victim.driver.writeStatus(0);
          machine.start(feature);
          machine.rings[0]!.send([good, goodWrite]);
          machine.kick();
        };
        ring.send(broken ? [{ address: SEAM * 4, length: 4 }] : [good, goodWrite]);
        machine.kick();
        await turns(3);
        assertEquals(lives, 1);
        assertEquals(
          machine.victim.driver.readStatus(),
          0x0f,
          `the new life is not hurt by the old one's ${broken ? "error" : "end"}`,
        );
        assertEquals(machine.rings[0]!.takeUsed().length, 1, "its first request is answered");
        await echoes(machine);
        await machine.checkBystander();
      }
    });
  }
}

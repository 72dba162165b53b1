/**
 * A console device in the hands of a hostile driver: buffers and messages of the wrong shape, in the wrong direction, at the
 * wrong time (bug classes 5, 20 and 21).
 */
import { assert, assertEquals } from "@std/assert";
import {
  ConsoleDevice,
  CONTROL_RECEIVEQ,
  CONTROL_TRANSMITQ,
  receiveQueue,
  transmitQueue,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { controlBytes, controlMessage, type Message } from "../../packages/console/testing.ts";
import { FORMATS, type RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import { BUSES, Machine, RINGS, turns } from "./machine.ts";

/** Behind the rings of six queues. */
const PLACE = 0x8_0000;
const OTHER = 0x9_0000;
/** The driver writes there too. */
const ALL_RINGS = [RINGS, PLACE - RINGS] as const;
const SIZE = 32;
const QUEUES = 6;
const UNTOUCHED = 0xee;
const FEATURES = VIRTIO_CONSOLE_F_MULTIPORT | VIRTIO_CONSOLE_F_EMERG_WRITE |
  VIRTIO_F_INDIRECT_DESC;

function setup(bus: typeof BUSES[number]) {
  const hosts = [new MemoryConsole(), new MemoryConsole({ outputBuffer: 64 })];
  const device = new ConsoleDevice({
    ports: [{ backend: hosts[0]! }, { backend: hosts[1]!, name: "agent" }],
    queueSize: SIZE,
  });
  const machine = new Machine(device, bus);
  return { machine, device, hosts };
}

type Rig = ReturnType<typeof setup>;

/** Sends a chain, and gives the lengths of what was used of its queue since. */
async function send(
  rig: Rig,
  queue: number,
  chain: readonly RawDescriptor[],
): Promise<number[]> {
  rig.machine.rings[queue]!.send(chain);
  rig.machine.kick(queue);
  await turns(2);
  return rig.machine.rings[queue]!.takeUsed().map(({ length }) => length);
}

/** Sends a control message, each byte in a descriptor of its own if wanted. */
async function control(rig: Rig, message: Message, split = false): Promise<number[]> {
  const bytes = controlBytes(message);
  rig.machine.memory.write(PLACE, bytes);
  const chain = split
    ? Array.from(bytes, (_, i) => ({ address: PLACE + i, length: 1 }))
    : [{ address: PLACE, length: bytes.length }];
  return await send(rig, CONTROL_TRANSMITQ, chain);
}

/** Posts buffers for control messages. */
function post(rig: Rig, count: number, length = 64): void {
  for (let i = 0; i < count; i++) {
    rig.machine.rings[CONTROL_RECEIVEQ]!.send([
      { address: OTHER + 256 * (i % 64), length, write: true },
    ]);
  }
  rig.machine.kick(CONTROL_RECEIVEQ);
}

const ready: Message = { id: 0, event: VIRTIO_CONSOLE_DEVICE_READY, value: 1 };
const portReady = (id: number): Message => ({ id, event: VIRTIO_CONSOLE_PORT_READY, value: 1 });
const portOpen = (id: number): Message => ({ id, event: VIRTIO_CONSOLE_PORT_OPEN, value: 1 });

/** Output of port 0 arrives. */
async function works(rig: Rig): Promise<void> {
  rig.hosts[0]!.takeText();
  rig.machine.memory.write(PLACE, new TextEncoder().encode("fine"));
  assertEquals(await send(rig, 1, [{ address: PLACE, length: 4 }]), [0]);
  assertEquals(rig.hosts[0]!.takeText(), "fine");
}

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    const features = feature | FEATURES;
    const on = `${format} over ${bus}`;
    const started = (): Rig => {
      const rig = setup(bus);
      rig.machine.start(features, SIZE, QUEUES);
      return rig;
    };

    for (
      const [what, queue, chain] of [
        ["receiveq with nothing to write", 0, [{ address: PLACE, length: 16 }]],
        ["receiveq with an empty descriptor", 0, [{ address: PLACE, length: 0, write: true }]],
        ["control receiveq of 7 bytes", CONTROL_RECEIVEQ, [
          { address: PLACE, length: 7, write: true },
        ]],
        ["control receiveq with nothing to write", CONTROL_RECEIVEQ, [
          { address: PLACE, length: 64 },
        ]],
      ] as [string, number, RawDescriptor[]][]
    ) {
      Deno.test(`class 5, ${on}: a buffer in a ${what} makes the device ask for a reset; no memory changes, others go on, a reset heals it`, async () => {
        const rig = started();
        if (queue === 0) {
          post(rig, 8);
          for (const message of [ready, portReady(0), portOpen(0)]) await control(rig, message);
          rig.device.port(0)!.write(new Uint8Array(4));
        }
        rig.machine.rings[queue]!.send(chain);
        rig.machine.memory.write(PLACE + 64, controlBytes(ready));
        if (queue !== 0) {
          rig.machine.rings[CONTROL_TRANSMITQ]!.send([{ address: PLACE + 64, length: 8 }]);
        }
        const unchanged = rig.machine.watch();
        rig.machine.kick(queue);
        rig.machine.kick(CONTROL_TRANSMITQ);
        await turns(2);
        await rig.machine.checkBroken(unchanged, { clause: /5\.3\.6/, works: () => works(rig) });
      });
    }

    Deno.test(`class 5, ${on}: messages that are short, empty, or only for the device to write are given back; a header may be cut anywhere`, async () => {
      const rig = started();
      const unchanged = rig.machine.watch();
      for (const length of [0, 1, 7]) {
        assertEquals(await send(rig, CONTROL_TRANSMITQ, [{ address: PLACE, length }]), [0]);
      }
      assertEquals(
        await send(rig, CONTROL_TRANSMITQ, [{ address: PLACE, length: 8, write: true }]),
        [0],
      );
      unchanged(ALL_RINGS);
      assertEquals(rig.device.stats.controlIgnored, 4);
      assertEquals(rig.device.driverReady, false);
      assertEquals(await control(rig, ready, true), [0]);
      assertEquals(rig.device.driverReady, true);
      assertEquals(rig.machine.victim.errors, []);
      await works(rig);
      await rig.machine.checkBystander();
    });

    Deno.test(`class 5, ${on}: output without a byte, and of ports that are not there, is given back`, async () => {
      const rig = started();
      assertEquals(await send(rig, 1, [{ address: PLACE, length: 0 }]), [0]);
      assertEquals(await send(rig, 1, [{ address: PLACE, length: 9, write: true }]), [0]);
      rig.device.removePort(1);
      assertEquals(await send(rig, transmitQueue(1), [{ address: PLACE, length: 9 }]), [0]);
      assertEquals(rig.device.stats.outputDiscarded, 9);
      assertEquals(rig.device.stats.outputBytes, 0);
      await works(rig);
    });

    Deno.test(`class 20, ${on}: each buffer is used once, with the bytes that were written, and 0 where the device only reads`, async () => {
      const rig = started();
      post(rig, 16);
      for (const message of [ready, portReady(0), portOpen(0), portReady(1), portOpen(1)]) {
        assertEquals(await control(rig, message), [0]);
      }
      const told = rig.machine.rings[CONTROL_RECEIVEQ]!.takeUsed();
      // Two ports added; console, open, size; name, open.
      assertEquals(told.map(({ length }) => length), [8, 8, 8, 8, 12, 13, 8]);
      assertEquals(new Set(told.map(({ id }) => id)).size, told.length);
      rig.machine.memory.fill(OTHER, 64, UNTOUCHED);
      const ring = rig.machine.rings[0]!;
      for (const length of [1, 2, 30]) {
        ring.send([{ address: OTHER, length, write: true }]);
      }
      rig.machine.kick(0);
      rig.device.port(0)!.write(new TextEncoder().encode("abcdef"));
      await turns(2);
      const used = ring.takeUsed();
      assertEquals(used.map(({ length }) => length), [1, 2, 3]);
      assertEquals(new Set(used.map(({ id }) => id)).size, 3);
      assertEquals(rig.machine.memory.readU8(OTHER + 3), UNTOUCHED, "nothing beyond");
      // A full back end makes no chain used twice.
      for (let i = 0; i < 5; i++) {
        rig.machine.rings[5]!.send([{ address: OTHER, length: 30 }]);
      }
      rig.machine.kick(5);
      await turns(2);
      assertEquals(rig.machine.rings[5]!.takeUsed().length, 2);
      for (let i = 0; i < 6; i++) {
        rig.hosts[1]!.takeBytes(30);
        rig.machine.kick(5);
        await turns(1);
      }
      assertEquals(rig.machine.rings[5]!.takeUsed().map(({ length }) => length), [0, 0, 0]);
      assertEquals(rig.device.stats.outputBytes, 150);
    });

    Deno.test(`class 21, ${on}: the device writes nothing to a transmitq, and reads nothing from a receiveq`, async () => {
      const rig = started();
      post(rig, 16);
      for (const message of [ready, portReady(0), portOpen(0)]) await control(rig, message);
      rig.machine.memory.fill(OTHER, 0x100, UNTOUCHED);
      rig.machine.memory.write(PLACE, new TextEncoder().encode("out"));
      rig.machine.memory.write(PLACE + 64, controlBytes(portOpen(1)));
      const unchanged = rig.machine.watch();
      const writable = { address: OTHER, length: 64, write: true };
      assertEquals(await send(rig, 1, [{ address: PLACE, length: 3 }, writable]), [0]);
      assertEquals(rig.hosts[0]!.takeText(), "out");
      const message = { address: PLACE + 64, length: 8 };
      assertEquals(await send(rig, CONTROL_TRANSMITQ, [message, writable]), [0]);
      unchanged(ALL_RINGS);

      rig.device.port(0)!.write(new TextEncoder().encode("input"));
      const chain = [{ address: PLACE, length: 3 }, { address: OTHER, length: 64, write: true }];
      assertEquals(await send(rig, 0, chain), [5]);
      unchanged(ALL_RINGS, [OTHER, 5]);
      assertEquals(rig.hosts[0]!.takeText(), "", "what a receiveq holds is no output");
      rig.device.port(0)!.resize(1, 2);
      await turns(2);
      await works(rig);
    });

    Deno.test(`class 21, ${on}: whatever shape a buffer has, the same bytes come through`, async () => {
      const text = "The same bytes, however they are cut.";
      const bytes = new TextEncoder().encode(text);
      for (const cut of [1, 2, 3, 7, 36, 37]) {
        const rig = started();
        post(rig, 16);
        for (const message of [ready, portReady(0), portOpen(0)]) await control(rig, message);
        const pieces = (at: number, write: boolean): RawDescriptor[] => {
          const all: RawDescriptor[] = [];
          for (let done = 0; done < bytes.length; done += cut) {
            const length = Math.min(cut, bytes.length - done);
            all.push({ address: at + done, length, write });
          }
          return all;
        };
        // A table holds more descriptors than the queue has.
        const indirect = (chain: RawDescriptor[]): RawDescriptor[] => {
          const { memory } = rig.machine;
          const packed = format.startsWith("packed");
          chain.forEach(({ address, length, write }, i) => {
            const at = PLACE + 0x1000 + 16 * i;
            memory.writeU32(at, address);
            memory.writeU32(at + 4, 0);
            memory.writeU32(at + 8, length);
            const next = i + 1 < chain.length ? 1 : 0;
            const flags = (packed ? 0 : next) | (write ? 2 : 0);
            memory.writeU16(at + 12, packed ? 0 : flags);
            memory.writeU16(at + 14, packed ? flags : i + 1);
          });
          return [{ address: PLACE + 0x1000, length: 16 * chain.length, flags: 4 }];
        };
        rig.machine.memory.write(PLACE, bytes);
        await send(rig, 1, indirect(pieces(PLACE, false)));
        assertEquals(rig.hosts[0]!.takeText(), text);
        rig.device.port(0)!.write(bytes);
        assertEquals(await send(rig, 0, indirect(pieces(OTHER, true))), [bytes.length]);
        const back = new Uint8Array(bytes.length);
        rig.machine.memory.read(OTHER, back);
        assertEquals(new TextDecoder().decode(back), text);
        assertEquals(rig.machine.victim.errors, []);
      }
    });

    Deno.test(`console, ${on}: messages at the wrong time, of unknown ports and events, change nothing`, async () => {
      const rig = started();
      const wrong: Message[] = [portReady(0), portOpen(0), { id: 0, event: 8, value: 1 }];
      for (const message of wrong) await control(rig, message);
      assertEquals(rig.device.port(0)!.guestOpen, false, "before DEVICE_READY there are no ports");
      post(rig, 8);
      await control(rig, ready);
      rig.machine.rings[CONTROL_RECEIVEQ]!.takeUsed();
      await control(rig, portOpen(0));
      assertEquals(rig.device.port(0)!.guestOpen, false, "before PORT_READY it cannot be opened");
      const { controlIgnored } = rig.device.stats;
      let count = 0;
      for (const id of [2, 3, 0x7fff_ffff, 0x8000_0000, 0xffff_fffe, 0xffff_ffff]) {
        for (const event of [1, 2, 3, 4, 5, 6, 7, 8, 0xffff]) {
          await control(rig, { id, event, value: 1 });
          count++;
        }
      }
      for (const event of [VIRTIO_CONSOLE_DEVICE_ADD, 2, VIRTIO_CONSOLE_CONSOLE_PORT, 5, 7]) {
        await control(rig, { id: 1, event, value: 1, rest: new Uint8Array(300).fill(0x41) });
        count++;
      }
      assertEquals(rig.device.stats.controlIgnored - controlIgnored, count);
      assertEquals(rig.machine.rings[CONTROL_RECEIVEQ]!.takeUsed(), []);
      assertEquals(rig.machine.victim.errors, []);
      await works(rig);
    });

    Deno.test(`console, ${on}: however often a driver asks, what waits for its buffers stays small`, async () => {
      const rig = started();
      await control(rig, ready);
      post(rig, 2);
      await turns(2);
      rig.machine.rings[CONTROL_RECEIVEQ]!.takeUsed();
      for (let i = 0; i < 500; i++) {
        rig.machine.memory.write(PLACE, controlBytes(i % 2 === 0 ? portReady(1) : portOpen(1)));
        rig.machine.rings[CONTROL_TRANSMITQ]!.send([{ address: PLACE, length: 8 }]);
        rig.machine.kick(CONTROL_TRANSMITQ);
        rig.machine.rings[CONTROL_TRANSMITQ]!.takeUsed();
        rig.device.port(1)!.close();
        rig.device.port(1)!.open();
        rig.device.port(0)!.resize(i, i);
      }
      post(rig, 30);
      await turns(2);
      const told = rig.machine.rings[CONTROL_RECEIVEQ]!.takeUsed();
      const messages = told.map(({ length }, i) => {
        const bytes = new Uint8Array(length);
        rig.machine.memory.read(OTHER + 256 * i, bytes);
        return controlMessage(bytes);
      });
      assertEquals(messages.map(({ id, event }) => [id, event]), [
        [1, VIRTIO_CONSOLE_PORT_NAME],
        [1, VIRTIO_CONSOLE_PORT_OPEN],
      ]);
      await works(rig);
    });

    Deno.test(`console, ${on}: queues of other ports are not served without MULTIPORT`, async () => {
      const rig = setup(bus);
      rig.machine.start(feature, SIZE, QUEUES);
      await works(rig);
      rig.machine.kick(CONTROL_RECEIVEQ);
      rig.machine.rings[CONTROL_RECEIVEQ]!.send([{ address: OTHER, length: 64, write: true }]);
      rig.machine.kick(CONTROL_RECEIVEQ);
      rig.machine.rings[receiveQueue(1)]!.send([{ address: OTHER, length: 64, write: true }]);
      rig.device.port(1)!.write(new Uint8Array(4));
      const unchanged = rig.machine.watch();
      rig.machine.kick(receiveQueue(1));
      await turns(2);
      unchanged();
      assertEquals(rig.machine.victim.errors, []);
      const queue = transmitQueue(1);
      rig.machine.rings[queue]!.send([{ address: PLACE, length: 4 }]);
      const before = rig.machine.watch();
      rig.machine.kick(queue);
      await rig.machine.checkBroken(before, { clause: /5\.3\.2/, works: () => works(rig) });
    });

    Deno.test(`console, ${on}: resets inside a back end's calls, and writes of emerg_wr at every moment, do no harm`, async () => {
      const rig = setup(bus);
      const { registers, driver } = rig.machine.victim;
      const [host] = rig.hosts;
      registers.config(8, 4, 0x41);
      rig.machine.start(features, SIZE, QUEUES);
      registers.config(8, 4, 0x42);
      const { write } = host!;
      let resets = 0;
      let unchanged = rig.machine.watch();
      host!.write = function (bytes, offset, length) {
        if (resets++ === 0) {
          driver.writeStatus(0);
          unchanged = rig.machine.watch();
        }
        return write.call(this, bytes, offset, Math.min(length, 1));
      };
      rig.machine.memory.write(PLACE, new TextEncoder().encode("xyz"));
      rig.machine.rings[1]!.send([{ address: PLACE, length: 3 }]);
      rig.machine.kick(1);
      assertEquals(driver.readStatus(), 0);
      registers.config(8, 4, 0x43);
      await turns(2);
      unchanged();
      assertEquals(host!.takeText(), "ABxC");
      host!.write = write;
      rig.machine.start(features, SIZE, QUEUES);
      await works(rig);
      registers.config(9, 4, 0x44);
      registers.config(8, 1, 0x45);
      registers.config(0, 4, 0xffff_ffff);
      registers.config(12, 4, 0x46);
      assertEquals(host!.takeText(), "E");
      assertEquals(driver.readConfig(0, 4), 80 | 25 << 16);
      assert(!rig.machine.needsReset);
    });
  }
}

/** What the life-cycle test knows of a device type: the world behind the device, and a driver that has work to do. */
import { BlkDevice } from "@virtio/blk";
import { BlkDriver } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { ConsoleDevice } from "@virtio/console";
import { ConsoleDriver } from "@virtio/console/driver";
import { MemoryConsole } from "@virtio/console/memory";
import type { Device, FeatureSet, QueueCounters } from "@virtio/device";
import type { DriverSession, DriverTransport } from "@virtio/device/driver";
import { Frame, type FrameSink, type NetBackend, NetDevice, Offload, pass } from "@virtio/net";
import { NetDriver } from "@virtio/net/driver";
import type { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { pattern } from "../../packages/blk/backends/backend_testing.ts";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { plainFrame } from "../../packages/net/testing.ts";
import { WorkerDevice } from "@virtio/worker";
import type { LifeData } from "./device_worker.ts";

/** A driver with its device running. */
export interface Guest {
  readonly session: DriverSession;
  /** So many exchanges with the world, one after the other, each checked. */
  work(count: number): Promise<void>;
  /** Begins something that the world does not answer while it is stalled. It may fail when the driver is closed. */
  begin(): Promise<unknown>;
  suspend(): Promise<void>;
  resume(): Promise<void>;
  /** Resets every queue; null if the driver has no way to. */
  readonly resetQueues: (() => Promise<void>) | null;
  close(): Promise<void>;
}

/** A device where it runs. */
export interface Placed {
  readonly device: Device & { readonly queueCounters: readonly Readonly<QueueCounters>[] };
  /** It has taken its place. */
  begin?(): void;
  /** Ends the worker, if there is one. */
  end?(): void;
}

/** What is behind a device. It outlives any number of devices. */
export interface World {
  /** A device for this world, as the ones before. */
  device(): Placed | Promise<Placed>;
  open(transport: DriverTransport, dma: DmaPool, core: FeatureSet): Promise<Guest>;
  /** Whether the world must be stalled while a device is moved: what it says then would be lost. */
  readonly stallToMove?: boolean;
  /** From now on nothing is answered. */
  stall(): void;
  /** Answers again, also what has waited. */
  go(): void;
}

async function until(what: string, done: () => boolean): Promise<void> {
  for (let i = 0; i < 5000 && !done(); i++) await new Promise((again) => setTimeout(again, 0));
  assert(done(), what);
}

const BLOCK = 4096;

/** A disk that answers later. */
export function blkWorld(): World {
  const disk = new MemoryBackend(1024 * 1024);
  const later = new LaterBackend(disk);
  let round = 0;
  return {
    device: () => ({
      device: new BlkDevice({ backend: later, id: "life", queues: 2, queueSize: 32 }),
    }),
    stall: () => later.hold(),
    go: () => later.release(),
    async open(transport, dma, core) {
      const driver = await BlkDriver.open(transport, { dma, core, buffers: 4 });
      return {
        session: driver.session,
        async work(count) {
          for (let i = 0; i < count; i++) {
            const seed = round++;
            const sector = (seed % 100) * 8;
            const bytes = pattern(BLOCK, seed);
            // The disk takes its time, so that requests are in flight whatever happens meanwhile.
            later.hold();
            setTimeout(() => later.release(), 0);
            await driver.write(sector, bytes);
            if (i % 8 === 0) await driver.flush();
            const back = new Uint8Array(BLOCK);
            await driver.read(sector, back);
            assertEquals(back, bytes);
          }
        },
        begin: () =>
          Promise.all([
            driver.read(0, new Uint8Array(BLOCK)),
            driver.write(8, pattern(BLOCK, 1)),
            driver.flush(),
          ]),
        suspend: () => driver.session.suspend(),
        resume: () => driver.session.resume(),
        resetQueues: async () => {
          for (const queue of driver.queues) await driver.resetQueue(queue.index);
        },
        close: () => driver.close(),
      };
    },
  };
}

/** The other end of a cable: it sends back what it gets, a turn later. */
class Echo implements NetBackend {
  readonly offloads: number = Offload.all;
  stalled = false;
  #peer: FrameSink | null = null;
  #waiting: Frame[] = [];

  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  deliver(frame: Frame): void {
    const copy = new Frame(frame.length).fromFrame(frame);
    copy.buffer.copyWithin(0, 6, 12);
    this.#waiting.push(copy);
    setTimeout(() => this.go(), 0);
  }

  go(): void {
    if (this.stalled || this.#peer === null) return;
    for (const frame of this.#waiting.splice(0)) pass(frame, this.#peer);
  }
}

/** A network with an echo. It may lose frames, as networks do, but not too many. */
export function netWorld(): World {
  const echo = new Echo();
  let number = 0;
  return {
    device: () => ({
      device: new NetDevice({ backend: echo, mac: "02:00:00:00:00:01", queueSize: 32 }),
    }),
    stall: () => echo.stalled = true,
    go: () => {
      echo.stalled = false;
      echo.go();
    },
    async open(transport, dma, core) {
      const driver = await NetDriver.open(transport, { dma, core });
      const back = new Map<number, Uint8Array>();
      driver.onFrame = (frame) => back.set(frame.view.getUint32(14), frame.bytes.slice());
      const send = (length: number): [id: number, bytes: Uint8Array] => {
        const id = ++number;
        const bytes = plainFrame(length, id, [2, 0, 0, 0, 0, 9]);
        bytes.set(driver.mac, 6);
        new DataView(bytes.buffer).setUint32(14, id);
        driver.sendBytes(bytes);
        return [id, bytes];
      };
      return {
        session: driver.session,
        async work(count) {
          for (let i = 0; i < count; i++) {
            const sent = [60, 1514, 9000].map(send);
            for (const [id, bytes] of sent) {
              for (let tries = 0; !back.has(id); tries++) {
                await new Promise((again) => setTimeout(again, 0));
                assert(tries < 5000, "no echo");
                if (tries % 20 === 19) driver.sendBytes(bytes);
              }
              assertEquals(back.get(id)!.subarray(6), bytes.subarray(6));
            }
            if (i % 8 === 0) await driver.control.setReceiveMode("allMulticast", i % 16 === 0);
          }
        },
        begin: async () => {
          send(1000);
          await driver.control.setReceiveMode("allMulticast", true);
        },
        suspend: () => driver.suspend(),
        resume: () => driver.resume(),
        resetQueues: async () => {
          for (const index of [1, 0, 2]) await driver.resetQueue(index);
        },
        close: () => driver.close(),
      };
    },
  };
}

/** Somebody at a terminal who repeats everything. */
export function consoleWorld(): World {
  const host = new MemoryConsole({ outputBuffer: 2000 });
  let stalled = false;
  let line = 0;
  const repeat = () => {
    if (!stalled && host.available > 0) void host.send(host.takeBytes());
  };
  return {
    device: () => ({ device: new ConsoleDevice({ ports: [{ backend: host }], queueSize: 32 }) }),
    stall: () => stalled = true,
    go: () => {
      stalled = false;
      repeat();
    },
    async open(transport, dma, core) {
      // What an earlier driver wrote is no concern of this one.
      host.takeBytes();
      const driver = await ConsoleDriver.open(transport, { dma, core });
      await driver.waitForPort(0);
      const port = driver.port(0)!;
      let got = "";
      port.onData = (bytes) => got += new TextDecoder().decode(bytes);
      await until("the console is open", () => port.opened && port.hostOpen);
      return {
        session: driver.session,
        async work(count) {
          for (let i = 0; i < count; i++) {
            const text = `line ${line++} `.repeat(20) + "\n";
            got = got.slice(got.indexOf("\n") + 1);
            const written = port.write(new TextEncoder().encode(text));
            await until("the line is repeated", () => {
              repeat();
              return got.endsWith(text);
            });
            await written;
          }
        },
        begin: () => port.write(new Uint8Array(20_000)),
        suspend: () => driver.session.suspend(),
        resume: () => driver.session.resume(),
        resetQueues: null,
        close: () => driver.close(),
      };
    },
  };
}

/**
 * The same world with its devices in workers, each in a new one. The driver's part is the same; what is behind the device is
 * in the worker, and is stalled by a word of shared memory.
 */
export function inWorker(type: LifeData["type"], { open }: World): World {
  const gate = new SharedArrayBuffer(8);
  const bytes = new SharedArrayBuffer(type === "blk" ? 1024 * 1024 : 2000);
  let count = 0;
  const word = new Int32Array(gate);
  return {
    stallToMove: type === "console",
    async device() {
      const number = ++count;
      const data: LifeData = { type, gate, bytes, number };
      const device = new WorkerDevice(new URL("./device_worker.ts", import.meta.url), { data });
      await device.ready;
      return {
        device,
        begin: () => void Atomics.store(word, 1, number),
        end: () => device.close(),
      };
    },
    open,
    stall: () => void Atomics.store(word, 0, 1),
    go: () => void Atomics.store(word, 0, 0),
  };
}

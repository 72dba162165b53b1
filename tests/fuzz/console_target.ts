/** Fuzzes a console device, its ports and its control messages, against a driver that mostly keeps the rules. */
import { assert, assertEquals } from "@std/assert";
import { ConsoleDevice } from "@virtio/console";
import { VIRTIO_F_VERSION_1 } from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import { controlMessage } from "../../packages/console/testing.ts";
import type { RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import { HIGH } from "./chains.ts";
import {
  type ChainStep,
  type ConsoleCase,
  consoleCases,
  PORTS,
  QUEUES,
  type Step,
} from "./console_cases.ts";
import { Host, MODULUS, Stream } from "./console_host.ts";
import { DeviceDrive, ringFeatures } from "./device_drive.ts";
import { type Target, turns } from "./harness.ts";

const SIZE = 16;
const BUFFERS = 0x8000;
/** Each chain has a place of its own: bytes, table. */
const PLACE = 0x400;
const PLACES = 64;
const END = BUFFERS + PLACES * PLACE;

/** A chain that the driver waits for. */
interface Waiting {
  readonly at: number;
  readonly room: number;
}

class ConsoleRun {
  readonly #test: ConsoleCase;
  readonly #drive: DeviceDrive<Waiting>;
  readonly #memory: GuestMemory;
  readonly #features: bigint;
  readonly #outputs = Array.from({ length: PORTS }, () => new Stream());
  readonly #inputs = Array.from({ length: PORTS }, () => new Stream());
  #device!: ConsoleDevice;
  /** What a back end found. */
  #found: unknown = null;
  #sent = 0;
  /** Ports that the device told of. */
  readonly #known: Set<number> = new Set();
  /** Those that the driver did not answer yet. */
  readonly #answers: number[] = [];

  constructor(test: ConsoleCase) {
    this.#test = test;
    this.#drive = new DeviceDrive(test, QUEUES, SIZE, [
      [0, 0xa800],
      [0xa800, END - 0xa800],
      [HIGH, 0x400],
    ]);
    this.#memory = this.#drive.guard.memory;
    this.#features = (test.multiport ? 7n : 5n) | ringFeatures(test);
    this.#make([0, 1]);
  }

  #make(ports: readonly number[]): void {
    this.#device = new ConsoleDevice({
      maxPorts: PORTS,
      queueSize: SIZE,
      // What a back end finds wrong here is thrown where it is looked for.
      onError: (error) => this.#found ??= error,
    });
    for (const id of ports) this.#add(id);
    this.#drive.attach(this.#device);
  }

  #add(id: number): void {
    const backend = new Host(this.#outputs[id]!, () => this.#drive.valid);
    this.#device.addPort({ backend, id, inputBuffer: 200, ...(id === 1 ? { name: "one" } : {}) });
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#drive.guard.remember();
      await this.#step(step);
      if (step.do !== "chain" && step.do !== "start") this.#drive.checkMemory();
      for (let queue = 0; queue < QUEUES; queue++) this.#reap(queue);
      this.#answer();
      this.#checkHealth();
    }
    // A reset heals it, whatever was done.
    await this.#start();
    this.#post(1, 9);
    this.#drive.guard.remember();
    await turns(1);
    this.#device.port(0)?.resume();
    this.#checkHealth();
    this.#drive.checkMemory();
  }

  #checkHealth(): void {
    if (this.#found !== null) throw this.#found;
    this.#drive.checkHealth();
  }

  async #start(): Promise<void> {
    await this.#reset();
    this.#drive.start((this.#features & this.#drive.state.offered) | VIRTIO_F_VERSION_1);
    if (!this.#test.polite || !this.#test.multiport) return;
    for (let i = 0; i < 6; i++) this.#post(2, 64);
    this.#say(0, 0);
  }

  /** Posts a buffer as a driver does that keeps the rules. */
  #post(queue: number, length: number, id = 0, event = 0): void {
    const rest = { cut: [], value: 1, indirect: false, kick: true, wrong: null };
    this.#chain({ do: "chain", queue, length, id, event, ...rest });
  }

  #say(id: number, event: number): void {
    this.#post(3, 8, id, event);
  }

  async #reset(): Promise<void> {
    await this.#drive.reset();
    this.#known.clear();
    this.#answers.length = 0;
    for (const stream of [...this.#outputs, ...this.#inputs]) stream.lose();
  }

  async #step(step: Step): Promise<void> {
    const { state } = this.#drive;
    switch (step.do) {
      case "chain":
        return this.#chain(step);
      case "kick":
      case "suspend":
      case "resume":
      case "resetQueue":
      case "status":
      case "features":
        return this.#drive.step(step);
      case "reap":
        return this.#reap(step.queue);
      case "wait":
        return await turns(1);
      case "start":
        return await this.#start();
      case "reset":
        return await this.#reset();
      case "move":
        return await this.#move();
      case "config":
        state.writeConfig(step.at, (1 << step.value) as 1 | 2 | 4, 0xffff_ffff);
        assertEquals(state.readConfig(4, 4), PORTS);
        assertEquals(state.readConfig(8, 4), 0);
        return;
    }
    this.#hostStep(step);
  }

  #hostStep(step: Step & { port: number }): void {
    const port = this.#device.port(step.port);
    if (port === undefined) {
      if (step.do === "add") this.#add(step.port);
      return;
    }
    switch (step.do) {
      case "input": {
        const stream = this.#inputs[step.port]!;
        const bytes = new Uint8Array(step.length);
        for (let i = 0; i < bytes.length; i++) bytes[i] = (stream.sent + i) % MODULUS;
        const count = port.write(bytes);
        assert(count <= bytes.length && port.waiting <= 200);
        assert(count === bytes.length || port.room === 0, "what is refused found no room");
        stream.sent += count;
        return;
      }
      case "allow":
        (port.backend as Host).room = step.length;
        return port.resume();
      case "open":
        return port.open();
      case "close":
        this.#outputs[step.port]!.lose();
        return port.close();
      case "remove":
        this.#outputs[step.port]!.lose();
        this.#inputs[step.port]!.lose();
        return this.#device.removePort(step.port);
      case "resize":
        return port.resize(step.length, step.port);
    }
  }

  /** The state moves to another device, whose ports are the same. */
  async #move(): Promise<void> {
    await this.#drive.move(() => {
      const { ports } = this.#device;
      const rooms = ports.map(({ backend }) => (backend as Host).room);
      this.#make(ports.map(({ id }) => id));
      ports.forEach(({ id, hostOpen }, i) => {
        const port = this.#device.port(id)!;
        (port.backend as Host).room = rooms[i]!;
        if (!hostOpen) port.close();
      });
      return true;
    });
  }

  #chain(step: ChainStep): void {
    const { queue } = step;
    const drive = this.#drive;
    const flights = drive.flights[queue]!;
    if (drive.rings[queue] === undefined) return;
    const at = BUFFERS + (this.#sent % PLACES) * PLACE;
    if (drive.flights.some(({ all }) => all.some((other) => other.at === at))) return;
    const write = queue % 2 === 0;
    // A control message of another length, now and then.
    const length = queue === 3 && step.length > 4
      ? 8
      : queue === 2 && step.length > 1
      ? Math.max(step.length, 8)
      : step.length;
    const descriptors: RawDescriptor[] = [];
    let done = 0;
    for (const part of step.cut) {
      const piece = Math.min(part, length - done);
      descriptors.push({ address: at + done, length: piece, write });
      done += piece;
    }
    descriptors.push({ address: at + done, length: length - done, write });
    const indirect = step.indirect && this.#test.indirect;
    const room = SIZE - flights.slots;
    if ((indirect ? 1 : descriptors.length) > room && step.wrong === null) return;
    this.#sent++;
    this.#fill(step, at, length);
    // Too short for any message; or of a port that this driver does not know.
    if (queue === 2 && length < 8) drive.valid = false;
    if (queue > 1 && !this.#test.multiport) drive.valid = false;
    const { kick, wrong } = step;
    const shape = { indirect, table: at + 0x200, kick, wrong };
    drive.send(queue, descriptors, shape, { at, room: write ? length : 0 });
  }

  #fill({ queue, id, event, value }: ChainStep, at: number, length: number): void {
    const memory = this.#memory;
    if (queue === 3) {
      const view = new DataView(new ArrayBuffer(8));
      view.setUint32(0, id, true);
      view.setUint16(4, event, true);
      view.setUint16(6, value, true);
      for (let i = 0; i < length; i++) memory.writeU8(at + i, i < 8 ? view.getUint8(i) : 0xee);
      return;
    }
    const stream = queue % 2 === 1 ? this.#outputs[queue === 1 ? 0 : (queue >>> 1) - 1]! : null;
    for (let i = 0; i < length; i++) {
      memory.writeU8(at + i, stream === null ? 0xee : stream.sent++ % MODULUS);
    }
  }

  #reap(queue: number): void {
    for (const [done, length] of this.#drive.used(queue)) {
      const bytes = new Uint8Array(length);
      if (length > 0) this.#memory.read(done.at, bytes);
      if (queue === 2) {
        this.#checkMessage(bytes);
      } else if (queue % 2 === 0) {
        const port = queue === 0 ? 0 : (queue >>> 1) - 1;
        assert(length > 0, "input is never empty");
        for (const byte of bytes) this.#inputs[port]!.check(byte, "input in its order");
      }
    }
  }

  /** Ports that came are ready, and opened; buffers go where some were used. */
  #answer(): void {
    const answers = this.#answers.splice(0);
    if (!this.#test.polite || !this.#drive.valid) return;
    for (const id of answers) {
      this.#say(id, 3);
      this.#say(id, 6);
      this.#post(2, 64);
      this.#post(2, 64);
    }
  }

  /** What the device may say (5.3.6.2.1). */
  #checkMessage(bytes: Uint8Array): void {
    assert(bytes.length >= 8);
    const { id, event, value, rest } = controlMessage(bytes);
    assert(id < PORTS, `port ${id}`);
    if (event === 1) {
      assert(!this.#known.has(id), `port ${id} is added twice`);
      this.#known.add(id);
      this.#answers.push(id);
      return;
    }
    assert(this.#known.has(id), `message ${event} of port ${id}, which was not added`);
    if (event === 2) this.#known.delete(id);
    else if (event === 5) assertEquals(rest?.length, 4);
    else if (event === 6) assert(value <= 1);
    else if (event === 7) assertEquals(new TextDecoder().decode(rest), "one");
    else assertEquals([event, value], [4, 1]);
  }
}

/** The console device. */
export const consoleTarget: Target<ConsoleCase> = {
  name: "console",
  cases: consoleCases,
  async run(test) {
    await new ConsoleRun(test).run();
  },
};

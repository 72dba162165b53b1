/** Fuzzes a console device, its ports and its control messages, against a driver that mostly keeps the rules. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type ConsoleBackend, ConsoleDevice } from "@virtio/console";
import {
  CORE_FEATURES,
  DeviceState,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "@virtio/device";
import { controlMessage } from "../../packages/console/testing.ts";
import {
  placeQueue,
  type RawDescriptor,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { Flights, HIGH, rarely, sendDescriptors, type Wrong } from "./chains.ts";
import { GuardedMemory, type Target, turns } from "./harness.ts";

const PORTS = 3;
const QUEUES = 2 * PORTS + 2;
const SIZE = 16;
const BUFFERS = 0x8000;
/** Each chain has a place of its own: bytes, table. */
const PLACE = 0x400;
const PLACES = 64;
const END = BUFFERS + PLACES * PLACE;
/** Streams count up to here, so that a byte that is missing or there twice is seen; what is beyond are emergency writes. */
const MODULUS = 251;

/** A chain of the driver. */
interface ChainStep {
  readonly do: "chain";
  readonly queue: number;
  readonly length: number;
  /** Lengths of the pieces; the last one takes the rest. */
  readonly cut: readonly number[];
  /** Control messages: what they say. */
  readonly id: number;
  readonly event: number;
  readonly value: number;
  readonly indirect: boolean;
  readonly kick: boolean;
  readonly wrong: Wrong | null;
}

type Step =
  | ChainStep
  | { do: "kick" | "reap" | "resetQueue"; queue: number }
  | { do: "wait" | "start" | "reset" | "suspend" | "resume" | "move" }
  | { do: "status" | "features"; value: number }
  | { do: "config"; at: number; value: number }
  | { do: "input"; port: number; length: number }
  | { do: "allow"; port: number; length: number }
  | { do: "open" | "close" | "add" | "remove"; port: number }
  | { do: "resize"; port: number; length: number };

/** A case. */
interface ConsoleCase {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  readonly multiport: boolean;
  /** Whether the driver begins as drivers do, and answers what it is told of ports. */
  readonly polite: boolean;
  readonly steps: readonly Step[];
}

const chain: fc.Arbitrary<Step> = fc.record({
  do: fc.constant("chain" as const),
  queue: fc.oneof(
    { weight: 3, arbitrary: fc.nat(QUEUES - 1) },
    { weight: 4, arbitrary: fc.constantFrom(2, 3) },
    { weight: 2, arbitrary: fc.constantFrom(0, 1) },
  ),
  length: fc.oneof(fc.integer({ min: 1, max: 16 }), fc.integer({ min: 8, max: 500 })),
  cut: fc.array(fc.nat(40), { maxLength: 4 }),
  id: fc.oneof({ weight: 9, arbitrary: fc.nat(PORTS) }, {
    weight: 1,
    arbitrary: fc.constantFrom(0x8000_0000, 0xffff_ffff),
  }),
  event: fc.oneof({ weight: 9, arbitrary: fc.constantFrom(0, 3, 3, 6, 6) }, {
    weight: 1,
    arbitrary: fc.constantFrom(1, 2, 4, 5, 7, 8, 0xffff),
  }),
  value: fc.oneof({ weight: 9, arbitrary: fc.constant(1) }, {
    weight: 2,
    arbitrary: fc.constantFrom(0, 2, 0xffff),
  }),
  indirect: fc.boolean(),
  kick: fc.oneof({ weight: 3, arbitrary: fc.constant(true) }, {
    weight: 1,
    arbitrary: fc.constant(false),
  }),
  wrong: rarely(60),
});

const port = fc.nat(PORTS - 1);
const length = fc.nat(300);
const step: fc.Arbitrary<Step> = fc.oneof(
  { weight: 16, arbitrary: chain },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom("kick" as const, "reap" as const),
      queue: fc.nat(QUEUES),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      do: fc.constantFrom("input" as const, "allow" as const),
      port,
      length,
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "open" as const,
        "close" as const,
        "add" as const,
        "remove" as const,
      ),
      port,
    }),
  },
  { weight: 1, arbitrary: fc.record({ do: fc.constant("resize" as const), port, length }) },
  { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "start" as const,
        "reset" as const,
        "suspend" as const,
        "resume" as const,
        "move" as const,
      ),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      fc.record({ do: fc.constant("resetQueue" as const), queue: fc.nat(QUEUES) }),
      fc.record({
        do: fc.constantFrom("status" as const, "features" as const),
        value: fc.nat(0x1ff),
      }),
    ),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("config" as const),
      at: fc.oneof(fc.constant(8), fc.nat(20)),
      value: fc.nat(2),
    }),
  },
);

const cases: fc.Arbitrary<ConsoleCase> = fc.record({
  packed: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  indirect: fc.boolean(),
  multiport: fc.oneof({ weight: 5, arbitrary: fc.constant(true) }, {
    weight: 1,
    arbitrary: fc.constant(false),
  }),
  polite: fc.oneof({ weight: 4, arbitrary: fc.constant(true) }, {
    weight: 1,
    arbitrary: fc.constant(false),
  }),
  steps: fc.array(step, { maxLength: 80, size: "max" }),
});

/** A stream of numbered bytes, as its receiver sees it. */
class Stream {
  /** The number of the next byte that is sent. */
  sent = 0;
  #expected: number | null = null;

  /** Some may have been dropped. */
  lose(): void {
    this.#expected = null;
  }

  check(byte: number, what: string): void {
    if (byte >= MODULUS) return;
    if (this.#expected !== null) assertEquals(byte, this.#expected, what);
    this.#expected = (byte + 1) % MODULUS;
  }
}

/** A back end that checks what it is given. */
class Host implements ConsoleBackend {
  room = 200;
  readonly #stream: Stream;
  readonly #valid: () => boolean;

  constructor(stream: Stream, valid: () => boolean) {
    this.#stream = stream;
    this.#valid = valid;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    assert(length > 0);
    const count = Math.min(length, this.room);
    this.room -= count;
    for (let i = 0; i < count; i++) {
      if (this.#valid()) this.#stream.check(bytes[offset + i]!, "output in its order");
    }
    return count;
  }
}

/** A chain that the driver waits for. */
interface Waiting {
  readonly at: number;
  readonly room: number;
}

class ConsoleRun {
  readonly #test: ConsoleCase;
  readonly #guard = new GuardedMemory([[0, 0xa800], [0xa800, END - 0xa800], [HIGH, 0x400]]);
  readonly #memory = this.#guard.memory;
  readonly #features: bigint;
  readonly #outputs = Array.from({ length: PORTS }, () => new Stream());
  readonly #inputs = Array.from({ length: PORTS }, () => new Stream());
  readonly #flights: readonly Flights<Waiting>[];
  readonly #errors: Error[] = [];
  #device!: ConsoleDevice;
  #state!: DeviceState;
  #rings: (RawSplitDriver | RawPackedDriver)[] = [];
  /** Whether the driver has kept every rule since the last reset. */
  #valid = true;
  /** What a back end found. */
  #found: unknown = null;
  #sent = 0;
  #ranges: (readonly [number, number])[] = [];
  /** Ports that the device told of. */
  readonly #known: Set<number> = new Set();
  /** Those that the driver did not answer yet. */
  readonly #answers: number[] = [];

  constructor(test: ConsoleCase) {
    this.#test = test;
    this.#flights = Array.from({ length: QUEUES }, () => new Flights<Waiting>(test.packed));
    this.#features = (test.multiport ? 7n : 5n) | VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND |
      (test.packed ? VIRTIO_F_RING_PACKED : 0n) | (test.eventIdx ? VIRTIO_F_EVENT_IDX : 0n) |
      (test.inOrder ? VIRTIO_F_IN_ORDER : 0n) | (test.indirect ? VIRTIO_F_INDIRECT_DESC : 0n);
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
    this.#state = new DeviceState(this.#device, {
      memory: this.#memory,
      carries: CORE_FEATURES,
      features: CORE_FEATURES,
      interrupt: { queue: () => {}, config: () => {} },
      onError: (error) => this.#errors.push(error),
    });
  }

  #add(id: number): void {
    const backend = new Host(this.#outputs[id]!, () => this.#valid);
    this.#device.addPort({ backend, id, inputBuffer: 200, ...(id === 1 ? { name: "one" } : {}) });
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#guard.remember();
      await this.#step(step);
      if (step.do !== "chain" && step.do !== "start") this.#checkMemory();
      for (let queue = 0; queue < QUEUES; queue++) this.#reap(queue);
      this.#answer();
      this.#checkHealth();
    }
    // A reset heals it, whatever was done.
    await this.#start();
    this.#post(1, 9);
    this.#guard.remember();
    await turns(1);
    this.#device.port(0)?.resume();
    this.#checkHealth();
    this.#checkMemory();
  }

  #checkMemory(): void {
    const rings = this.#rings.flatMap(({ config }): [number, number][] =>
      this.#test.packed
        ? [[config.deviceArea, 4], [config.descriptorArea, 16 * SIZE]]
        : [[config.deviceArea, 6 + 8 * SIZE]]
    );
    this.#guard.checkUnchanged([...this.#ranges, ...rings]);
    this.#guard.checkGuards();
  }

  #checkHealth(): void {
    if (this.#found !== null) throw this.#found;
    const { status } = this.#state;
    assert(Number.isInteger(status) && status >= 0 && status <= 0xff, `the status is ${status}`);
    if (!this.#valid) return;
    assertEquals(this.#errors, [], "a driver that broke no rule is accused");
    assert((status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) === 0);
  }

  async #start(): Promise<void> {
    await this.#reset();
    const state = this.#state;
    state.writeStatus(1);
    state.writeStatus(3);
    const accepted = (this.#features & state.offered) | VIRTIO_F_VERSION_1;
    for (let word = 0; word < 4; word++) {
      state.writeDriverFeatures(word, Number((accepted >> BigInt(32 * word)) & 0xffff_ffffn));
    }
    state.writeStatus(11);
    assertEquals(state.status, 11, "features that were offered are agreed on");
    const format = this.#test.packed ? "packed" : "split";
    for (let queue = 0; queue < QUEUES; queue++) {
      const config = placeQueue(SIZE, 0x100 + 0x800 * queue, format);
      this.#rings.push(rawDriver(this.#memory, config, this.#features));
      const setup = state.queues[queue]!;
      setup.setSize(SIZE);
      const areas = [config.descriptorArea, config.driverArea, config.deviceArea] as const;
      for (const area of [0, 1, 2] as const) {
        setup.writeAddress(area, 0, areas[area]);
        setup.writeAddress(area, 1, 0);
      }
      state.enableQueue(queue);
    }
    state.writeStatus(15);
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
    this.#state.writeStatus(0);
    for (let i = 0; i < 20 && this.#state.status !== 0; i++) await turns(1);
    assertEquals(this.#state.status, 0, "a reset ends");
    for (const flights of this.#flights) flights.clear();
    this.#rings = [];
    this.#ranges = [];
    this.#valid = true;
    this.#errors.length = 0;
    this.#known.clear();
    this.#answers.length = 0;
    for (const stream of [...this.#outputs, ...this.#inputs]) stream.lose();
  }

  async #step(step: Step): Promise<void> {
    const state = this.#state;
    switch (step.do) {
      case "chain":
        return this.#chain(step);
      case "kick":
        return state.notify(step.queue);
      case "reap":
        return this.#reap(step.queue);
      case "wait":
        return await turns(1);
      case "start":
        return await this.#start();
      case "reset":
        return await this.#reset();
      case "suspend":
        return state.writeStatus(state.status | 16);
      case "resume":
        return state.writeStatus(state.status | 4);
      case "move":
        return await this.#move();
      case "status":
        this.#valid = false;
        return state.writeStatus(step.value);
      case "features":
        this.#valid = false;
        return state.writeDriverFeatures(step.value % 5, step.value);
      case "resetQueue":
        this.#valid = false;
        return state.resetQueue(step.queue);
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
    await this.#state.pause();
    const saved = structuredClone(this.#state.save());
    const before = this.#state;
    const ports = this.#device.ports;
    const rooms = ports.map(({ backend }) => (backend as Host).room);
    this.#make(ports.map(({ id }) => id));
    ports.forEach(({ id, hostOpen }, i) => {
      const port = this.#device.port(id)!;
      (port.backend as Host).room = rooms[i]!;
      if (!hostOpen) port.close();
    });
    this.#state.restore(saved);
    this.#state.unpause();
    before.writeStatus(0);
  }

  #chain(step: ChainStep): void {
    const { queue } = step;
    const ring = this.#rings[queue];
    const flights = this.#flights[queue]!;
    if (ring === undefined) return;
    const at = BUFFERS + (this.#sent % PLACES) * PLACE;
    if (this.#flights.some(({ all }) => all.some((other) => other.at === at))) return;
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
    const sent = sendDescriptors(ring, descriptors, {
      indirect,
      indirectAllowed: this.#test.indirect,
      table: at + 0x200,
      wrong: step.wrong,
    });
    if (!sent.valid) this.#valid = false;
    // Too short for any message; or of a port that this driver does not know.
    if (queue === 2 && length < 8) this.#valid = false;
    if (queue > 1 && !this.#test.multiport) this.#valid = false;
    this.#ranges.push(...sent.ranges);
    if (step.wrong?.kind === "poke") this.#ranges.push([0, END], [HIGH, 0x400]);
    flights.start(sent.id, sent.slots, { at, room: write ? length : 0 });
    if (step.kick) this.#state.notify(queue);
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
    const ring = this.#rings[queue];
    if (ring === undefined) return;
    for (const { id, length } of ring.takeUsed()) {
      const done = this.#flights[queue]!.end(id);
      if (done === null) {
        assert(!this.#valid, `buffer ${id} was used, which is not in flight`);
        continue;
      }
      if (!this.#valid) continue;
      assert(length <= done.room, `${length} bytes of ${done.room}`);
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
    if (!this.#test.polite || !this.#valid) return;
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
  cases,
  async run(test) {
    await new ConsoleRun(test).run();
  },
};

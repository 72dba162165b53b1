/** Fuzzes a device behind registers, MMIO or PCI: a driver that mostly keeps the rules, and writes what it likes now and then. */
import { assert, assertEquals } from "@std/assert";
import {
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_F_VERSION_1,
} from "@virtio/device";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import {
  placeQueue,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { type BusCase, busCases, type Step } from "./bus_cases.ts";
import { type Bus, onMmio, onPci, QUEUES, SIZE, type Width } from "./buses.ts";
import { type ChainCase, Flights, PLACES, REGIONS, sendChain, type SentChain } from "./chains.ts";
import { GuardedMemory, type Target, turns } from "./harness.ts";

interface Waiting extends SentChain {
  /** Device-writable bytes. */
  readonly room: number;
}

class BusRun {
  readonly #test: BusCase;
  readonly #make: (device: EchoDevice, guard: GuardedMemory, errors: Error[]) => Bus;
  readonly #guard = new GuardedMemory(REGIONS);
  readonly #errors: Error[] = [];
  readonly #features: bigint;
  readonly #flights: readonly Flights<Waiting>[];
  #device!: EchoDevice;
  #bus!: Bus;
  #rings: (RawSplitDriver | RawPackedDriver)[] = [];
  /** Whether the driver has kept every rule since the last start. */
  #valid = false;
  #sent = 0;
  #ranges: (readonly [number, number])[] = [];

  constructor(
    test: BusCase,
    make: (device: EchoDevice, guard: GuardedMemory, errors: Error[]) => Bus,
  ) {
    this.#test = test;
    this.#make = make;
    this.#flights = [0, 1].map(() => new Flights<Waiting>(test.packed));
    this.#features = (test.packed ? VIRTIO_F_RING_PACKED : 0n) |
      (test.eventIdx ? VIRTIO_F_EVENT_IDX : 0n) | (test.inOrder ? VIRTIO_F_IN_ORDER : 0n) |
      (test.indirect ? VIRTIO_F_INDIRECT_DESC : 0n) |
      (test.notificationData ? VIRTIO_F_NOTIFICATION_DATA | VIRTIO_F_NOTIF_CONFIG_DATA : 0n) |
      VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND | VIRTIO_F_VERSION_1;
    this.#fresh();
  }

  #fresh(): void {
    const hold = this.#device?.hold ?? false;
    this.#device = new EchoDevice({ queueSizes: [SIZE, SIZE] });
    this.#device.hold = hold;
    this.#bus = this.#make(this.#device, this.#guard, this.#errors);
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#guard.remember();
      await this.#step(step);
      if (step.do !== "send" && step.do !== "start") this.#checkMemory();
      if (this.#valid) assertEquals(this.#errors, [], "a driver that broke no rule is accused");
      const { status } = this.#bus.state;
      assert(Number.isInteger(status) && status >= 0 && status <= 0xff);
    }
    await this.#finish();
  }

  #checkMemory(): void {
    const rings = this.#rings.flatMap(({ config }): [number, number][] =>
      this.#test.packed
        ? [[config.deviceArea, 4], [config.descriptorArea, 16 * SIZE]]
        : [[config.deviceArea, 6 + 8 * SIZE]]
    );
    // A broken driver may have put rings and buffers anywhere, but not outside of memory.
    if (this.#valid) this.#guard.checkUnchanged([...this.#ranges, ...rings]);
    this.#guard.checkGuards();
  }

  async #busReset(): Promise<void> {
    let done = false;
    void this.#bus.reset().then(() => done = true);
    for (let i = 0; i < 50 && !done; i++) await turns(1);
    assert(done, "a reset of the bus ends");
    assertEquals(this.#bus.state.status, 0);
    assert(!this.#bus.host.line, "a reset takes the interrupt back");
    this.#forget();
  }

  #forget(): void {
    for (const flights of this.#flights) flights.clear();
    this.#rings = [];
    this.#ranges = [];
    this.#errors.length = 0;
    this.#valid = true;
  }

  async #start(): Promise<void> {
    await this.#busReset();
    const bus = this.#bus;
    bus.set("status", 1);
    bus.set("status", 3);
    const accepted = this.#features & bus.state.offered;
    for (let word = 0; word < 4; word++) {
      bus.set("featureSelect", word);
      bus.set("feature", Number((accepted >> BigInt(32 * word)) & 0xffff_ffffn));
    }
    bus.set("status", 11);
    assertEquals(bus.state.status, 11);
    for (let queue = 0; queue < QUEUES; queue++) {
      const config = placeQueue(
        SIZE,
        0x100 + 0x600 * queue,
        this.#test.packed ? "packed" : "split",
      );
      this.#rings.push(rawDriver(this.#guard.memory, config, this.#features));
      bus.set("select", queue);
      bus.set("size", SIZE);
      const areas = [config.descriptorArea, config.driverArea, config.deviceArea] as const;
      for (const area of [0, 1, 2] as const) {
        bus.set(`area${area}0`, areas[area]);
        bus.set(`area${area}1`, 0);
      }
      bus.set("enable", 1);
    }
    bus.set("status", 15);
    assertEquals(bus.state.status, 15);
    for (const flights of this.#flights) flights.clear();
  }

  async #step(step: Step): Promise<void> {
    switch (step.do) {
      case "send":
        return this.#send(step.queue, step.chain, step.kick);
      case "kick":
        if (this.#valid && step.queue >= QUEUES) return;
        this.#bus.kick(step.queue);
        return this.#reap();
      case "wait":
        await turns(1);
        return this.#reap();
      case "start":
        return await this.#start();
      case "busReset":
        await this.#busReset();
        this.#valid = false;
        return;
      case "move": {
        const saved = structuredClone(await this.#saved());
        const before = this.#bus;
        this.#fresh();
        // What a device has saved it takes again, whatever its driver did.
        this.#bus.restore(saved);
        this.#bus.state.unpause();
        void before.reset();
        return this.#reap();
      }
      case "hold":
        this.#device.hold = true;
        return;
      case "release":
        this.#device.hold = false;
        this.#device.release();
        await turns(1);
        return this.#reap();
      case "update":
        this.#device.config.update((view) => view.setUint8(3, this.#sent & 0xff));
        return;
      case "status":
        this.#valid = false;
        this.#bus.set("status", step.value);
        return;
      case "register": {
        const { registers } = this.#bus;
        const [space, offset, natural] = registers[step.which % registers.length]!;
        const width = step.value % 7 === 0 ? step.width : natural;
        if (step.write) {
          this.#valid = false;
          this.#bus.write(space, offset, width, step.value);
        } else {
          this.#checkRead(this.#bus.read(space, offset, width), width);
        }
        return;
      }
      case "access":
        if (step.write) {
          this.#valid = false;
          this.#bus.write(step.space, step.offset, step.width, step.value);
        } else {
          this.#checkRead(this.#bus.read(step.space, step.offset, step.width), step.width);
        }
        return;
    }
  }

  #checkRead(value: number, width: Width): void {
    assert(
      Number.isInteger(value) && value >= 0 && value < 2 ** (8 * width),
      `a read of ${width} bytes gave ${value}`,
    );
  }

  /** Saves; what is held is let go, since saving waits for it. */
  async #saved(): Promise<unknown> {
    let saved: unknown = null;
    void this.#bus.save().then((state) => saved = state);
    for (let i = 0; i < 50 && saved === null; i++) {
      this.#device.release();
      await turns(1);
    }
    assert(saved !== null, "saving ends");
    return saved;
  }

  #send(queue: number, test: ChainCase, kick: boolean): void {
    const ring = this.#rings[queue];
    const flights = this.#flights[queue]!;
    if (ring === undefined) return;
    const units = test.indirect && this.#test.indirect
      ? 1
      : Math.max(1, test.readable.length + test.writable.length);
    if (units > SIZE - flights.slots && test.wrong === null) return;
    // Nor does it write where another buffer still is.
    if (this.#flights.some(({ all }) => all.some(({ place }) => place === this.#sent % PLACES))) {
      this.#sent++;
      return;
    }
    const sent = sendChain(ring, test, this.#sent++, this.#test.indirect);
    if (!sent.valid) this.#valid = false;
    this.#ranges.push(...sent.ranges);
    const room = sent.ranges.reduce((sum, [, length]) => sum + length, 0);
    flights.start(sent.id, sent.slots, { ...sent, room });
    if (kick) {
      this.#bus.kick(queue);
      this.#reap();
    }
  }

  #reap(): void {
    this.#rings.forEach((ring, queue) => {
      for (const { id, length } of ring.takeUsed()) {
        const done = this.#flights[queue]!.end(id);
        if (!this.#valid) continue;
        assert(done !== null, `buffer ${id} was used, which is not in flight`);
        const expected = Math.min(done!.out.length, done!.room);
        assertEquals(length, expected);
        const got: number[] = [];
        for (const [address, size] of done!.ranges) {
          for (let i = 0; i < size; i++) got.push(this.#guard.memory.readU8(address + i));
        }
        assertEquals(got.slice(0, expected), [...done!.out.subarray(0, expected)]);
      }
    });
  }

  async #finish(): Promise<void> {
    this.#device.hold = false;
    this.#device.release();
    await turns(2);
    this.#reap();
    if (this.#valid && this.#rings.length > 0) {
      for (let queue = 0; queue < QUEUES; queue++) this.#bus.kick(queue);
      await turns(1);
      this.#reap();
      for (const flights of this.#flights) assertEquals(flights.all, [], "everything is answered");
    }
    await this.#start();
    this.#send(0, { readable: [5], writable: [5], indirect: false, wrong: null }, true);
    await turns(1);
    this.#reap();
    assertEquals(this.#flights[0]!.all, [], "after a reset it works");
    assertEquals(this.#errors, []);
    this.#guard.checkGuards();
  }
}

/** Behind MMIO. */
export const mmioTarget: Target<BusCase> = {
  name: "mmio",
  cases: busCases,
  run: (test) => new BusRun(test, onMmio).run(),
};

/** Behind PCI. */
export const pciTarget: Target<BusCase> = {
  name: "pci",
  cases: busCases,
  run: (test) =>
    new BusRun(test, (device, guard, errors) => onPci(device, guard, errors, test)).run(),
};

/** Fuzzes a device behind registers, MMIO or PCI: a driver that mostly keeps the rules, and writes what it likes now and then. */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import {
  CORE_FEATURES,
  type DeviceState,
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
import { MmioTransport } from "@virtio/transport/mmio";
import { PciTransport } from "@virtio/transport/pci";
import * as mmio from "../../packages/transport/mmio/registers.ts";
import { CommonCfg } from "../../packages/transport/pci/registers.ts";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import {
  placeQueue,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { chain, type ChainCase, Flights, REGIONS, sendChain } from "./chains.ts";
import { GuardedMemory, type Target, turns } from "./harness.ts";

type Width = 1 | 2 | 4;

type Step =
  | { do: "send"; queue: number; chain: ChainCase; kick: boolean }
  | { do: "kick"; queue: number }
  | { do: "wait" | "start" | "busReset" | "move" | "hold" | "release" | "update" }
  | { do: "status"; value: number }
  /** A write or read of a register that means something; which space is the target's business. */
  | { do: "register"; which: number; width: Width; value: number; write: boolean }
  /** Any access at all. */
  | { do: "access"; space: number; offset: number; width: Width; value: number; write: boolean };

/** A case. */
export interface BusCase {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
  readonly notificationData: boolean;
  /** PCI: 0 memory, 1 I/O, 2 both; with MSI-X or not. */
  readonly layout: number;
  readonly msix: boolean;
  readonly steps: readonly Step[];
}

const width = fc.constantFrom<Width>(1, 2, 4, 4);
const value = fc.oneof(
  fc.nat(20),
  fc.nat(0xffff),
  fc.constantFrom(0, 1, 0x80, 0xff, 0xffff, 0x1_0000, 0x7fff_ffff, 0x8000_0000, 0xffff_ffff),
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 12,
    arbitrary: fc.record({
      do: fc.constant("send" as const),
      queue: fc.nat(1),
      chain,
      kick: fc.boolean(),
    }),
  },
  { weight: 4, arbitrary: fc.record({ do: fc.constant("kick" as const), queue: fc.nat(2) }) },
  { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constantFrom(
        "start" as const,
        "busReset" as const,
        "move" as const,
        "hold" as const,
        "release" as const,
        "update" as const,
      ),
    }),
  },
  {
    weight: 2,
    arbitrary: fc.record({
      do: fc.constant("register" as const),
      which: fc.nat(63),
      width,
      value,
      write: fc.constant(false),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.oneof(
      { weight: 2, arbitrary: fc.constant({ do: "wait" as const }) },
      {
        weight: 1,
        arbitrary: fc.record({ do: fc.constant("status" as const), value: fc.nat(0xff) }),
      },
      {
        weight: 2,
        arbitrary: fc.record({
          do: fc.constant("register" as const),
          which: fc.nat(63),
          width,
          value,
          write: fc.constant(true),
        }),
      },
      {
        weight: 1,
        arbitrary: fc.record({
          do: fc.constant("access" as const),
          space: fc.nat(7),
          offset: fc.oneof(fc.nat(0xff), fc.nat(0x3fff), fc.nat(0xffff_ffff)),
          width,
          value,
          write: fc.boolean(),
        }),
      },
    ),
  },
);

const cases: fc.Arbitrary<BusCase> = fc.record({
  packed: fc.boolean(),
  eventIdx: fc.boolean(),
  inOrder: fc.boolean(),
  indirect: fc.boolean(),
  notificationData: fc.boolean(),
  layout: fc.nat(2),
  msix: fc.boolean(),
  steps: fc.array(step, { maxLength: 60, size: "max" }),
});

/** What the two buses have in common. */
interface Bus {
  readonly state: DeviceState;
  readonly host: Host;
  read(space: number, offset: number, width: Width): number;
  write(space: number, offset: number, width: Width, value: number): void;
  /** Offset, space and width of each register that means something. */
  readonly registers: readonly (readonly [number, number, Width])[];
  /** By name, for an initialisation that keeps the rules. */
  set(name: RegisterName, value: number): void;
  kick(queue: number): void;
  save(): Promise<unknown>;
  restore(saved: unknown): void;
  reset(): Promise<void>;
}

type RegisterName =
  | "status"
  | "featureSelect"
  | "feature"
  | "select"
  | "size"
  | "enable"
  | `area${0 | 1 | 2}${0 | 1}`;

const SIZE = 8;
const QUEUES = 2;

/** What tells the machine of interrupts, with the rules that it relies on. */
class Host {
  line = false;
  setInterruptLine(asserted: boolean): void {
    assert(asserted !== this.line, "the line is set to what it is already");
    this.line = asserted;
  }
  sendMessage(low: number, high: number, data: number): void {
    for (const word of [low, high, data]) {
      assert(Number.isInteger(word) && word >= 0 && word <= 0xffff_ffff, `a message of ${word}`);
    }
  }
}

function onMmio(device: EchoDevice, guard: GuardedMemory, errors: Error[]): Bus {
  const host = new Host();
  const transport = new MmioTransport(device, {
    memory: guard.memory,
    host,
    features: CORE_FEATURES,
    onError: (error) => errors.push(error),
  });
  const offsets: Record<RegisterName, number> = {
    status: mmio.VIRTIO_MMIO_STATUS,
    featureSelect: mmio.VIRTIO_MMIO_DRIVER_FEATURES_SEL,
    feature: mmio.VIRTIO_MMIO_DRIVER_FEATURES,
    select: mmio.VIRTIO_MMIO_QUEUE_SEL,
    size: mmio.VIRTIO_MMIO_QUEUE_SIZE,
    enable: mmio.VIRTIO_MMIO_QUEUE_READY,
    area00: mmio.VIRTIO_MMIO_QUEUE_DESC_LOW,
    area01: mmio.VIRTIO_MMIO_QUEUE_DESC_HIGH,
    area10: mmio.VIRTIO_MMIO_QUEUE_DRIVER_LOW,
    area11: mmio.VIRTIO_MMIO_QUEUE_DRIVER_HIGH,
    area20: mmio.VIRTIO_MMIO_QUEUE_DEVICE_LOW,
    area21: mmio.VIRTIO_MMIO_QUEUE_DEVICE_HIGH,
  };
  const all = Object.values(mmio).filter((offset) => offset <= mmio.VIRTIO_MMIO_CONFIG);
  return {
    state: transport.state,
    host,
    read: (_space, offset, width) => transport.read(offset, width),
    write: (_space, offset, width, value) => transport.write(offset, width, value),
    registers: all.map((offset) => [0, offset, 4]),
    set: (name, value) => transport.write(offsets[name], 4, value),
    kick: (queue) => transport.write(mmio.VIRTIO_MMIO_QUEUE_NOTIFY, 4, queue),
    save: () => transport.save(),
    restore: (saved) => transport.restore(saved as never),
    reset: () => transport.reset(),
  };
}

function onPci(
  device: EchoDevice,
  guard: GuardedMemory,
  errors: Error[],
  { layout, msix }: BusCase,
): Bus {
  const host = new Host();
  const transport = new PciTransport(device, {
    memory: guard.memory,
    host,
    features: CORE_FEATURES,
    layout: (["memory", "io", "memory+io-notify"] as const)[layout]!,
    onError: (error) => errors.push(error),
    ...(msix ? {} : { msix: false }),
  });
  const bar = layout === 1 ? 0 : 2;
  const offsets: Record<RegisterName, readonly [number, Width]> = {
    status: [CommonCfg.deviceStatus, 1],
    featureSelect: [CommonCfg.driverFeatureSelect, 4],
    feature: [CommonCfg.driverFeature, 4],
    select: [CommonCfg.queueSelect, 2],
    size: [CommonCfg.queueSize, 2],
    enable: [CommonCfg.queueEnable, 2],
    area00: [CommonCfg.queueDesc, 4],
    area01: [CommonCfg.queueDesc + 4, 4],
    area10: [CommonCfg.queueDriver, 4],
    area11: [CommonCfg.queueDriver + 4, 4],
    area20: [CommonCfg.queueDevice, 4],
    area21: [CommonCfg.queueDevice + 4, 4],
  };
  const CONFIG_SPACE = 6;
  const registers: (readonly [number, number, Width])[] = [];
  for (let offset = 0; offset < CommonCfg.size; offset += 2) registers.push([bar, offset, 2]);
  for (let offset = 0; offset < CommonCfg.size; offset += 4) registers.push([bar, offset, 4]);
  registers.push([bar, CommonCfg.deviceStatus, 1], [bar, 0x40, 1], [bar, 0x1000, 1]);
  // Command, BARs, and everything from the first capability on: MSI-X control and the access window among them.
  for (const offset of [0x04, 0x06, 0x10, 0x14, 0x18, 0x1c, 0x20, 0x24, 0x30, 0x3c]) {
    registers.push([CONFIG_SPACE, offset, 4]);
  }
  for (let offset = 0x40; offset < 0x100; offset += 4) registers.push([CONFIG_SPACE, offset, 4]);
  for (let offset = 0; offset < 0x40; offset += 4) registers.push([1, offset, 4]);
  // Where the notification structure is, whatever the layout.
  const notify = notifyPlace(transport);
  return {
    state: transport.state,
    host,
    read: (space, offset, width) =>
      space >= CONFIG_SPACE
        ? transport.configRead(offset % 0x100 & -width, width)
        : transport.barRead(space, offset, width),
    write(space, offset, width, value) {
      if (space >= CONFIG_SPACE) transport.configWrite(offset % 0x100 & -width, width, value);
      else transport.barWrite(space, offset, width, value);
    },
    registers,
    set: (name, value) => transport.barWrite(bar, offsets[name][0], offsets[name][1], value),
    kick: (queue) =>
      transport.barWrite(notify.bar, notify.offset + queue % QUEUES * notify.multiplier, 2, queue),
    save: () => transport.save(),
    restore: (saved) => transport.restore(saved as never),
    reset: () => transport.reset(),
  };
}

/** Finds the notification capability, as a driver does. */
function notifyPlace(pci: PciTransport): { bar: number; offset: number; multiplier: number } {
  for (let at = pci.configRead(0x34, 1); at !== 0; at = pci.configRead(at + 1, 1)) {
    if (pci.configRead(at, 1) === 9 && pci.configRead(at + 3, 1) === 2) {
      return {
        bar: pci.configRead(at + 4, 1),
        offset: pci.configRead(at + 8, 4),
        multiplier: pci.configRead(at + 16, 4),
      };
    }
  }
  throw new Error("there is no notification capability");
}

interface Waiting {
  readonly out: Uint8Array;
  readonly room: number;
  readonly ranges: readonly (readonly [number, number])[];
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
    const busy = this.#flights.reduce((sum, { all }) => sum + all.length, 0);
    // Places are used in a circle: none that is somebody's.
    if (busy > 8 && test.wrong === null) return;
    const sent = sendChain(ring, test, this.#sent++, this.#test.indirect);
    if (!sent.valid) this.#valid = false;
    this.#ranges.push(...sent.ranges);
    const room = sent.ranges.reduce((sum, [, length]) => sum + length, 0);
    flights.start(sent.id, sent.slots, { out: sent.out, room, ranges: sent.ranges });
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
  cases,
  run: (test) => new BusRun(test, onMmio).run(),
};

/** Behind PCI. */
export const pciTarget: Target<BusCase> = {
  name: "pci",
  cases,
  run: (test) =>
    new BusRun(test, (device, guard, errors) => onPci(device, guard, errors, test)).run(),
};

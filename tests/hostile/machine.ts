/** A machine with a device that a hostile driver has in its hands, and another one that must not notice. */
import { assert, assertEquals } from "@std/assert";
import {
  CORE_FEATURES,
  type Device,
  type DeviceState,
  type FeatureSet,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_VERSION_1,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { PciTransport } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import type { QueueConfig } from "@virtio/vring";
import * as mmio from "../../packages/transport/mmio/registers.ts";
import { CommonCfg } from "../../packages/transport/pci/registers.ts";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";
import {
  placeQueue,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";

/** The two transports. */
export const BUSES = ["mmio", "pci"] as const;
/** One of them. */
export type Bus = typeof BUSES[number];

/** Where the rings of the device under attack begin; each queue has 64 KiB. */
export const RINGS = 0x1_0000;
/** Where requests may lie. */
export const BUFFERS = 0x4_0000;
/** Where the first piece of memory ends and the second begins. */
export const SEAM = 0x10_0000;
/** Where the second ends, and nothing follows. */
export const END = 0x11_0000;
/** Another piece, above 4 GiB. */
export const HIGH = 0x2_0000_0000;

/** Register writes that the driver half of a transport would refuse to make. */
export interface Registers {
  select(queue: number): void;
  size(value: number): void;
  address(area: 0 | 1 | 2, half: 0 | 1, value: number): void;
  enable(value: number): void;
  reset(value: number): void;
  status(value: number): void;
  features(word: number, value: number): void;
  config(offset: number, size: 1 | 2 | 4, value: number): void;
  notify(value: number): void;
}

/** A device on a bus. */
export interface Attached<D extends Device> {
  readonly device: D;
  readonly state: DeviceState;
  readonly driver: DriverTransport;
  readonly registers: Registers;
  /** Why the device asked for a reset. */
  readonly errors: Error[];
  /** Notifications that reached the driver. */
  readonly told: { queue: number; config: number };
  /** Called with each, instead of nothing. */
  onTold: (what: "queue" | "config") => void;
}

const mmioAreas = [
  mmio.VIRTIO_MMIO_QUEUE_DESC_LOW,
  mmio.VIRTIO_MMIO_QUEUE_DRIVER_LOW,
  mmio.VIRTIO_MMIO_QUEUE_DEVICE_LOW,
];
const pciAreas = [CommonCfg.queueDesc, CommonCfg.queueDriver, CommonCfg.queueDevice];

/** Guest memory of three pieces, with a hole. */
export function guestMemory(): GuestMemory {
  return new GuestMemory([
    { base: 0, buffer: new SharedArrayBuffer(SEAM) },
    { base: SEAM, buffer: new ArrayBuffer(END - SEAM) },
    { base: HIGH, buffer: new SharedArrayBuffer(0x1_0000) },
  ]);
}

/** Puts a device on a bus. */
export function attach<D extends Device>(
  device: D,
  memory: GuestMemory,
  bus: Bus,
  delivery: "microtask" | "sync" = "microtask",
): Attached<D> {
  const errors: Error[] = [];
  const options = {
    memory,
    features: CORE_FEATURES,
    onError: (error: Error) => {
      errors.push(error);
    },
  };
  let driver: DriverTransport;
  let state: DeviceState;
  let registers: Registers;
  if (bus === "mmio") {
    const joined = connectMmio((host) => new MmioTransport(device, { ...options, host }), {
      delivery,
    });
    driver = joined.driver;
    const { transport } = joined;
    state = transport.state;
    const write = (at: number, value: number) => transport.write(at, 4, value);
    registers = {
      select: (queue) => write(mmio.VIRTIO_MMIO_QUEUE_SEL, queue),
      size: (value) => write(mmio.VIRTIO_MMIO_QUEUE_SIZE, value),
      address: (area, half, value) => write(mmioAreas[area]! + 4 * half, value),
      enable: (value) => write(mmio.VIRTIO_MMIO_QUEUE_READY, value),
      reset: (value) => write(mmio.VIRTIO_MMIO_QUEUE_RESET, value),
      status: (value) => write(mmio.VIRTIO_MMIO_STATUS, value),
      features(word, value) {
        write(mmio.VIRTIO_MMIO_DRIVER_FEATURES_SEL, word);
        write(mmio.VIRTIO_MMIO_DRIVER_FEATURES, value);
      },
      config: (offset, size, value) =>
        transport.write(mmio.VIRTIO_MMIO_CONFIG + offset, size, value),
      notify: (value) => write(mmio.VIRTIO_MMIO_QUEUE_NOTIFY, value),
    };
  } else {
    const joined = connectPci((host) => new PciTransport(device, { ...options, host }), {
      delivery,
    });
    driver = joined.driver;
    const { transport } = joined;
    state = transport.state;
    const write = (at: number, size: 1 | 2 | 4, value: number) =>
      transport.barWrite(2, at, size, value);
    const deviceConfig = 0x2000;
    const notify = 0x3000;
    registers = {
      select: (queue) => write(CommonCfg.queueSelect, 2, queue),
      size: (value) => write(CommonCfg.queueSize, 2, value),
      address: (area, half, value) => write(pciAreas[area]! + 4 * half, 4, value),
      enable: (value) => write(CommonCfg.queueEnable, 2, value),
      reset: (value) => write(CommonCfg.queueReset, 2, value),
      status: (value) => write(CommonCfg.deviceStatus, 1, value),
      features(word, value) {
        write(CommonCfg.driverFeatureSelect, 4, word);
        write(CommonCfg.driverFeature, 4, value);
      },
      config: (offset, size, value) => write(deviceConfig + offset, size, value),
      notify: (value) => write(notify, 2, value),
    };
  }
  const told = { queue: 0, config: 0 };
  const attached: Attached<D> = {
    device,
    state,
    driver,
    registers,
    errors,
    told,
    onTold: () => {},
  };
  driver.interrupts = {
    queue() {
      told.queue++;
      attached.onTold("queue");
    },
    config() {
      told.config++;
      attached.onTold("config");
    },
  };
  return attached;
}

/** Turns of the event loop. */
export async function turns(count = 3): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((resolve) => setTimeout(resolve, 0));
}

/** A device under attack and a bystander, in one memory. */
export class Machine<D extends Device> {
  readonly memory: GuestMemory;
  readonly victim: Attached<D>;
  readonly bystander: Attached<EchoDevice>;
  /** Rings of the victim, written by hand. */
  rings: (RawSplitDriver | RawPackedDriver)[] = [];
  #bystanderRing: RawSplitDriver | RawPackedDriver;
  #features: FeatureSet = 0n;
  #size = 0;
  #echoes = 0;

  constructor(
    device: D,
    bus: Bus,
    options: { memory?: GuestMemory; delivery?: "microtask" | "sync" } = {},
  ) {
    this.memory = options.memory ?? guestMemory();
    this.victim = attach(device, this.memory, bus, options.delivery);
    this.bystander = attach(new EchoDevice({ queueSizes: [8] }), this.memory, bus);
    const config = placeQueue(8, 0x1000, "split");
    this.#bystanderRing = rawDriver(this.memory, config, 0n);
    begin(this.bystander.driver, 0n, [config]);
  }

  /** Whether the victim asks for a reset. */
  get needsReset(): boolean {
    return (this.victim.driver.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0;
  }

  /** Where a queue of the victim lies. */
  place(queue: number, size: number, features: FeatureSet): QueueConfig {
    const format = (features & VIRTIO_F_RING_PACKED) === 0n ? "split" : "packed";
    return placeQueue(size, RINGS + 0x1_0000 * queue, format);
  }

  /** Initialises the victim, with a queue of the given size or two. */
  start(
    features: FeatureSet = 0n,
    size = 8,
    queues = 1,
  ): RawSplitDriver | RawPackedDriver {
    this.#features = features;
    this.#size = size;
    const configs = Array.from({ length: queues }, (_, i) => this.place(i, size, features));
    this.rings = configs.map((config) => rawDriver(this.memory, config, features));
    begin(this.victim.driver, features, configs);
    assertEquals(this.victim.driver.readStatus() & 0x4f, 0x0f, "the device runs");
    return this.rings[0]!;
  }

  /** Resets the victim, and waits until that is complete. */
  async reset(): Promise<void> {
    this.victim.driver.writeStatus(0);
    for (let i = 0; i < 100 && this.victim.driver.readStatus() !== 0; i++) await turns(1);
    assertEquals(this.victim.driver.readStatus(), 0, "the reset is complete");
  }

  /** Kicks the victim. */
  kick(queue = 0): void {
    this.victim.driver.kick(queue, 0);
  }

  /** A byte goes to the bystander and comes back. */
  async checkBystander(): Promise<void> {
    const at = 0x3000;
    const value = 1 + this.#echoes++ % 200;
    this.memory.writeU8(at, value);
    this.memory.writeU8(at + 8, 0);
    const told = this.bystander.told.queue;
    this.#bystanderRing.send([{ address: at, length: 1 }, {
      address: at + 8,
      length: 1,
      write: true,
    }]);
    this.bystander.driver.kick(0, 0);
    await turns(1);
    assertEquals(this.#bystanderRing.takeUsed().map(({ length }) => length), [1]);
    assertEquals(this.memory.readU8(at + 8), value, "the other device answers");
    assert(this.bystander.told.queue > told);
    assertEquals(this.bystander.errors, []);
  }

  /** Remembers all memory; the result tells whether anything but these ranges has changed. */
  watch(): (...except: readonly (readonly [number, number])[]) => void {
    const before = this.memory.regions.map((region) => region.bytes.slice());
    return (...except) => {
      this.memory.regions.forEach((region, i) => {
        const { bytes, base } = region;
        const old = before[i]!;
        for (let at = 0; at < bytes.length; at++) {
          if (bytes[at] === old[at]) continue;
          const address = base + at;
          const allowed = except.some(([from, length]) =>
            address >= from && address < from + length
          );
          assert(allowed, `the byte at 0x${address.toString(16)} was changed`);
        }
      });
    };
  }

  /** What the device may always write: the device area, and a packed ring. */
  ringRanges(): [number, number][] {
    return this.rings.flatMap(({ config }) => {
      const packed = (this.#features & VIRTIO_F_RING_PACKED) !== 0n;
      return [
        [config.deviceArea, packed ? 4 : 6 + 8 * config.size],
        ...(packed ? [[config.descriptorArea, 16 * config.size]] : []),
      ] as [number, number][];
    });
  }

  /**
   * What must hold after a driver broke a rule: the device asks for a reset and says why, the host goes on, the other device
   * is not disturbed, kicks do nothing any more, no memory has changed, and after a reset the device works again.
   */
  async checkBroken(
    unchanged: (...except: readonly (readonly [number, number])[]) => void,
    options: { clause?: RegExp; works: () => Promise<void> | void },
  ): Promise<void> {
    const { victim } = this;
    assert(this.needsReset, "the device asks for a reset");
    assertEquals(victim.errors.length, 1, "it says so once");
    const error = victim.errors[0]!;
    assert(options.clause?.test(error.message) ?? true, error.message);
    assert(/virtio 1\.4, \d/.test(error.message), `it names the clause: ${error.message}`);
    await turns(2);
    assert(victim.told.config >= 1, "the driver is told");
    unchanged(...this.ringRanges());
    const quiet = this.watch();
    const told = { ...victim.told };
    for (let i = 0; i < 50; i++) {
      for (let queue = 0; queue < this.rings.length + 1; queue++) this.kick(queue);
    }
    await turns(2);
    quiet();
    assertEquals(victim.told, told, "it says nothing more");
    assertEquals(victim.errors.length, 1);
    await this.checkBystander();
    await this.reset();
    victim.errors.length = 0;
    this.start(this.#features, this.#size, this.rings.length);
    await options.works();
    assertEquals(victim.errors, []);
    await this.checkBystander();
  }
}

/** Initialises a device (3.1.1) with queues that are where they are. */
export function begin(
  driver: DriverTransport,
  features: FeatureSet,
  configs: readonly QueueConfig[],
): void {
  driver.writeStatus(0);
  driver.writeStatus(VIRTIO_STATUS_ACKNOWLEDGE);
  driver.writeStatus(VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER);
  driver.writeDriverFeatures(features | VIRTIO_F_VERSION_1);
  const agreed = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER | VIRTIO_STATUS_FEATURES_OK;
  driver.writeStatus(agreed);
  driver.negotiated(features | VIRTIO_F_VERSION_1);
  configs.forEach((config, index) => driver.enableQueue(index, config));
  driver.writeStatus(agreed | VIRTIO_STATUS_DRIVER_OK);
}

/** A request to an echo device goes through. */
export async function echoes(machine: Machine<Device>, queue = 0): Promise<void> {
  const { memory } = machine;
  const ring = machine.rings[queue]!;
  memory.writeU32(BUFFERS, 0x1234_5678);
  memory.writeU32(BUFFERS + 16, 0);
  ring.takeUsed();
  ring.send([{ address: BUFFERS, length: 4 }, { address: BUFFERS + 16, length: 4, write: true }]);
  machine.kick(queue);
  await turns(1);
  assertEquals(ring.takeUsed().map(({ length }) => length), [4]);
  assertEquals(memory.readU32(BUFFERS + 16), 0x1234_5678);
}

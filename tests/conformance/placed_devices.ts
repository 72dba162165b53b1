/** Devices that tests look into and meddle with, made from plain data: the same here and in a worker. */
import { type BlkBackend, BlkDevice, type BlkDeviceOptions, type BlkLifetime } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { ConsoleDevice, type ConsoleDeviceOptions, type ConsolePortOptions } from "@virtio/console";
import {
  ConfigSpace,
  type FeatureRequirement,
  type FeatureSet,
  type SharedMemoryRegion,
} from "@virtio/device";
import { NetDevice, type NetDeviceOptions } from "@virtio/net";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { SpyConsole } from "../../packages/console/testing.ts";
import { echo, later, TestDevice } from "../../packages/device/testing.ts";
import { TestClock } from "../../packages/net/control/testing.ts";
import { SpyBackend } from "../../packages/net/testing.ts";
import { EchoDevice, type EchoOptions } from "../../packages/transport/testing/echo_device.ts";

/** What a `TestDevice` is made of. */
export interface TestData {
  readonly type?: number;
  readonly features?: FeatureSet;
  readonly requires?: readonly FeatureRequirement[];
  readonly queueSizes?: readonly number[];
  readonly sharedMemory?: readonly SharedMemoryRegion[];
  /** What is in the configuration space; all of it writable by the driver. */
  readonly config?: Uint8Array;
}

/** What a block device is made of. */
export interface BlkData {
  /** The disk; 1 MiB that takes memory only where it was written, unless given. */
  readonly bytes?: SharedArrayBuffer;
  /** Whether the back end answers in a later turn; no unless given. */
  readonly later?: boolean;
  /** What the back end says of its wear; nothing unless given. */
  readonly lifetime?: BlkLifetime;
  readonly options?: Omit<Partial<BlkDeviceOptions>, "backend" | "onError">;
}

/** What a network device is made of. */
export interface NetData extends Omit<Partial<NetDeviceOptions>, "backend" | "clock" | "onError"> {
  /** Of the back end, as the following. */
  readonly offloads?: number;
  readonly maxMtu?: number;
}

/** What a console device is made of. */
export interface ConsoleData extends Omit<ConsoleDeviceOptions, "ports" | "onError"> {
  /** Its ports, each on a back end of its own. */
  readonly ports: readonly Omit<ConsolePortOptions, "backend">[];
}

/** What each kind of device is made of. */
export interface DeviceData {
  readonly test: TestData;
  readonly echo: EchoOptions;
  readonly blk: BlkData;
  readonly net: NetData;
  readonly console: ConsoleData;
}

/** What a test meddles with, where the device is: the device itself and what belongs to it. */
export interface Insides {
  readonly test: {
    readonly device: TestDevice;
    /** Work that is done when the test says so. */
    readonly work: ReturnType<typeof later>;
    readonly echo: typeof echo;
  };
  readonly echo: { readonly device: EchoDevice; finish: () => void };
  readonly blk: {
    readonly device: BlkDevice;
    readonly memory: MemoryBackend;
    /** Around that, if it answers in a later turn. */
    readonly later: LaterBackend | null;
    /** Writes and flushes that reached the memory. */
    readonly log: string[];
    /** What the device told its embedder. */
    readonly errors: string[];
  };
  readonly net: {
    readonly device: NetDevice;
    readonly backend: SpyBackend;
    readonly clock: TestClock;
  };
  readonly console: {
    readonly device: ConsoleDevice;
    /** Back ends of the ports that it began with. */
    readonly hosts: readonly SpyConsole[];
    /** A back end for one more. */
    readonly host: () => SpyConsole;
  };
}

/** Has a back end write down writes and flushes. */
function logged(backend: MemoryBackend): string[] {
  const log: string[] = [];
  const { write, writeZeroes } = backend;
  backend.write = (...args) => {
    log.push("write");
    write.apply(backend, args);
  };
  backend.writeZeroes = (...args) => {
    log.push("zero");
    writeZeroes.apply(backend, args);
  };
  backend.flush = () => void log.push("flush");
  return log;
}

/** The kinds. */
export type Kind = keyof DeviceData;

const MAKERS: { readonly [K in Kind]: (data: DeviceData[K]) => Insides[K] } = {
  test({ config: bytes, ...init }) {
    const config = new ConfigSpace(bytes?.length ?? 16, () => true);
    if (bytes !== undefined) config.bytes.set(bytes);
    return { device: new TestDevice({ ...init, config }), work: later(), echo };
  },
  echo: (options) => ({ device: new EchoDevice(options), finish: () => {} }),
  blk({ bytes, lifetime, options, ...data }) {
    const memory = new MemoryBackend(bytes === undefined ? 2 ** 20 : new Uint8Array(bytes));
    const log = logged(memory);
    const later = data.later === true ? new LaterBackend(memory) : null;
    const backend: BlkBackend = later ?? memory;
    if (lifetime !== undefined) {
      backend.lifetime = () => later === null ? lifetime : Promise.resolve(lifetime);
    }
    const errors: string[] = [];
    const onError = (error: unknown): void => void errors.push(String(error));
    return { device: new BlkDevice({ ...options, backend, onError }), memory, later, log, errors };
  },
  net({ offloads, maxMtu, ...options }) {
    const backend = new SpyBackend();
    if (offloads !== undefined) backend.offloads = offloads;
    if (maxMtu !== undefined) backend.maxMtu = maxMtu;
    const clock = new TestClock();
    const device = new NetDevice({ mac: "02:00:00:00:00:01", ...options, backend, clock });
    return { device, backend, clock };
  },
  console({ ports, ...options }) {
    const hosts = ports.map(() => new SpyConsole());
    const device = new ConsoleDevice({
      ...options,
      ports: ports.map((port, i) => ({ ...port, backend: hosts[i]! })),
    });
    return { device, hosts, host: () => new SpyConsole() };
  },
};

/** Makes a device. */
export function makeDevice<K extends Kind>(kind: K, data: DeviceData[K]): Insides[K] {
  return MAKERS[kind](data);
}

/** Devices that tests look into and meddle with, made from plain data: the same here and in a worker. */
import { BlkDevice } from "@virtio/blk";
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
  /** The disk. */
  readonly bytes: SharedArrayBuffer;
  /** Whether the back end answers in a later turn. */
  readonly later: boolean;
  readonly options: {
    readonly readonly?: boolean;
    readonly writeZeroes?: { readonly maxSegments: number };
    readonly secureErase?: { readonly maxSegments: number };
  };
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
  readonly blk: { readonly device: BlkDevice };
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

/** The kinds. */
export type Kind = keyof DeviceData;

const MAKERS: { readonly [K in Kind]: (data: DeviceData[K]) => Insides[K] } = {
  test({ config: bytes, ...init }) {
    const config = new ConfigSpace(bytes?.length ?? 16, () => true);
    if (bytes !== undefined) config.bytes.set(bytes);
    return { device: new TestDevice({ ...init, config }), work: later(), echo };
  },
  echo: (options) => ({ device: new EchoDevice(options), finish: () => {} }),
  blk({ bytes, later, options }) {
    const memory = new MemoryBackend(new Uint8Array(bytes));
    const backend = later ? new LaterBackend(memory) : memory;
    return { device: new BlkDevice({ ...options, backend }) };
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

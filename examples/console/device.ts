/** The example's console: its device in this thread, or in a worker; what is behind its ports is here either way. */
import {
  ConsoleDevice,
  type ConsolePort,
  type ConsolePortOptions,
  ConsoleStats,
} from "@virtio/console";
import type { Device } from "@virtio/device";
import type { WorkerDevice } from "@virtio/worker";
import type {
  ConsoleWorkerData,
  ConsoleWorkerReport,
  FromConsole,
  PortData,
  ToConsole,
} from "../shared/workers/console_messages.ts";
import { spawnWith } from "../shared/workers/channel.ts";
import { inWorker } from "../shared/workers/place.ts";
import { Wire } from "../shared/workers/wire.ts";
import type { Counted } from "./figures.ts";
import type { Options } from "./options.ts";

/** The host's hand on a port. */
export type Port = Pick<ConsolePort, "backend" | "resize">;

/** A console device, wherever it runs. */
export interface PlacedConsole extends Disposable {
  /** For a transport. */
  readonly device: Device;
  /** A port by its name, or the console: 0. */
  port(which: string | 0): Port | undefined;
  /** Adds a port while the guest runs. */
  addPort(options: ConsolePortOptions): void;
  /** Removes a port. */
  removePort(name: string): void;
  /** What the device counted. */
  counted(): Counted;
}

/** Makes the device. The console is the first port. */
export async function openConsole(
  options: Options,
  ports: readonly ConsolePortOptions[],
  maxPorts: number,
): Promise<PlacedConsole> {
  if (options.in !== "process") return await ConsoleThere.open(ports, maxPorts);
  const device = new ConsoleDevice({ ports, maxPorts });
  return {
    device,
    port: (which) => device.port(which),
    addPort: (port) => void device.addPort(port),
    removePort: (name) => device.removePort(name),
    counted: () => device,
    [Symbol.dispose]: () => {},
  };
}

/** A port of a device in a worker: what its back end does here, happens there. */
class PortThere {
  readonly name: string;
  readonly backend: ConsolePortOptions["backend"];
  readonly wire: Wire;
  attached = true;
  readonly #post: (message: ToConsole) => void;
  readonly #key: number;

  constructor(key: number, options: ConsolePortOptions, post: (message: ToConsole) => void) {
    const { backend } = options;
    this.#key = key;
    this.#post = post;
    this.name = options.name ?? "";
    this.backend = backend;
    this.wire = new Wire({
      post: (wire) => post({ key, wire }),
      take: (bytes, offset, length) => backend.write(bytes, offset, length),
      drained: () => backend.inputDrained?.(),
    });
  }

  /** To be called when the device is there. */
  attach(): void {
    // Of a port, back ends use no more than what is here.
    this.backend.attached?.(this as unknown as ConsolePort);
  }

  write(bytes: Uint8Array, offset = 0, length: number = bytes.length - offset): number {
    return this.attached ? this.wire.send(bytes, offset, length) : 0;
  }

  resume(): void {
    if (this.attached) this.wire.pump();
  }

  resize(cols: number, rows: number): void {
    if (this.attached) this.#post({ key: this.#key, size: [cols, rows] });
  }

  open(): void {
    if (this.attached) this.#post({ key: this.#key, open: true });
  }

  close(): void {
    if (this.attached) this.#post({ key: this.#key, open: false });
  }
}

/** A device in a worker with its ports. */
class ConsoleThere implements PlacedConsole {
  readonly #device: WorkerDevice;
  readonly #channel: MessagePort;
  readonly #ports: Map<number, PortThere>;
  #nextKey: number;

  private constructor(
    device: WorkerDevice,
    channel: MessagePort,
    ports: Map<number, PortThere>,
  ) {
    this.#device = device;
    this.#channel = channel;
    this.#ports = ports;
    this.#nextKey = ports.size;
  }

  static async open(all: readonly ConsolePortOptions[], maxPorts: number): Promise<ConsoleThere> {
    const { port1: channel, port2: there } = new MessageChannel();
    const ports = new Map<number, PortThere>();
    channel.onmessage = ({ data }: MessageEvent<FromConsole>) => {
      const port = ports.get(data.key);
      if (port === undefined) return;
      if ("wire" in data) port.wire.heard(data.wire);
      else port.backend.guestOpened?.(data.guestOpen);
    };
    all.forEach((one, key) =>
      ports.set(key, new PortThere(key, one, (message) => channel.postMessage(message)))
    );
    const data: ConsoleWorkerData = { ports: all.map(portData), maxPorts };
    const module = new URL("../shared/workers/console_worker.ts", import.meta.url);
    try {
      const device = await inWorker(module, { data, spawn: spawnWith(there) });
      for (const port of ports.values()) port.attach();
      return new ConsoleThere(device, channel, ports);
    } catch (error) {
      channel.close();
      throw error;
    }
  }

  get device(): Device {
    return this.#device;
  }

  #find(which: string | 0): [key: number, port: PortThere] | undefined {
    return [...this.#ports].find(([key, { name }]) => which === 0 ? key === 0 : name === which);
  }

  port(which: string | 0): Port | undefined {
    return this.#find(which)?.[1];
  }

  addPort(options: ConsolePortOptions): void {
    const key = this.#nextKey++;
    const port = new PortThere(key, options, (message) => this.#channel.postMessage(message));
    this.#ports.set(key, port);
    this.#channel.postMessage({ add: portData(options, key) } satisfies ToConsole);
    port.attach();
  }

  removePort(name: string): void {
    const found = this.#find(name);
    if (found === undefined) return;
    const [key, port] = found;
    this.#ports.delete(key);
    port.attached = false;
    this.#channel.postMessage({ remove: key } satisfies ToConsole);
    port.backend.detached?.();
  }

  counted(): Counted {
    const stats = Object.assign(
      new ConsoleStats(),
      this.#device.reports()[0] as ConsoleWorkerReport,
    );
    return { stats, queueCounters: this.#device.queueCounters };
  }

  [Symbol.dispose](): void {
    for (const port of this.#ports.values()) port.attached = false;
    this.#device.close();
    this.#channel.close();
  }
}

function portData({ name }: ConsolePortOptions, key: number): PortData {
  return { key, ...(name === undefined ? {} : { name }) };
}

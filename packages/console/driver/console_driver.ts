import {
  checkInteger,
  DeviceId,
  type FeatureSet,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "@virtio/device";
import { DriverError, DriverSession, type DriverTransport } from "@virtio/device/driver";
import {
  ConsoleConfigOffset,
  CONTROL_RECEIVEQ,
  CONTROL_SIZE,
  CONTROL_TRANSMITQ,
  portOfQueue,
  receiveQueue,
  transmitQueue,
  VIRTIO_CONSOLE_CONSOLE_PORT,
  VIRTIO_CONSOLE_DEVICE_ADD,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_DEVICE_REMOVE,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_PORT_NAME,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_RESIZE,
} from "../constants.ts";
import { ControlOut } from "./control_out.ts";
import {
  CONSOLE_DRIVER_FEATURES,
  type ConsoleDriverOptions,
  portCount,
  readSize,
} from "./options.ts";
import { callUser, ConsoleDriverPort, type PortLink } from "./port.ts";
import { ReceiveQueue } from "./receive_queue.ts";
import { TransmitQueue } from "./transmit_queue.ts";

/** Bytes of a buffer for control messages: a longer name does not fit, and need not. */
const CONTROL_BUFFER = 256;
const CONTROL_BUFFERS = 16;

/**
 * A driver for console devices (virtio 1.4, 5.3), over any transport.
 *
 * It believes the device nothing: messages of unknown ports or events, or too short, are ignored; a device that breaks a rule
 * of the queues or asks for a reset is given up: what is in flight rejects, and so does everything later. `close` resets it.
 *
 * @example A driver and a device of one process, over MMIO
 * ```ts
 * import { ConsoleDevice } from "@virtio/console";
 * import { ConsoleDriver } from "@virtio/console/driver";
 * import { MemoryConsole } from "@virtio/console/memory";
 * import { GuestMemory } from "@virtio/memory";
 * import { MmioTransport } from "@virtio/transport/mmio";
 * import { connectMmio } from "@virtio/transport/mmio/driver";
 * import { DmaPool } from "@virtio/vring/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const agent = new MemoryConsole();
 * const device = new ConsoleDevice({
 *   ports: [{ backend: new MemoryConsole() }, { backend: agent, name: "agent" }],
 * });
 * const memory = GuestMemory.allocate(1024 * 1024);
 * const { driver: transport } = connectMmio((host) => new MmioTransport(device, { memory, host }));
 *
 * const driver = await ConsoleDriver.open(transport, { dma: new DmaPool(memory, 0, 1024 * 1024) });
 * const port = await driver.waitForPort("agent");
 * port.open();
 * await port.write(new TextEncoder().encode("hello"));
 * assertEquals(agent.takeText(), "hello");
 * await driver.close();
 * ```
 */
export class ConsoleDriver {
  /** The session. */
  readonly session: DriverSession;
  /** Called when the device added a port; its name comes later. */
  onPortAdded: ((port: ConsoleDriverPort) => void) | null = null;
  /** Called when the device removed a port. */
  onPortRemoved: ((port: ConsoleDriverPort) => void) | null = null;
  /** Called when the device was given up. */
  onBroken: ((reason: Error) => void) | null = null;
  /** Control messages of the device that meant nothing. */
  ignoredMessages = 0;
  readonly #multiport: boolean;
  readonly #ports: (ConsoleDriverPort | null)[];
  /** By port, whether there is one at the time or not: buffers outlive ports. */
  readonly #receivers: ReceiveQueue[] = [];
  readonly #transmitters: TransmitQueue[] = [];
  readonly #controlIn: ReceiveQueue | null = null;
  readonly #controlOut: ControlOut | null = null;
  #broken: Error | null = null;
  readonly #link: PortLink;
  readonly #waiters: Set<() => boolean> = new Set();

  private constructor(session: DriverSession, ports: number, options: ConsoleDriverOptions) {
    this.session = session;
    this.#multiport = session.has(VIRTIO_CONSOLE_F_MULTIPORT);
    this.#ports = new Array<ConsoleDriverPort | null>(ports).fill(null);
    const count = checkInteger("buffers", options.buffers, 1, Infinity, 8);
    const size = checkInteger("bufferSize", options.bufferSize, 1, Infinity, 4096);
    for (let id = 0; id < ports; id++) {
      this.#receivers.push(new ReceiveQueue(session, receiveQueue(id), count, size));
      this.#transmitters.push(new TransmitQueue(session, transmitQueue(id), count, size));
    }
    this.#link = {
      send: (port, bytes) =>
        this.#broken === null
          ? this.#transmitters[port.id]!.send(bytes)
          : Promise.reject(this.#broken),
      due: (port, messages) => this.#makeDue(port.id, messages),
      readable: (port) => this.#guard(() => this.#receive(port.id)),
    };
    session.handlers = {
      used: (queue) => this.#guard(() => this.#collect(queue)),
      config: () => this.#guard(() => this.#configChanged()),
      needsReset: () => this.#giveUp(new DriverError("The device asks for a reset")),
    };
    if ((session.transport.readStatus() & VIRTIO_STATUS_DEVICE_NEEDS_RESET) !== 0) {
      throw new DriverError("The device asks for a reset as soon as it is started");
    }
    if (this.#multiport) {
      this.#controlIn = new ReceiveQueue(
        session,
        CONTROL_RECEIVEQ,
        CONTROL_BUFFERS,
        CONTROL_BUFFER,
      );
      this.#controlOut = new ControlOut(session, ports);
    }
  }

  /** Begins. @throws {RangeError} If there is no memory for it. */
  #start(): void {
    if (this.#controlIn === null || this.#controlOut === null) {
      this.#addPort(0);
      return;
    }
    this.#controlIn.start();
    this.#controlOut.start();
    this.#controlOut.send(0, VIRTIO_CONSOLE_DEVICE_READY, 1);
  }

  /**
   * Initialises a device.
   *
   * @throws {DriverError} If it is no console device, or cannot be driven.
   * @throws {RangeError} If an option is out of range, or there is too little memory.
   */
  static async open(
    transport: DriverTransport,
    options: ConsoleDriverOptions,
  ): Promise<ConsoleDriver> {
    const most = checkInteger("maxPorts", options.maxPorts, 1, Infinity, 32);
    const size = checkInteger("queueSize", options.queueSize, 1, Infinity, 64);
    let ports = 1;
    const session = await DriverSession.open(transport, {
      dma: options.dma,
      type: DeviceId.console,
      wanted: (options.features ?? CONSOLE_DRIVER_FEATURES) & CONSOLE_DRIVER_FEATURES,
      ...(options.core === undefined ? {} : { core: options.core }),
      ...(options.patience === undefined ? {} : { patience: options.patience }),
      queues: (session) => {
        ports = portCount(session, most);
        const count = session.has(VIRTIO_CONSOLE_F_MULTIPORT) ? 2 * ports + 2 : 2;
        return Array.from({ length: count }, (_, index) => ({ index, size }));
      },
    });
    let driver: ConsoleDriver | null = null;
    try {
      driver = new ConsoleDriver(session, ports, options);
      driver.#start();
      return driver;
    } catch (error) {
      await session.reset();
      if (driver !== null) driver.#release();
      throw error;
    }
  }

  /**
   * Writes characters with VIRTIO_CONSOLE_F_EMERG_WRITE, to a device in any state, set up or not (5.3.4).
   *
   * @param text A string, sent as UTF-8, or bytes.
   * @throws {TypeError} If the device does not offer it.
   */
  static emergencyWrite(transport: DriverTransport, text: string | Uint8Array): void {
    if ((transport.readDeviceFeatures() & VIRTIO_CONSOLE_F_EMERG_WRITE) === 0n) {
      throw new TypeError("The device does not offer VIRTIO_CONSOLE_F_EMERG_WRITE");
    }
    const bytes = typeof text === "string" ? new TextEncoder().encode(text) : text;
    for (const byte of bytes) transport.writeConfig(ConsoleConfigOffset.emerg_wr, 4, byte);
  }

  /** The ports that there are, by ascending number. */
  get ports(): ConsoleDriverPort[] {
    return this.#ports.filter((port) => port !== null);
  }

  /** How many ports there can be at once, of those that the driver uses. */
  get maxPorts(): number {
    return this.#ports.length;
  }

  /** The negotiated features. */
  get features(): FeatureSet {
    return this.session.features;
  }

  /** Why the device was given up; null while it works. */
  get broken(): Error | null {
    return this.#broken;
  }

  /** A port by number or name; undefined if there is none, or it has no name yet. */
  port(which: number | string): ConsoleDriverPort | undefined {
    if (typeof which === "number") return this.#ports[which] ?? undefined;
    return this.#ports.find((port) => port !== null && port.name === which) ?? undefined;
  }

  /**
   * Waits for a port.
   *
   * @param which Number or name.
   * @param timeout Milliseconds; 10,000 unless given.
   * @throws {DriverError} Rejects if it does not come in time, or the device is given up.
   */
  waitForPort(which: number | string, timeout = 10_000): Promise<ConsoleDriverPort> {
    return new Promise((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined = undefined;
      const look = (): boolean => {
        const port = this.port(which);
        if (port === undefined && this.#broken === null) return false;
        clearTimeout(timer);
        if (port === undefined) reject(this.#broken);
        else resolve(port);
        return true;
      };
      if (look()) return;
      this.#waiters.add(look);
      timer = setTimeout(() => {
        this.#waiters.delete(look);
        reject(new DriverError(`The device added no port ${which} in ${timeout} ms`));
      }, timeout);
    });
  }

  /** Resets the device and gives all memory back. What is in flight rejects. */
  async close(): Promise<void> {
    this.#giveUp(new DriverError("The driver was closed"));
    await this.session.reset();
    this.#release();
  }

  #release(): void {
    for (const queue of [...this.#receivers, ...this.#transmitters]) queue.release();
    this.#controlIn?.release();
    this.#controlOut?.release();
  }

  #giveUp(reason: Error): void {
    if (this.#broken !== null) return;
    this.#broken = reason;
    for (const queue of this.#transmitters) queue.abandon(reason);
    this.#controlOut?.abandon(reason);
    this.#look();
    const { onBroken } = this;
    if (onBroken !== null) callUser(() => onBroken(reason));
  }

  #guard(work: () => void): void {
    if (this.#broken !== null) return;
    try {
      work();
    } catch (error) {
      this.#giveUp(error instanceof Error ? error : new DriverError(String(error)));
    }
  }

  #look(): void {
    for (const look of [...this.#waiters]) if (look()) this.#waiters.delete(look);
  }

  #collect(queue: number): void {
    if (queue === CONTROL_RECEIVEQ) {
      this.#controlIn?.collect((bytes) => {
        this.#message(bytes);
        return this.#broken === null;
      }, () => this.#guard(() => this.#collect(CONTROL_RECEIVEQ)));
    } else if (queue === CONTROL_TRANSMITQ) {
      this.#controlOut?.collect();
    } else if (queue % 2 === 0) {
      this.#receive(portOfQueue(queue));
    } else {
      this.#transmitters[portOfQueue(queue)]?.collect();
    }
  }

  #receive(id: number): void {
    const port = this.#ports[id];
    // Without a reader the bytes stay where they are; without a port they are nobody's.
    if (port !== null && port !== undefined && port.onData === null) return;
    this.#receivers[id]?.collect((bytes) => {
      const take = port?.onData;
      if (bytes.length > 0 && take !== null && take !== undefined) callUser(() => take(bytes));
      return this.#broken === null && (port === null || port === undefined || port.onData !== null);
    }, () => this.#guard(() => this.#receive(id)));
  }

  /** A message of the device (5.3.6.2). */
  #message(bytes: Uint8Array): void {
    if (bytes.length < CONTROL_SIZE || !this.#understood(bytes)) this.ignoredMessages++;
    this.#look();
  }

  #understood(bytes: Uint8Array): boolean {
    const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
    const id = view.getUint32(0, true);
    const event = view.getUint16(4, true);
    const value = view.getUint16(6, true);
    if (id >= this.#ports.length) return false;
    const port = this.#ports[id]!;
    if (event === VIRTIO_CONSOLE_DEVICE_ADD) {
      if (port !== null) return false;
      this.#addPort(id);
      return true;
    }
    if (port === null) return false;
    switch (event) {
      case VIRTIO_CONSOLE_DEVICE_REMOVE:
        this.#removePort(port);
        return true;
      case VIRTIO_CONSOLE_CONSOLE_PORT:
        port.isConsole();
        return true;
      case VIRTIO_CONSOLE_RESIZE:
        if (bytes.length < CONTROL_SIZE + 4) return false;
        port.resized({ cols: view.getUint16(8, true), rows: view.getUint16(10, true) });
        return true;
      case VIRTIO_CONSOLE_PORT_OPEN:
        if (value > 1) return false;
        port.setHostOpen(value === 1);
        return true;
      case VIRTIO_CONSOLE_PORT_NAME:
        port.named(new TextDecoder().decode(bytes.subarray(CONTROL_SIZE)));
        return true;
      default:
        return false;
    }
  }

  #addPort(id: number): void {
    const port = new ConsoleDriverPort(id, this.#link, this.#multiport);
    try {
      this.#transmitters[id]!.start();
      this.#receivers[id]!.start();
    } catch (error) {
      if (!this.#multiport) throw error;
      // No memory: the device is told that the port cannot be used.
      this.#controlOut?.ready(id, false);
      return;
    }
    this.#ports[id] = port;
    this.#controlOut?.ready(id, true);
    if (id === 0) this.#configChanged();
    const { onPortAdded } = this;
    if (onPortAdded !== null) callUser(() => onPortAdded(port));
  }

  #removePort(port: ConsoleDriverPort): void {
    const { id } = port;
    this.#ports[id] = null;
    this.#controlOut?.forget(id);
    port.remove();
    this.#transmitters[id]!.abandon(new DriverError(`Port ${id} was removed`));
    // What came for it and nobody read.
    this.#receive(id);
    const { onPortRemoved } = this;
    if (onPortRemoved !== null) callUser(() => onPortRemoved(port));
  }

  #configChanged(): void {
    const size = readSize(this.session);
    // The configuration's size is port 0's (5.3.6).
    if (size !== null) this.#ports[0]?.resized(size);
  }

  /** A message of a port is due. */
  #makeDue(id: number, message: number): void {
    if (this.#broken === null) this.#guard(() => this.#controlOut?.make(id, message));
  }
}

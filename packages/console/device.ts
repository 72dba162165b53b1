import {
  type Activation,
  BUSY,
  ConfigSpace,
  DeviceId,
  hasFeature,
  QueueDevice,
} from "@virtio/device";
import { type Chain, type Queue, VirtqueueError } from "@virtio/vring";
import type { ConsoleSize } from "./backend.ts";
import {
  CONSOLE_CONFIG_SIZE,
  ConsoleConfigOffset,
  CONTROL_RECEIVEQ,
  CONTROL_SIZE,
  CONTROL_TRANSMITQ,
  portOfQueue,
  receiveQueue,
  transmitQueue,
  VIRTIO_CONSOLE_DEVICE_READY,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
  VIRTIO_CONSOLE_PORT_OPEN,
  VIRTIO_CONSOLE_PORT_READY,
} from "./constants.ts";
import { ControlSender } from "./control.ts";
import { ByteRing } from "./byte_ring.ts";
import {
  type ConsoleDeviceOptions,
  type ConsolePortOptions,
  type ConsoleSettings,
  settle,
  settlePort,
} from "./options.ts";
import { ConsolePort, type PortHost } from "./port.ts";
import { Due, PortState } from "./port_state.ts";
import { checkSavedConsole, type SavedConsole, type SavedInput, type SavedPort } from "./saved.ts";
import { ConsoleStats } from "./stats.ts";

/** Bytes of one chain that a back end is given before the event loop turns. */
const PIECE = 1 << 24;
/** Characters of `emerg_wr` that wait for a back end that is full. */
const EMERGENCY_BYTES = 1024;

/**
 * A console device (virtio 1.4, 5.3) of one port or several.
 *
 * Ports have a back end each, may come and go while the device runs, and are opened and closed by both sides. Output that a
 * back end does not take stays in the guest's queue; input that the guest has no buffers for waits within a bound.
 *
 * The driver hears of a port in the order of the standard: VIRTIO_CONSOLE_DEVICE_ADD once it sent
 * VIRTIO_CONSOLE_DEVICE_READY, and after its VIRTIO_CONSOLE_PORT_READY: VIRTIO_CONSOLE_CONSOLE_PORT,
 * VIRTIO_CONSOLE_PORT_NAME, VIRTIO_CONSOLE_PORT_OPEN and VIRTIO_CONSOLE_RESIZE. A driver without VIRTIO_CONSOLE_F_MULTIPORT
 * has port 0 alone.
 *
 * @example A console, and a channel for an agent in the guest
 * ```ts
 * import { ConsoleDevice } from "@virtio/console";
 * import { MemoryConsole } from "@virtio/console/memory";
 * import { assertEquals } from "@std/assert";
 *
 * const device = new ConsoleDevice({
 *   ports: [
 *     { backend: new MemoryConsole() },
 *     { backend: new MemoryConsole(), name: "org.example.agent" },
 *   ],
 *   maxPorts: 4,
 * });
 * assertEquals(device.config.read(4, 4), 4); // max_nr_ports
 * const log = device.addPort({ backend: new MemoryConsole(), name: "log" });
 * assertEquals(log.id, 2);
 * assertEquals(device.port("org.example.agent")?.id, 1);
 * device.port(0)!.resize(132, 43); // the guest is told
 * ```
 */
export class ConsoleDevice extends QueueDevice {
  /** What it did. */
  readonly stats: ConsoleStats = new ConsoleStats();
  readonly #settings: ConsoleSettings;
  readonly #onError: ((error: unknown, port: number) => void) | null;
  readonly #states: (PortState | null)[];
  readonly #ports: (ConsolePort | null)[];
  readonly #control: ControlSender;
  readonly #host: PortHost;
  /** By port: how many bytes of the first chain in the transmitq the back end took before it was full. */
  readonly #taken: number[];
  /** By port: the transmitq that `#taken` is about. */
  readonly #transmitqs: (Queue | null)[];
  readonly #early: ByteRing = new ByteRing(EMERGENCY_BYTES);
  readonly #character: Uint8Array = new Uint8Array(1);
  /** The size in the configuration space. */
  #shown: ConsoleSize | null = null;
  #multiport = false;
  #driverReady = false;
  #telling = false;

  /**
   * Makes a device.
   *
   * @param options Without any: one console port may be added, which the guest finds as port 0.
   * @throws {TypeError} If a port has no back end.
   * @throws {RangeError} If an option is out of range, or two ports have the same number or name.
   */
  constructor(options: ConsoleDeviceOptions = {}) {
    const settings = settle(options);
    const config = new ConfigSpace(
      CONSOLE_CONFIG_SIZE,
      (offset, bytes) => this.#configWritten(offset, bytes),
      { offset: ConsoleConfigOffset.emerg_wr, length: 4 },
    );
    if (hasFeature(settings.features, VIRTIO_CONSOLE_F_MULTIPORT)) {
      config.view.setUint32(ConsoleConfigOffset.max_nr_ports, settings.maxPorts, true);
    }
    const queues = settings.queueSizes.map((_, queue) => queue);
    super({
      type: DeviceId.console,
      features: settings.features,
      queueSizes: settings.queueSizes,
      config,
      lazyQueues: queues.filter((queue) => queue % 2 === 0),
    });
    this.#settings = settings;
    this.#onError = options.onError ?? null;
    const { maxPorts } = settings;
    this.#states = new Array<PortState | null>(maxPorts).fill(null);
    this.#ports = new Array<ConsolePort | null>(maxPorts).fill(null);
    this.#taken = new Array<number>(maxPorts).fill(0);
    this.#transmitqs = new Array<Queue | null>(maxPorts).fill(null);
    this.#control = new ControlSender(this.#states, settings.rowsFirst);
    this.#host = {
      send: (port, bytes, offset, length) => this.#send(port, bytes, offset, length),
      setOpen: (port, open) => this.#setOpen(port, open),
      setSize: (port, size) => this.#setSize(port, size),
      resume: (port) => this.#resumeOutput(port),
    };
    this.#showSize(settings.size);
    for (const port of options.ports ?? []) this.addPort(port);
  }

  /** How many ports there can be at once. */
  get maxPorts(): number {
    return this.#settings.maxPorts;
  }

  /** The ports that are there, by ascending number. */
  get ports(): ConsolePort[] {
    return this.#ports.filter((port) => port !== null);
  }

  /** Whether the driver negotiated VIRTIO_CONSOLE_F_MULTIPORT and is ready for control messages. */
  get driverReady(): boolean {
    return this.#driverReady;
  }

  /** A port by number or by name; undefined if there is none. */
  port(which: number | string): ConsolePort | undefined {
    if (typeof which === "number") return this.#ports[which] ?? undefined;
    return this.#ports.find((port) => port !== null && port.name === which) ?? undefined;
  }

  /**
   * Adds a port. A driver that runs is told (VIRTIO_CONSOLE_DEVICE_ADD).
   *
   * @throws {TypeError} If it has no back end.
   * @throws {RangeError} If there are `maxPorts` already, the number or the name is taken, or an option is out of range.
   */
  addPort(options: ConsolePortOptions): ConsolePort {
    const free = this.#states.indexOf(null);
    if (free < 0) {
      throw new RangeError(
        `There are ${this.maxPorts} ports already: give the device more maxPorts`,
      );
    }
    const settings = settlePort(options, free, this.maxPorts, this.#settings.size);
    const { id, name } = settings;
    if (this.#states[id] !== null) {
      throw new RangeError(`There is a port ${id} already: remove it first`);
    }
    if (name !== "" && this.port(name) !== undefined) {
      throw new RangeError(`There is a port named ${name} already: remove it first`);
    }
    if (name !== "" && !hasFeature(this.features, VIRTIO_CONSOLE_F_MULTIPORT)) {
      throw new RangeError("Only a device with multiport can tell the guest a port's name");
    }
    const state = new PortState(settings);
    const port = new ConsolePort(state, this.#host);
    state.attached = true;
    this.#states[id] = state;
    this.#ports[id] = port;
    if (id === 0) {
      this.#showSize(state.size);
      // A driver without multiport runs: the port is its.
      if (this.activation !== null && !this.#multiport) state.guestOpen = true;
    }
    this.#tell(state, () => state.backend.attached?.(port));
    if (state.guestOpen) this.#tell(state, () => state.backend.guestOpened?.(true));
    this.#changed(id);
    return port;
  }

  /**
   * Removes a port. A driver that runs is told (VIRTIO_CONSOLE_DEVICE_REMOVE); output that waits for the back end, and input
   * that waits for the guest, are dropped. The back end stays whose it is: the device does not close it.
   *
   * @param which Number or name.
   * @throws {RangeError} If there is no such port.
   */
  removePort(which: number | string): void {
    const port = this.port(which);
    if (port === undefined) throw new RangeError(`There is no port ${which}`);
    const { id } = port;
    const state = this.#states[id]!;
    const wasOpen = state.guestOpen;
    state.attached = false;
    state.guestOpen = false;
    this.stats.inputDiscarded += state.input.length;
    state.input.drop(state.input.length);
    this.#states[id] = null;
    this.#ports[id] = null;
    if (wasOpen) this.#tell(state, () => state.backend.guestOpened?.(false));
    this.#tell(state, () => state.backend.detached?.());
    this.resume(transmitQueue(id));
    this.#changed(id);
  }

  /** What the device itself has to save beside its queues. */
  save(): SavedConsole {
    const ports: SavedPort[] = [];
    const inputs: SavedInput[] = [];
    for (let id = 0; id < this.maxPorts; id++) {
      const here = this.#states[id]!;
      if (here !== null && here.input.length > 0) {
        inputs.push({ id, name: here.name, bytes: here.input.copy() });
      }
      const known = this.#control.announced[id]!;
      if (known === null) continue;
      const { name, ready, failed, guestOpen, toldOpen, due, size } = known;
      const gone = known !== here;
      ports.push({ id, name, gone, ready, failed, guestOpen, toldOpen, due, size });
    }
    return {
      version: 1,
      maxPorts: this.maxPorts,
      driverReady: this.#driverReady,
      ports,
      inputs,
      taken: this.#taken.slice(),
    };
  }

  /**
   * Takes over what `save` gave. Ports may be others than they were: the driver is told of those that came and went, of
   * those that were opened or closed and of sizes that changed, once the device runs.
   *
   * @throws {TypeError} If it is malformed.
   * @throws {RangeError} If `maxPorts` is another now; the driver could not be told of that.
   */
  restore(saved: unknown): void {
    const state = checkSavedConsole(saved);
    if (state.maxPorts !== this.maxPorts) {
      throw new RangeError(
        `Cannot restore a console device of ${state.maxPorts} ports into one of ${this.maxPorts}`,
      );
    }
    this.#driverReady = state.driverReady;
    state.taken.forEach((taken, id) => this.#taken[id] = taken);
    for (const { id, name, bytes } of state.inputs) {
      const here = this.#states[id]!;
      if (here === null || here.name !== name) continue;
      here.input.drop(here.input.length);
      here.input.push(bytes, 0, bytes.length);
    }
    for (const port of state.ports) this.#restorePort(port);
  }

  #restorePort(saved: SavedPort): void {
    const here = this.#states[saved.id]!;
    if (here === null || here.name !== saved.name || saved.gone) {
      // Another port, or none: the driver is told that the one it knows is gone.
      this.#control.announced[saved.id] = this.#goner(saved);
      return;
    }
    this.#control.announced[saved.id] = here;
    here.ready = saved.ready;
    here.failed = saved.failed;
    here.toldOpen = saved.toldOpen;
    here.due = saved.due;
    if (!here.ready) return;
    here.guestOpen = saved.guestOpen;
    if (here.toldOpen !== here.hostOpen) here.setHostOpen(here.hostOpen);
    const { size } = here;
    if (
      here.console && size !== null &&
      (saved.size?.cols !== size.cols || saved.size?.rows !== size.rows)
    ) here.due |= Due.resize;
    if (here.guestOpen) this.#tell(here, () => here.backend.guestOpened?.(true));
  }

  #goner(saved: SavedPort): PortState {
    return new PortState({
      id: saved.id,
      name: saved.name,
      nameBytes: new Uint8Array(0),
      console: false,
      backend: { write: (_bytes, _offset, length) => length },
      inputBuffer: 1,
      open: false,
      size: null,
    });
  }

  /** See `Device.startQueue`. */
  override startQueue(index: number, queue: Queue): void {
    if (index % 2 === 1 && index !== CONTROL_TRANSMITQ) {
      const port = portOfQueue(index);
      const before = this.#transmitqs[port];
      // After a queue reset (2.6.1) the first chain is another one.
      if (before !== null && before !== queue) this.#taken[port] = 0;
      this.#transmitqs[port] = queue;
    }
    super.startQueue(index, queue);
  }

  /** See `QueueDevice.started`. */
  protected override started(activation: Activation): void {
    this.#multiport = hasFeature(activation.features, VIRTIO_CONSOLE_F_MULTIPORT);
    if (this.#multiport) return;
    const port = this.#states[0]!;
    if (port !== null) this.#setGuestOpen(port, true);
  }

  /** See `QueueDevice.stopped`. */
  protected override stopped(): void {
    this.#driverReady = false;
    this.#multiport = false;
    this.#taken.fill(0);
    this.#transmitqs.fill(null);
    this.#control.forget();
    for (const port of this.#states) if (port !== null) this.#setGuestOpen(port, false);
  }

  /** See `QueueDevice.handle`. */
  protected override handle(chain: Chain, queue: number): void | typeof BUSY {
    if (queue > 1 && !this.#multiport) {
      throw new VirtqueueError(
        "5.3.2",
        `Queue ${queue} is used without VIRTIO_CONSOLE_F_MULTIPORT`,
      );
    }
    if (queue === CONTROL_TRANSMITQ) this.#controlMessage(chain);
    else return this.#output(chain, queue, portOfQueue(queue));
  }

  /** See `QueueDevice.kicked`. */
  protected override kicked(queue: number): void {
    if (queue % 2 === 1) return;
    if (queue === CONTROL_RECEIVEQ) {
      this.#tellDriver();
      return;
    }
    const port = this.#states[portOfQueue(queue)]!;
    if (port !== null) this.#feed(port);
  }

  /** Output of the guest. What a driver puts behind it for the device to write is left alone (5.3.6.1). */
  #output(chain: Chain, queue: number, id: number): void | typeof BUSY {
    const { reader } = chain;
    const port = this.#states[id]!;
    let taken = this.#taken[id]!;
    // It cannot be longer than it was, unless the driver changed what was available already.
    if (taken > 0) reader.skip(Math.min(taken, reader.remaining));
    if (port === null || !port.hostOpen) {
      this.stats.outputDiscarded += reader.remaining;
      this.#taken[id] = 0;
      return;
    }
    if (id === 0 && this.#early.length > 0 && !this.#flushEarly(port)) return BUSY;
    for (let left = PIECE; reader.next(left); left -= reader.length) {
      const { length } = reader;
      const count = this.#write(port, reader.region!.bytes, reader.offset, length);
      if (!this.isLive(chain)) return;
      taken += count;
      if (count < length) {
        this.#taken[id] = taken;
        return BUSY;
      }
    }
    if (reader.remaining > 0) {
      this.#taken[id] = taken;
      this.resume(queue);
      return BUSY;
    }
    this.#taken[id] = 0;
  }

  /** Gives bytes to a back end. A back end that fails took nothing, and its port is closed. */
  #write(port: PortState, bytes: Uint8Array, offset: number, length: number): number {
    let count: number;
    try {
      count = port.backend.write(bytes, offset, length);
      if (!(Number.isInteger(count) && count >= 0 && count <= length)) {
        throw new TypeError(
          `A console back end was given ${length} bytes and says that it took ${count}`,
        );
      }
    } catch (error) {
      this.#failed(port, error);
      return 0;
    }
    this.stats.outputBytes += count;
    return count;
  }

  /** A message of the driver (5.3.6.2). One that means nothing is ignored. */
  #controlMessage(chain: Chain): void {
    const { stats } = this;
    const { reader } = chain;
    stats.controlReceived++;
    if (reader.remaining < CONTROL_SIZE) {
      stats.controlIgnored++;
      return;
    }
    const at = reader.struct(CONTROL_SIZE);
    const { view } = reader;
    const id = view.getUint32(at, true);
    const event = view.getUint16(at + 4, true);
    const value = view.getUint16(at + 6, true);
    if (value > 1 || !this.#understood(id, event, value === 1)) {
      stats.controlIgnored++;
      return;
    }
    this.#tellDriver();
  }

  #understood(id: number, event: number, value: boolean): boolean {
    if (event === VIRTIO_CONSOLE_DEVICE_READY) {
      this.#driverReady = value;
      return true;
    }
    const port = this.#states[id] ?? null;
    // Only of a port that the driver was told of.
    if (port === null || this.#control.announced[id] !== port) return false;
    if (event === VIRTIO_CONSOLE_PORT_READY) {
      port.ready = value;
      port.failed = !value;
      if (value) port.announceAll();
      else {
        port.due = 0;
        this.#setGuestOpen(port, false);
      }
      this.#control.changed(id);
      return true;
    }
    if (event !== VIRTIO_CONSOLE_PORT_OPEN || !port.ready) return false;
    this.#setGuestOpen(port, value);
    return true;
  }

  /** Sends what the driver is to be told, as far as it has buffers. */
  #tellDriver(): void {
    const control = this.#control;
    if (!this.#driverReady || this.#telling) return;
    this.#telling = true;
    try {
      while (control.next()) {
        const chain = this.take(CONTROL_RECEIVEQ);
        if (chain === null) return;
        if (chain.writable < CONTROL_SIZE) {
          this.#refuse(`A buffer of the control receiveq has no room for ${CONTROL_SIZE} bytes`);
          return;
        }
        if (chain.writable < control.length) {
          // A part of a name would be another name.
          this.untake(CONTROL_RECEIVEQ, chain);
          this.stats.controlSkipped++;
        } else {
          chain.writer.writeFrom(control.bytes, 0, control.length);
          this.complete(CONTROL_RECEIVEQ, chain);
          this.stats.controlSent++;
        }
        control.sent();
      }
    } finally {
      this.#telling = false;
    }
  }

  #refuse(what: string): void {
    this.activation?.fail(new VirtqueueError("5.3.6", what));
  }

  #changed(id: number): void {
    this.#control.changed(id);
    this.#tellDriver();
  }

  /** Whether input reaches the guest now. */
  #flows(port: PortState): boolean {
    return port.guestOpen && this.activation !== null;
  }

  /** The next buffer for input, or null. */
  #inputBuffer(port: PortState): Chain | null {
    const chain = this.take(receiveQueue(port.id));
    if (chain !== null && chain.writable === 0) {
      this.#refuse(`A buffer of the receiveq of port ${port.id} has no device-writable byte`);
      return null;
    }
    return chain;
  }

  #send(port: PortState, bytes: Uint8Array, offset: number, length: number): number {
    let done = 0;
    if (port.input.length === 0 && this.#flows(port)) {
      while (done < length) {
        const chain = this.#inputBuffer(port);
        if (chain === null) break;
        done += chain.writer.writeFrom(bytes, offset + done, length - done);
        this.complete(receiveQueue(port.id), chain);
      }
      this.stats.inputBytes += done;
    }
    done += port.input.push(bytes, offset + done, length - done);
    if (done < length) port.refused = true;
    return done;
  }

  /** Input that waited goes to the guest, as far as it has buffers. */
  #feed(port: PortState): void {
    const { input } = port;
    if (this.#flows(port)) {
      while (input.length > 0) {
        const chain = this.#inputBuffer(port);
        if (chain === null) break;
        let count = chain.writer.writeFrom(input.bytes, input.start, input.piece);
        input.drop(count);
        this.stats.inputBytes += count;
        if (input.length > 0) {
          count = chain.writer.writeFrom(input.bytes, input.start, input.piece);
          input.drop(count);
          this.stats.inputBytes += count;
        }
        this.complete(receiveQueue(port.id), chain);
      }
    }
    if (!port.refused || input.room === 0) return;
    port.refused = false;
    this.#tell(port, () => port.backend.inputDrained?.());
  }

  #setGuestOpen(port: PortState, open: boolean): void {
    if (port.guestOpen === open) return;
    port.guestOpen = open;
    this.#tell(port, () => port.backend.guestOpened?.(open));
    if (open) this.#feed(port);
  }

  #setOpen(port: PortState, open: boolean): void {
    port.setHostOpen(open);
    // What waits for a back end that went away is dropped.
    if (!open) this.resume(transmitQueue(port.id));
    this.#changed(port.id);
  }

  #setSize(port: PortState, size: ConsoleSize): void {
    port.size = size;
    if (port.id === 0) this.#showSize(size);
    if (port.ready && port.console) port.due |= Due.resize;
    this.#changed(port.id);
  }

  /** The size of port 0 in the configuration space (5.3.6). */
  #showSize(size: ConsoleSize | null): void {
    if (size === null || !hasFeature(this.features, VIRTIO_CONSOLE_F_SIZE)) return;
    const shown = this.#shown;
    if (shown?.cols === size.cols && shown.rows === size.rows) return;
    this.#shown = size;
    const { cols, rows } = ConsoleConfigOffset;
    this.config.update((view) => {
      view.setUint16(cols, size.cols, true);
      view.setUint16(rows, size.rows, true);
    });
  }

  #resumeOutput(port: PortState): void {
    if (port.id === 0 && this.#early.length > 0 && !this.#flushEarly(port)) return;
    this.resume(transmitQueue(port.id));
  }

  /** Characters of `emerg_wr` come first. @returns Whether none waits any more. */
  #flushEarly(port: PortState): boolean {
    const early = this.#early;
    while (early.length > 0) {
      const { piece } = early;
      const count = this.#write(port, early.bytes, early.start, piece);
      early.drop(count);
      if (count < piece) return false;
    }
    return true;
  }

  /** The driver writes to the configuration: only `emerg_wr` is its to write, at any time (5.3.5.1). */
  #configWritten(offset: number, bytes: Uint8Array): boolean {
    if (
      offset !== ConsoleConfigOffset.emerg_wr ||
      !hasFeature(this.features, VIRTIO_CONSOLE_F_EMERG_WRITE)
    ) return false;
    const port = this.#states[0]!;
    this.stats.emergencyBytes++;
    this.#character[0] = bytes[0]!;
    if (port === null || !port.hostOpen) {
      this.stats.emergencyDiscarded++;
    } else if (!this.#flushEarly(port) || this.#write(port, this.#character, 0, 1) === 0) {
      if (this.#early.push(this.#character, 0, 1) === 0) this.stats.emergencyDiscarded++;
    }
    // There is nothing to read there.
    return false;
  }

  /** Calls a back end. */
  #tell(port: PortState, call: () => void): void {
    try {
      call();
    } catch (error) {
      this.#failed(port, error);
    }
  }

  #failed(port: PortState, error: unknown): void {
    if (port.attached && port.hostOpen) this.#setOpen(port, false);
    this.#onError?.(error, port.id);
  }
}

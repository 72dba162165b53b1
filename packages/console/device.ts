import {
  type Activation,
  type BUSY,
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
  CONTROL_TRANSMITQ,
  portOfQueue,
  transmitQueue,
  VIRTIO_CONSOLE_F_EMERG_WRITE,
  VIRTIO_CONSOLE_F_MULTIPORT,
  VIRTIO_CONSOLE_F_SIZE,
} from "./constants.ts";
import { ControlChannel } from "./control_channel.ts";
import { ConsoleInput } from "./input.ts";
import type { ConsoleLink } from "./link.ts";
import {
  type ConsoleDeviceOptions,
  type ConsolePortOptions,
  type ConsoleSettings,
  settle,
  settlePort,
} from "./options.ts";
import { ConsoleOutput } from "./output.ts";
import { ConsolePort, type PortHost } from "./port.ts";
import { Due, gonePort, PortState } from "./port_state.ts";
import { restoreInputs, saveConsole } from "./save.ts";
import { checkSavedConsole, type SavedConsole, type SavedPort } from "./saved.ts";
import { ConsoleStats } from "./stats.ts";

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
  readonly #control: ControlChannel;
  readonly #output: ConsoleOutput;
  readonly #input: ConsoleInput;
  readonly #host: PortHost;
  /** The size in the configuration space. */
  #shown: ConsoleSize | null = null;
  #multiport = false;

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
    const link = this.#makeLink();
    this.#control = new ControlChannel(link, settings.rowsFirst);
    this.#output = new ConsoleOutput(link);
    this.#input = new ConsoleInput(link);
    this.#host = {
      send: (port, bytes, offset, length) => this.#input.send(port, bytes, offset, length),
      setOpen: (port, open) => this.#setOpen(port, open),
      setSize: (port, size) => this.#setSize(port, size),
      resume: (port) => this.#output.resume(port),
    };
    this.#showSize(settings.size);
    for (const port of options.ports ?? []) this.addPort(port);
  }

  #makeLink(): ConsoleLink {
    return {
      ports: this.#states,
      stats: this.stats,
      live: () => this.activation !== null,
      take: (queue) => this.take(queue),
      untake: (queue, chain) => this.untake(queue, chain),
      complete: (queue, chain) => this.complete(queue, chain),
      resume: (queue) => this.resume(queue),
      isLive: (chain) => this.isLive(chain),
      refuse: (what) => this.activation?.fail(new VirtqueueError("5.3.6", what)),
      setGuestOpen: (port, open) => this.#setGuestOpen(port, open),
      tell: (port, call) => this.#tell(port, call),
      failed: (port, error) => this.#failed(port, error),
    };
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
    return this.#control.driverReady;
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
    this.#control.changed(id);
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
    this.#control.changed(id);
  }

  /** What the device itself has to save beside its queues. */
  save(): SavedConsole {
    return saveConsole(this.#states, this.#control, this.#output);
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
    this.#control.driverReady = state.driverReady;
    state.taken.forEach((taken, id) => this.#output.taken[id] = taken);
    restoreInputs(this.#states, state.inputs);
    for (const port of state.ports) this.#restorePort(port);
  }

  #restorePort(saved: SavedPort): void {
    const here = this.#states[saved.id]!;
    if (here === null || here.name !== saved.name || saved.gone) {
      // Another port, or none: the driver is told that the one it knows is gone.
      this.#control.announced[saved.id] = gonePort(saved);
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

  /** See `Device.startQueue`. */
  override startQueue(index: number, queue: Queue): void {
    if (index % 2 === 1 && index !== CONTROL_TRANSMITQ) {
      this.#output.started(portOfQueue(index), queue);
    }
    super.startQueue(index, queue);
  }

  /** See `QueueDevice.started`. */
  protected override started(activation: Activation): void {
    this.#multiport = hasFeature(activation.features, VIRTIO_CONSOLE_F_MULTIPORT);
    if (this.#multiport) return;
    const port = this.#states[0]!;
    if (port !== null) this.#setGuestOpen(port, true);
    // Without multiport Linux looks at the size only when it is told that the configuration has changed.
    const sized = hasFeature(activation.features, VIRTIO_CONSOLE_F_SIZE);
    if (sized && this.#shown !== null) this.config.update(() => {});
  }

  /** See `QueueDevice.stopped`. */
  protected override stopped(): void {
    this.#multiport = false;
    this.#output.forget();
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
    if (queue === CONTROL_TRANSMITQ) this.#control.handle(chain);
    else return this.#output.handle(chain, queue, portOfQueue(queue));
  }

  /** See `QueueDevice.kicked`. */
  protected override kicked(queue: number): void {
    if (queue % 2 === 1) return;
    if (queue === CONTROL_RECEIVEQ) {
      this.#control.send();
      return;
    }
    const port = this.#states[portOfQueue(queue)]!;
    if (port !== null) this.#input.feed(port);
  }

  #setGuestOpen(port: PortState, open: boolean): void {
    if (port.guestOpen === open) return;
    port.guestOpen = open;
    this.#tell(port, () => port.backend.guestOpened?.(open));
    if (open) this.#input.feed(port);
  }

  #setOpen(port: PortState, open: boolean): void {
    port.setHostOpen(open);
    // What waits for a back end that went away is dropped.
    if (!open) this.resume(transmitQueue(port.id));
    this.#control.changed(port.id);
  }

  #setSize(port: PortState, size: ConsoleSize): void {
    port.size = size;
    if (port.id === 0) this.#showSize(size);
    if (port.ready && port.console) port.due |= Due.resize;
    this.#control.changed(port.id);
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

  /** The driver writes to the configuration: only `emerg_wr` is its to write, at any time (5.3.5.1). */
  #configWritten(offset: number, bytes: Uint8Array): boolean {
    if (
      offset !== ConsoleConfigOffset.emerg_wr ||
      !hasFeature(this.features, VIRTIO_CONSOLE_F_EMERG_WRITE)
    ) return false;
    this.#output.emergency(bytes[0]!);
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

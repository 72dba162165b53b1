/** A device that is fuzzed and a driver before it: what all targets that fuzz a device do alike, whatever the device is. */
import { assert, assertEquals } from "@std/assert";
import {
  CORE_FEATURES,
  type Device,
  DeviceState,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
} from "@virtio/device";
import {
  placeQueue,
  type RawDescriptor,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { Flights, sendDescriptors, type Wrong } from "./chains.ts";
import { GuardedMemory, turns } from "./harness.ts";

/** Bytes of guest memory: address and length. */
type Range = readonly [address: number, length: number];

/** Where the first ring lies, and how far the next one is from it. */
const FIRST_RING = 0x100;
const RING_BYTES = 0x800;

/** What a case says of rings. */
export interface RingChoice {
  readonly packed: boolean;
  readonly eventIdx: boolean;
  readonly inOrder: boolean;
  readonly indirect: boolean;
}

/** The feature bits of it, with those for resets of queues and suspending. */
export function ringFeatures({ packed, eventIdx, inOrder, indirect }: RingChoice): bigint {
  return (packed ? VIRTIO_F_RING_PACKED : 0n) | (eventIdx ? VIRTIO_F_EVENT_IDX : 0n) |
    (inOrder ? VIRTIO_F_IN_ORDER : 0n) | (indirect ? VIRTIO_F_INDIRECT_DESC : 0n) |
    VIRTIO_F_RING_RESET | VIRTIO_F_SUSPEND;
}

/** What a driver does with any device: see `DeviceDrive.step`. */
export interface DriverStep {
  readonly do: string;
  readonly queue?: number;
  readonly value?: number;
}

/** How a chain is sent. */
export interface ChainShape {
  readonly indirect: boolean;
  /** Where the table goes. */
  readonly table: number;
  readonly kick: boolean;
  /** A broken rule, or none. */
  readonly wrong: Wrong | null;
}

/** The device, its memory, its driver's rings, and what is in flight. */
export class DeviceDrive<W extends { readonly room: number }> {
  readonly guard: GuardedMemory;
  /** What is in flight, by queue. */
  readonly flights: readonly Flights<W>[];
  /** What the device complained of since the last reset. */
  readonly errors: Error[] = [];
  state!: DeviceState;
  /** The rings, by queue; none before the first start. */
  rings: (RawSplitDriver | RawPackedDriver)[] = [];
  /** What the device may write, of everything made available since the last reset. */
  ranges: Range[] = [];
  /** Whether the driver has kept every rule since the last reset. */
  valid = true;
  readonly #choice: RingChoice;
  readonly #size: number;
  readonly #regions: readonly Range[];

  /**
   * @param queues How many queues there may be.
   * @param size Entries of each.
   * @param regions Guest memory.
   */
  constructor(choice: RingChoice, queues: number, size: number, regions: readonly Range[]) {
    this.#choice = choice;
    this.#size = size;
    this.#regions = regions;
    this.guard = new GuardedMemory(regions);
    this.flights = Array.from({ length: queues }, () => new Flights<W>(choice.packed));
  }

  /** A device comes, which nobody hears but for its errors. */
  attach(device: Device): void {
    this.state = new DeviceState(device, {
      memory: this.guard.memory,
      carries: CORE_FEATURES,
      features: CORE_FEATURES,
      interrupt: { queue: () => {}, config: () => {} },
      onError: (error) => this.errors.push(error),
    });
  }

  /** Initialises a device that was reset, with fresh rings. */
  start(features: bigint, queues: number = this.flights.length): void {
    const { state } = this;
    state.writeStatus(1);
    state.writeStatus(3);
    for (let word = 0; word < 4; word++) {
      state.writeDriverFeatures(word, Number((features >> BigInt(32 * word)) & 0xffff_ffffn));
    }
    state.writeStatus(11);
    assertEquals(state.status, 11, "features that were offered are agreed on");
    const format = this.#choice.packed ? "packed" : "split";
    for (let queue = 0; queue < queues; queue++) {
      const config = placeQueue(this.#size, FIRST_RING + RING_BYTES * queue, format);
      this.rings.push(rawDriver(this.guard.memory, config, features));
      this.enable(queue);
    }
    state.writeStatus(15);
  }

  /** Tells the device where a queue lies, and enables it. */
  enable(queue: number): void {
    const { size, descriptorArea, driverArea, deviceArea } = this.rings[queue]!.config;
    const setup = this.state.queues[queue]!;
    setup.setSize(size);
    const areas = [descriptorArea, driverArea, deviceArea] as const;
    for (const area of [0, 1, 2] as const) {
      setup.writeAddress(area, 0, areas[area]);
      setup.writeAddress(area, 1, 0);
    }
    this.state.enableQueue(queue);
  }

  /**
   * Resets the device.
   *
   * @param most Turns of the event loop that this may take.
   * @param turn Called before each.
   */
  async reset(most = 20, turn: (turn: number) => void = () => {}): Promise<void> {
    this.state.writeStatus(0);
    for (let i = 0; i < most && this.state.status !== 0; i++) {
      turn(i);
      await turns(1);
    }
    assertEquals(this.state.status, 0, "a reset ends");
    for (const flights of this.flights) flights.clear();
    this.rings = [];
    this.ranges = [];
    this.valid = true;
    this.errors.length = 0;
  }

  /**
   * The state moves to another device.
   *
   * @param make Has that device attached. Where it returns false, the old one goes on.
   */
  async move(make: () => boolean | Promise<boolean>): Promise<void> {
    const before = this.state;
    await before.pause();
    const saved = structuredClone(before.save());
    if (!await make()) {
      before.unpause();
      return;
    }
    this.state.restore(saved);
    this.state.unpause();
    before.writeStatus(0);
  }

  /** Does what a driver does with any device: kicks, suspends, and registers that it may not write. */
  step({ do: what, queue = 0, value = 0 }: DriverStep): void {
    const { state } = this;
    if (what === "kick") return state.notify(queue);
    if (what === "suspend") return state.writeStatus(state.status | 16);
    if (what === "resume") return state.writeStatus(state.status | 4);
    this.valid = false;
    if (what === "resetQueue") state.resetQueue(queue);
    else if (what === "status") state.writeStatus(value);
    else if (what === "features") state.writeDriverFeatures(value % 5, value);
    else throw new Error(`There is no step ${what}`);
  }

  /**
   * Makes a chain available.
   *
   * @param waiting What to remember of it.
   * @param anywhere Whether the device may write anywhere for it, within guest memory.
   */
  send(
    queue: number,
    descriptors: RawDescriptor[],
    { indirect, table, kick, wrong }: ChainShape,
    waiting: W,
    anywhere = false,
  ): void {
    const allowed = this.#choice.indirect;
    const sent = sendDescriptors(this.rings[queue]!, descriptors, {
      indirect: indirect && allowed,
      indirectAllowed: allowed,
      table,
      wrong,
    });
    if (!sent.valid) this.valid = false;
    this.ranges.push(...sent.ranges);
    // A descriptor that was changed at random may let the device write anywhere.
    if (anywhere || wrong?.kind === "poke") this.ranges.push(...this.#regions);
    this.flights[queue]!.start(sent.id, sent.slots, waiting);
    if (kick) this.state.notify(queue);
  }

  /** What the device used of a queue, with its length. Of a driver that broke a rule that says nothing, and is left out. */
  *used(queue: number): Generator<readonly [waiting: W, length: number]> {
    for (const { id, length } of this.rings[queue]?.takeUsed() ?? []) {
      const done = this.flights[queue]!.end(id);
      if (done === null) {
        assert(!this.valid, `buffer ${id} was used, which is not in flight`);
        continue;
      }
      if (!this.valid) continue;
      assert(length <= done.room, `${length} bytes of ${done.room}`);
      yield [done, length];
    }
  }

  /** Throws if a byte was changed since `guard.remember` that is neither in one of the ranges nor the device's in a ring. */
  checkMemory(): void {
    const written = this.rings.flatMap((
      { config: { size, deviceArea, descriptorArea } },
    ): Range[] =>
      this.#choice.packed
        ? [[deviceArea, 4], [descriptorArea, 16 * size]]
        : [[deviceArea, 6 + 8 * size]]
    );
    this.guard.checkUnchanged([...this.ranges, ...written]);
    this.guard.checkGuards();
  }

  /** Throws if the device looks ill. */
  checkHealth(): void {
    const { status } = this.state;
    assert(Number.isInteger(status) && status >= 0 && status <= 0xff, `the status is ${status}`);
    if (!this.valid) return;
    assertEquals(this.errors, [], "a driver that broke no rule is accused");
    assert((status & VIRTIO_STATUS_DEVICE_NEEDS_RESET) === 0);
  }
}

/** The rings and the memory of one front end: which rings are live, and on what. */
import { VIRTIO_F_RING_PACKED, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { descriptorKind, setNonblocking } from "@virtio/linux";
import type { Channel, Message } from "../protocol/channel.ts";
import { ProtocolError } from "../protocol/errors.ts";
import type { MessageShape } from "../protocol/messages.ts";
import {
  decodeMemoryTable,
  decodeRegion,
  decodeVringAddress,
  decodeVringDescriptor,
  decodeVringState,
  encodeU64,
  encodeVringState,
} from "../protocol/payloads.ts";
import type { DirtyLogPlace } from "./dirty_log.ts";
import type { InflightMemory } from "./inflight_memory.ts";
import { MAX_SLOTS, MemoryTable } from "./memory_table.ts";
import { RingLog } from "./ring_log.ts";
import type { Served } from "./served.ts";
import { Vring } from "./vring.ts";

/** Made by `Session`, which hands it the messages that concern it. */
export class Rings {
  /** What the front end said of each ring. */
  readonly rings: readonly Vring[];
  /** Whether rings need no SET_VRING_ENABLE: the front end knows of no protocol features. */
  enabledAtOnce = true;
  readonly #served: Served;
  readonly #inflight: InflightMemory;
  readonly #requireSeals: boolean;
  readonly #fail: (error: Error) => void;
  #table: MemoryTable = MemoryTable.empty;
  #features: bigint | null = null;
  /** Whether the device is set going. */
  #started = false;
  #failed = false;
  readonly #log: RingLog = new RingLog();

  /** @param fail Told if a ring cannot go live. */
  constructor(
    served: Served,
    inflight: InflightMemory,
    requireSeals: boolean,
    fail: (error: Error) => void,
  ) {
    this.#served = served;
    this.#inflight = inflight;
    this.#requireSeals = requireSeals;
    this.#fail = fail;
    this.rings = served.queueSizes.map((size) => new Vring(size));
  }

  /** Whether any ring is live. */
  get live(): boolean {
    return this.rings.some(({ live }) => live);
  }

  /** Whether the device broke. */
  get failed(): boolean {
    return this.#failed;
  }

  /** What was negotiated, or null if nothing that the device can work with. */
  get features(): bigint | null {
    return this.#features;
  }

  /** Bytes of guest memory. */
  get memorySize(): number {
    return this.#table.size;
  }

  get #packed(): boolean {
    return ((this.#features ?? 0n) & VIRTIO_F_RING_PACKED) !== 0n;
  }

  /** Handles a message of a ring, or of memory. @throws {ProtocolError} If it says something that cannot be. */
  handle(shape: MessageShape, message: Message, channel: Channel): void | Promise<void> {
    const { payload } = message;
    switch (shape.name) {
      case "SET_MEM_TABLE":
        return this.#setTable(message);
      case "ADD_MEM_REG":
        return this.#change(
          this.#table.add(decodeRegion(payload), message.descriptor(0), {
            requireSeals: this.#requireSeals,
          }),
        );
      case "REM_MEM_REG":
        return this.#change(this.#table.remove(decodeRegion(payload)));
      case "GET_MAX_MEM_SLOTS":
        return channel.reply(shape.id, encodeU64(BigInt(MAX_SLOTS)));
      case "SET_LOG_BASE":
        return this.#setLog(shape, message, channel);
      case "SET_LOG_FD":
        // An event when the log changes, which nobody needs; the descriptor is closed with the message.
        return;
      case "SET_VRING_NUM": {
        const { ring, value } = this.#idle(payload, shape.name);
        ring.size = value;
        return;
      }
      case "SET_VRING_BASE": {
        const { ring, value } = this.#idle(payload, shape.name);
        ring.base = value;
        ring.position = null;
        return;
      }
      case "SET_VRING_ADDR":
        return this.#setAddress(payload);
      case "GET_VRING_BASE":
        return this.#getBase(shape, payload, channel);
      case "SET_VRING_KICK":
        return this.#setKick(message);
      case "SET_VRING_CALL": {
        const { index, ring, descriptor } = this.#descriptor(message);
        return then(this.#served.setCall(index, descriptor), () => void (ring.call = descriptor));
      }
      case "SET_VRING_ERR": {
        const { ring, descriptor } = this.#descriptor(message);
        ring.error = descriptor;
        return;
      }
      case "SET_VRING_ENABLE": {
        const { ring, index, value } = this.#state(payload);
        ring.enabled = value !== 0;
        return this.#update(index);
      }
      case "VRING_KICK": {
        const { ring, index } = this.#state(payload);
        if (ring.live) return this.#served.kick(index);
        ring.started = true;
        return this.#update(index);
      }
    }
    throw new ProtocolError(`${shape.name} is not known`);
  }

  #at(index: number): Vring {
    const ring = this.rings[index];
    if (ring === undefined) {
      throw new ProtocolError(`There is no ring ${index}: there are ${this.rings.length}`);
    }
    return ring;
  }

  #state(payload: Uint8Array): { index: number; value: number; ring: Vring } {
    const { index, value } = decodeVringState(payload);
    return { index, value, ring: this.#at(index) };
  }

  #idle(payload: Uint8Array, name: string): { ring: Vring; value: number } {
    const { index, value, ring } = this.#state(payload);
    if (ring.live) throw new ProtocolError(`${name} came for ring ${index} while it is live`);
    return { ring, value };
  }

  /** The descriptor that comes with a message, or -1; whoever calls keeps it. */
  #descriptor(message: Message): { index: number; ring: Vring; descriptor: number } {
    const { index, none } = decodeVringDescriptor(message.payload);
    const ring = this.#at(index);
    if (none !== (message.descriptorCount === 0)) {
      throw new ProtocolError(
        `A message for ring ${index} says that there is ${none ? "no" : "a"} descriptor`,
      );
    }
    if (none) return { index, ring, descriptor: -1 };
    // Anything else could be ready for ever, or keep a write waiting.
    if (descriptorKind(message.descriptor(0)) === "other") {
      throw new ProtocolError(`The descriptor for ring ${index} is of no event file or pipe`);
    }
    setNonblocking(message.descriptor(0));
    return { index, ring, descriptor: message.take(0) };
  }

  #setAddress(payload: Uint8Array): void | Promise<void> {
    const address = decodeVringAddress(payload);
    const ring = this.#at(address.index);
    const before = ring.address;
    if (ring.live && before !== null) {
      const same = before.descriptors === address.descriptors && before.used === address.used &&
        before.available === address.available;
      if (!same) throw new ProtocolError(`Ring ${address.index} cannot move while it is live`);
    }
    ring.address = address;
    // Whether it is logged may change at any time.
    return ring.live ? this.#applyLog() : undefined;
  }

  #setKick(message: Message): void | Promise<void> {
    const { index, ring, descriptor } = this.#descriptor(message);
    const start = (): void | Promise<void> => {
      ring.kick = descriptor;
      ring.polled = descriptor < 0;
      ring.started = true;
      return this.#update(index);
    };
    // With another descriptor it is stopped and started again, which loses nothing.
    if (!ring.live) return start();
    return this.#park(index).then(start);
  }

  #getBase(shape: MessageShape, payload: Uint8Array, channel: Channel): void | Promise<void> {
    const { index, ring } = this.#state(payload);
    const answer = (): void => {
      const value = ring.baseNow(this.#packed);
      ring.base = value;
      ring.position = null;
      ring.kick = -1;
      ring.call = -1;
      channel.reply(shape.id, encodeVringState({ index, value }));
    };
    ring.started = false;
    const forget = (): void | Promise<void> => then(this.#served.setCall(index, -1), answer);
    return ring.live ? this.#park(index).then(forget) : forget();
  }

  /** Takes a ring from the device; it goes on from where it was. */
  async #park(index: number): Promise<void> {
    const ring = this.rings[index]!;
    if (!ring.live) return;
    const position = await this.#served.stopQueue(index);
    if (!ring.live) return;
    ring.live = false;
    if (position !== null) ring.position = position;
  }

  /** A ring goes live if it can, and is taken back if it must be. */
  #update(index: number): void | Promise<void> {
    const ring = this.rings[index]!;
    const wanted = ring.started && (ring.enabled || this.enabledAtOnce) && ring.address !== null &&
      this.#table.memory !== null && this.#features !== null && !this.#failed;
    if (wanted === ring.live) return;
    if (!wanted) return this.#park(index);
    return this.#goLive(index, ring);
  }

  async #updateAll(): Promise<void> {
    for (let index = 0; index < this.rings.length; index++) await this.#update(index);
  }

  async #goLive(index: number, ring: Vring): Promise<void> {
    const served = this.#served;
    try {
      const features = this.#features!;
      if ((features & VIRTIO_F_VERSION_1) === 0n) {
        throw new ProtocolError("A ring cannot start: VIRTIO_F_VERSION_1 was not negotiated");
      }
      // The protocol has no message for the largest size that the device names, so front ends choose theirs (User Mode Linux
      // 256 for every ring): what a ring can be at all is checked where it is opened.
      const config = ring.config(this.#table, this.#packed);
      const inflight = this.#inflight.place(index, this.#packed);
      if (!this.#started) {
        this.#started = true;
        await served.log(this.#logPlace());
        await served.start(this.#table.memory!, features);
      } else if (this.#log.enabled) {
        await served.log(this.#logPlace());
      }
      await served.setCall(index, ring.call);
      ring.live = true;
      await served.startQueue(index, { config, kick: ring.kick, polled: ring.polled, inflight });
    } catch (error) {
      try {
        await this.#stopDevice();
      } finally {
        this.#fail(error as Error);
      }
    }
  }

  #setTable(message: Message): void | Promise<void> {
    const regions = decodeMemoryTable(message.payload);
    if (regions.length !== message.descriptorCount) {
      throw new ProtocolError(
        `A memory table of ${regions.length} regions came with ${message.descriptorCount} descriptors`,
      );
    }
    const descriptors = regions.map((_, i) => message.descriptor(i));
    return this.#change(MemoryTable.of(regions, descriptors, { requireSeals: this.#requireSeals }));
  }

  /** Goes on with other memory: rings are stopped, and opened again there, with every check. */
  async #change(table: MemoryTable): Promise<void> {
    const before = this.#table;
    this.#table = table;
    const live = [...this.rings.keys()].filter((index) => this.rings[index]!.live);
    for (const index of live) await this.#park(index);
    if (this.#started) {
      if (table.memory === null) await this.#stopDevice();
      else await this.#served.move(table.memory);
    }
    before.unmap(table);
    await this.#updateAll();
  }

  async #setLog(shape: MessageShape, message: Message, channel: Channel): Promise<void> {
    const before = this.#log.replace(message);
    await this.#applyLog();
    before?.unmap();
    channel.reply(shape.id, encodeU64(0n));
  }

  /** Whether what the device writes is logged. */
  setLogging(logging: boolean): void | Promise<void> {
    if (logging === this.#log.enabled) return;
    this.#log.enabled = logging;
    return this.#applyLog();
  }

  #applyLog(): void | Promise<void> {
    return this.#started ? this.#served.log(this.#logPlace()) : undefined;
  }

  #logPlace(): DirtyLogPlace | null {
    return this.#log.place(this.rings, this.#table, this.#packed);
  }

  /** What was negotiated, or null if nothing that the device can work with. No ring is live. */
  async setFeatures(features: bigint | null): Promise<void> {
    if (features !== this.#features && this.#started) await this.#stopDevice();
    if (this.#failed) {
      // Front ends that know no status have no other way to say that the driver begins anew.
      this.#failed = false;
      this.#inflight.clear();
    }
    this.#features = features;
    await this.#updateAll();
  }

  async #stopDevice(): Promise<void> {
    for (const ring of this.rings) ring.live = false;
    this.#started = false;
    await this.#served.stop();
  }

  /** The device broke, and is stopped. @param told Called for each ring without a descriptor for errors. */
  fail(told: (index: number) => void): void {
    if (this.#failed) return;
    this.#failed = true;
    this.#started = false;
    this.rings.forEach((ring, index) => {
      ring.live = false;
      if (ring.started && !ring.signalError()) told(index);
      // It starts again when the front end says so, not by whatever else it says.
      ring.started = false;
    });
  }

  /** The driver resets the device: all rings are stopped at once. */
  async reset(): Promise<void> {
    await this.#stopDevice();
    this.#failed = false;
    this.#inflight.clear();
    for (const ring of this.rings) {
      const { enabled } = ring;
      const base = ring.position === null ? ring.base : ring.baseNow(this.#packed);
      ring.reset();
      // A front end may still ask, and enables once.
      ring.base = base;
      ring.enabled = enabled;
    }
  }

  /** Takes all rings from the device, once nothing is in flight. */
  async stop(): Promise<void> {
    await Promise.all([...this.rings.keys()].map((index) => this.#park(index)));
  }

  /** The front end is gone. */
  async close(): Promise<void> {
    try {
      await this.#stopDevice();
      await this.#served.log(null);
      for (let index = 0; index < this.rings.length; index++) await this.#served.setCall(index, -1);
    } finally {
      for (const ring of this.rings) ring.close();
      this.#table.unmap();
      this.#table = MemoryTable.empty;
      this.#log.close();
    }
  }
}

/** Goes on at once, or when a promise resolved. */
function then(done: void | Promise<void>, next: () => void): void | Promise<void> {
  return done === undefined ? next() : done.then(next);
}

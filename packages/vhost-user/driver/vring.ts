/** One ring as a front end has it: what the driver said of it, its event files, and how the back end is told. */
import { EventFd, EventSignal } from "@virtio/linux";
import type { GuestMemory } from "@virtio/memory";
import type { QueueConfig, QueuePosition } from "@virtio/vring";
import {
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  FrontEndRequest as Request,
  VHOST_VRING_F_LOG,
} from "../protocol/mod.ts";
import { reactor, type Watch } from "../backend/reactor.ts";
import type { Connection } from "./connection.ts";
import { userAddress } from "./memory.ts";

/** Who is told of a ring's events. */
export interface VringHandlers {
  /** The back end used buffers. */
  call(index: number): void;
  /** The back end says that something is wrong with the ring. */
  error(index: number): void;
}

/** Where a ring goes on, as the messages have it. */
export function encodeBase(position: QueuePosition | undefined, packed: boolean): number {
  if (!packed) return position?.nextAvail ?? 0;
  const { nextAvail, availWrap, nextUsed, usedWrap } = position ??
    { nextAvail: 0, availWrap: 1, nextUsed: 0, usedWrap: 1 };
  return (nextAvail | availWrap << 15 | nextUsed << 16 | usedWrap << 31) >>> 0;
}

/** The position that a base stands for; both halves are as far, since the ring is drained. What it says is not checked. */
export function decodeBase(base: number, packed: boolean): QueuePosition {
  if (!packed) {
    return { nextAvail: base & 0xffff, nextUsed: base & 0xffff, availWrap: 0, usedWrap: 0 };
  }
  const next = base & 0x7fff;
  const wrap = base >>> 15 & 1;
  return { nextAvail: next, nextUsed: next, availWrap: wrap, usedWrap: wrap };
}

/** A ring. Its event files stay the same over resets and connections. */
export class Vring {
  /** Which one. */
  readonly index: number;
  /** Where it is, and where to begin; null if the driver does not use it. */
  config: QueueConfig | null = null;
  /** Whether the back end at the other end of the connection has been given it. */
  live = false;
  /** Whether any back end has been given it since the driver set it up: it may be further than `config` says. */
  begun = false;
  readonly #kick: EventFd;
  /** What kicks: a back end can do to the event file whatever it likes. */
  readonly #signal: EventSignal;
  readonly #call: EventFd;
  readonly #error: EventFd;
  readonly #watches: readonly Watch[];

  /** @throws {SystemError} If there are too many descriptors. */
  constructor(index: number, handlers: VringHandlers) {
    this.index = index;
    const made: EventFd[] = [];
    try {
      for (let i = 0; i < 3; i++) made.push(EventFd.create());
    } catch (error) {
      for (const event of made) event.close();
      throw error;
    }
    [this.#kick, this.#call, this.#error] = made as [EventFd, EventFd, EventFd];
    this.#signal = new EventSignal(this.#kick.descriptor);
    this.#watches = [
      reactor().watch(this.#call.descriptor, () => {
        if (this.#call.take() && this.live) handlers.call(index);
      }),
      reactor().watch(this.#error.descriptor, () => {
        if (this.#error.take() && this.live) handlers.error(index);
      }),
    ];
  }

  /** Tells the back end that there are buffers. Kicks that come before it has the ring are kept. */
  kick(): void {
    this.#signal.signal();
  }

  /**
   * Gives the ring to a back end.
   *
   * @param base Where it goes on.
   * @param logged Whether writes into the used ring are to be in the dirty log.
   */
  begin(
    connection: Connection,
    config: QueueConfig,
    base: number,
    logged: boolean,
    enable: boolean,
  ): Promise<unknown> {
    const { index } = this;
    const descriptor = encodeVringDescriptor({ index, none: false });
    this.live = true;
    this.begun = true;
    const told = [
      connection.tell(Request.SET_VRING_NUM, encodeVringState({ index, value: config.size })),
      connection.tell(Request.SET_VRING_BASE, encodeVringState({ index, value: base })),
      this.tellAddress(connection, config, logged),
      // Before it is kicked, so that it can say what it did.
      connection.tell(Request.SET_VRING_CALL, descriptor, [this.#call.descriptor]),
      connection.tell(Request.SET_VRING_ERR, descriptor, [this.#error.descriptor]),
      connection.tell(Request.SET_VRING_KICK, descriptor, [this.#kick.descriptor]),
    ];
    if (enable) told.push(this.enable(connection, true));
    return Promise.all(told);
  }

  /** Tells where the ring is. */
  tellAddress(connection: Connection, config: QueueConfig, logged: boolean): Promise<void> {
    return connection.tell(
      Request.SET_VRING_ADDR,
      encodeVringAddress({
        index: this.index,
        flags: logged ? VHOST_VRING_F_LOG : 0,
        descriptors: userAddress(config.descriptorArea),
        available: userAddress(config.driverArea),
        used: userAddress(config.deviceArea),
        log: logged ? BigInt(config.deviceArea) : 0n,
      }),
    );
  }

  /** Enables or disables it; where protocol features were agreed on. */
  enable(connection: Connection, on: boolean): Promise<void> {
    const value = on ? 1 : 0;
    return connection.tell(
      Request.SET_VRING_ENABLE,
      encodeVringState({ index: this.index, value }),
    );
  }

  /** The used index, of a split ring: how many buffers have been given back. Null if there is no ring in guest memory. */
  usedIndex(memory: GuestMemory, { deviceArea }: QueueConfig): number | null {
    const region = memory.lookup(deviceArea, 4);
    if (region === null || deviceArea % 2 !== 0) return null;
    return Atomics.load(region.u16, (deviceArea + 2 - region.base) >>> 1);
  }

  /** Buffers of a split ring that the back end has not given back. */
  outstanding(memory: GuestMemory, { driverArea }: QueueConfig, used: number): number {
    return (memory.readU16(driverArea + 2) - used) & 0xffff;
  }

  /** Whether there is a call that was not passed on; it is taken. */
  takeCall(): boolean {
    return this.#call.take();
  }

  /** Ends it for good. */
  close(): void {
    this.live = false;
    this.config = null;
    for (const watch of this.#watches) watch.close();
    this.#signal.close();
    for (const event of [this.#kick, this.#call, this.#error]) event.close();
  }
}

import { BUSY } from "@virtio/device";
import type { Chain, Queue } from "@virtio/vring";
import { ByteRing } from "./byte_ring.ts";
import { transmitQueue } from "./constants.ts";
import type { ConsoleLink } from "./link.ts";
import type { PortState } from "./port_state.ts";

/** Bytes of one chain that a back end is given before the event loop turns. */
const PIECE = 1 << 24;
/** Characters of `emerg_wr` that wait for a back end that is full. */
const EMERGENCY_BYTES = 1024;

/** The guest's output, from transmitqs and from `emerg_wr` to back ends. */
export class ConsoleOutput {
  /** By port: how many bytes of the first chain in the transmitq the back end took before it was full. */
  readonly taken: number[];
  readonly #link: ConsoleLink;
  /** By port: the transmitq that `taken` is about. */
  readonly #queues: (Queue | null)[];
  readonly #early: ByteRing = new ByteRing(EMERGENCY_BYTES);
  readonly #character: Uint8Array = new Uint8Array(1);

  /** @param link The device. */
  constructor(link: ConsoleLink) {
    this.#link = link;
    this.taken = link.ports.map(() => 0);
    this.#queues = link.ports.map(() => null);
  }

  /** A transmitq starts, for the first time or again. */
  started(id: number, queue: Queue): void {
    const before = this.#queues[id]!;
    // After a queue reset (2.6.1) the first chain is another one.
    if (before !== null && before !== queue) this.taken[id] = 0;
    this.#queues[id] = queue;
  }

  /** The driver was reset. */
  forget(): void {
    this.taken.fill(0);
    this.#queues.fill(null);
  }

  /** A chain of a port. What a driver puts behind it for the device to write is left alone (5.3.6.1). */
  handle(chain: Chain, queue: number, id: number): void | typeof BUSY {
    const { reader } = chain;
    const port = this.#link.ports[id]!;
    let taken = this.taken[id]!;
    // It cannot be longer than it was, unless the driver changed what was available already.
    if (taken > 0) reader.skip(Math.min(taken, reader.remaining));
    if (port === null || !port.hostOpen) {
      this.#link.stats.outputDiscarded += reader.remaining;
      this.taken[id] = 0;
      return;
    }
    if (id === 0 && this.#early.length > 0 && !this.#flushEarly(port)) return BUSY;
    for (let left = PIECE; reader.next(left); left -= reader.length) {
      const { length } = reader;
      const count = this.#write(port, reader.region!.bytes, reader.offset, length);
      if (!this.#link.isLive(chain)) return;
      taken += count;
      if (count < length) {
        this.taken[id] = taken;
        return BUSY;
      }
    }
    if (reader.remaining > 0) {
      this.taken[id] = taken;
      this.#link.resume(queue);
      return BUSY;
    }
    this.taken[id] = 0;
  }

  /** A character through `emerg_wr` (5.3.5.1), for port 0. */
  emergency(character: number): void {
    const port = this.#link.ports[0]!;
    const { stats } = this.#link;
    stats.emergencyBytes++;
    this.#character[0] = character;
    if (port === null || !port.hostOpen) {
      stats.emergencyDiscarded++;
    } else if (!this.#flushEarly(port) || this.#write(port, this.#character, 0, 1) === 0) {
      if (this.#early.push(this.#character, 0, 1) === 0) stats.emergencyDiscarded++;
    }
  }

  /** A back end takes output again. */
  resume(port: PortState): void {
    if (port.id === 0 && !this.#flushEarly(port)) return;
    this.#link.resume(transmitQueue(port.id));
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
      this.#link.failed(port, error);
      return 0;
    }
    this.#link.stats.outputBytes += count;
    return count;
  }
}

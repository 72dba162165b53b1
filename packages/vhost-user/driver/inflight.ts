/** The memory in which a back end writes down what is in flight: the front end keeps it, and gives it to the next back end. */
import {
  addressOf,
  closeDescriptor,
  fileSize,
  fixedBytes,
  IoVectors,
  readVectors,
} from "@virtio/linux";
import {
  decodeInflight,
  encodeInflight,
  FrontEndRequest as Request,
  type InflightArea,
  ProtocolError,
} from "../protocol/mod.ts";
import type { Connection } from "./connection.ts";

/** Largest region that is kept: 256 queues of 32,768 entries take less. */
const MOST = 2 ** 30;

/** Where packed rings have what a new back end begins with. */
const PACKED = { header: 32, entry: 32, version: 8, usedIndex: 16, usedWrap: 20 } as const;

/** A region, and its file. */
export class InflightRegion {
  readonly #area: InflightArea;
  readonly #descriptor: number;

  private constructor(area: InflightArea, descriptor: number) {
    this.#area = area;
    this.#descriptor = descriptor;
  }

  /**
   * Has a back end make one.
   *
   * @param queues How many there are.
   * @param queueSize Entries of the largest.
   * @returns Null if it needs none.
   * @throws {ProtocolError} If it answers nonsense.
   */
  static request(
    connection: Connection,
    queues: number,
    queueSize: number,
  ): Promise<InflightRegion | null> {
    const wanted = { size: 0n, offset: 0n, queues, queueSize };
    return connection.ask(Request.GET_INFLIGHT_FD, encodeInflight(wanted), (message) => {
      const area = decodeInflight(message.payload);
      if (area.size === 0n) return null;
      if (message.descriptorCount === 0) {
        throw new ProtocolError("The answer to GET_INFLIGHT_FD has no descriptor");
      }
      const size = fileSize(message.descriptor(0));
      if (area.size > BigInt(MOST) || area.offset + area.size > BigInt(Math.max(0, size))) {
        throw new ProtocolError(
          `The region for requests in flight has ${area.size} bytes from ${area.offset} in a file of ${size}`,
        );
      }
      return new InflightRegion({ ...area, queues, queueSize }, message.take(0));
    });
  }

  /** Gives it to a back end. */
  give(connection: Connection): Promise<void> {
    return connection.tell(Request.SET_INFLIGHT_FD, encodeInflight(this.#area), [this.#descriptor]);
  }

  /**
   * Where a packed ring goes on after its back end died: what it used last, since what it took and did not use is in the
   * region.
   *
   * @returns The base, or null if no back end has begun with the queue.
   * @throws {RangeError} If what stands there makes no sense.
   */
  packedBase(index: number): number | null {
    const { queues, queueSize, size, offset } = this.#area;
    const header = fixedBytes(PACKED.entry);
    const vectors = new IoVectors(1);
    const address = addressOf(header);
    vectors.set(0, Number(address & 0xffff_ffffn), Number(address >> 32n), header.length);
    // Back ends may leave room between the regions of queues: their distance is what the whole says.
    const each = Math.floor(Number(size) / queues);
    const at = Number(offset) + index * each;
    const got = readVectors(this.#descriptor, vectors, 1, at);
    const fields = new DataView(header.buffer);
    const next = fields.getUint16(PACKED.usedIndex, true);
    const wrap = header[PACKED.usedWrap]! & 1;
    const fits = index < queues && each >= PACKED.header + PACKED.entry * queueSize;
    if (!fits || got !== header.length || next >= queueSize) {
      throw new RangeError("The region for requests in flight is none for packed rings");
    }
    if (fields.getUint16(PACKED.version, true) === 0) return null;
    const half = next | wrap << 15;
    return (half | half << 16) >>> 0;
  }

  /** Closes the file. */
  close(): void {
    closeDescriptor(this.#descriptor);
  }
}

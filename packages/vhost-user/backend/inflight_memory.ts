/** GET_INFLIGHT_FD and SET_INFLIGHT_FD: the memory that outlives this process. */
import { MemoryFile, Seal, SharedMapping } from "@virtio/linux";
import { MAX_QUEUE_SIZE } from "@virtio/vring";
import { ProtocolError } from "../protocol/errors.ts";
import { decodeInflight, encodeInflight } from "../protocol/payloads.ts";
import { type InflightPlace, inflightSize } from "./inflight.ts";

const PAGE = 4096;
/** Bytes at most: 1,024 queues of 32,768 entries would take more, but no device has those. */
const MOST_BYTES = 2 ** 28;

/** The memory, as long as a session has one. */
export class InflightMemory {
  #file: MemoryFile | null = null;
  #mapping: SharedMapping | null = null;
  #entries = 0;
  #queues = 0;

  /**
   * Makes new memory for a front end.
   *
   * @returns The message's answer, and the descriptor that goes with it, which stays open until `close`; -1 where there can be
   * none, which the answer says by a size of 0.
   */
  allocate(
    request: Uint8Array,
    queueSizes: readonly number[],
  ): { readonly answer: Uint8Array; readonly descriptor: number } {
    const wanted = decodeInflight(request);
    const length = request.length === 20 ? 20 : 24;
    const { queues, queueSize } = wanted;
    this.close();
    if (!fits(queues, queueSize, queueSizes)) {
      const answer = encodeInflight({ ...wanted, size: 0n, offset: 0n }, length);
      return { answer, descriptor: -1 };
    }
    // Room for either layout: the driver may choose the ring's format later.
    const size = Math.ceil(queues * inflightSize(queueSize, true) / PAGE) * PAGE;
    const file = this.#file = MemoryFile.create(size, "virtio-inflight");
    file.addSeals(Seal.shrink | Seal.grow);
    this.#map(file.descriptor, 0, size, queues, queueSize);
    const answer = encodeInflight({ size: BigInt(size), offset: 0n, queues, queueSize }, length);
    return { answer, descriptor: file.descriptor };
  }

  /**
   * Takes the memory that a front end kept. The descriptor stays the caller's.
   *
   * @throws {ProtocolError} If it cannot be.
   */
  take(request: Uint8Array, descriptor: number, queueSizes: readonly number[]): void {
    const { size, offset, queues, queueSize } = decodeInflight(request);
    const bytes = Number(size);
    const start = Number(offset);
    if (!fits(queues, queueSize, queueSizes)) {
      throw new ProtocolError(`There are no ${queues} queues of ${queueSize} to note`);
    }
    const least = queues * inflightSize(queueSize, false);
    if (!(bytes >= least && bytes <= MOST_BYTES && Number.isSafeInteger(start + bytes))) {
      throw new ProtocolError(
        `Notes of ${queues} queues of ${queueSize} do not fit into ${size} bytes`,
      );
    }
    if (start % PAGE !== 0) {
      throw new ProtocolError(`Notes cannot begin at ${start}: it is no page`);
    }
    const file = new MemoryFile(descriptor);
    if (!(file.size >= start + bytes)) {
      throw new ProtocolError(`Notes of ${bytes} bytes are not in a file of ${file.size}`);
    }
    try {
      file.addSeals(Seal.shrink);
    } catch {
      // Sealed already, or a file that cannot be.
    }
    this.#unmap();
    this.#map(descriptor, start, bytes, queues, queueSize);
  }

  #map(
    descriptor: number,
    offset: number,
    size: number,
    queues: number,
    entries: number,
  ): void {
    try {
      this.#mapping = new SharedMapping(descriptor, offset, size);
    } catch (error) {
      throw new ProtocolError(`Notes cannot be mapped: ${(error as Error).message}`);
    }
    this.#queues = queues;
    this.#entries = entries;
  }

  /**
   * Where the notes of a queue are; null if there are none for it.
   *
   * @throws {ProtocolError} If there is too little memory for the ring's format.
   */
  place(index: number, packed: boolean): InflightPlace | null {
    const mapping = this.#mapping;
    if (mapping === null || index >= this.#queues) return null;
    const size = inflightSize(this.#entries, packed);
    if ((index + 1) * size > mapping.length) {
      throw new ProtocolError(
        `The notes of queue ${index} do not fit into ${mapping.length} bytes`,
      );
    }
    return {
      buffer: mapping.buffer,
      offset: mapping.byteOffset + index * size,
      entries: this.#entries,
    };
  }

  /** A driver that reset the device waits for nothing any more. No queue is live. */
  clear(): void {
    if (this.#mapping !== null) {
      const { buffer, byteOffset, length } = this.#mapping;
      new Uint8Array(buffer, byteOffset, length).fill(0);
    }
  }

  #unmap(): void {
    this.#mapping?.unmap();
    this.#mapping = null;
  }

  /** Forgets it. No queue may be live. */
  close(): void {
    this.#unmap();
    this.#file?.close();
    this.#file = null;
  }
}

function fits(queues: number, queueSize: number, queueSizes: readonly number[]): boolean {
  return queues > 0 && queues <= queueSizes.length && queueSize > 0 &&
    queueSize <= MAX_QUEUE_SIZE;
}

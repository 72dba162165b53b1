import { DriverError, type DriverSession } from "@virtio/device/driver";
import { SECTOR_SIZE, VIRTIO_BLK_S_OK, VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT } from "../constants.ts";
import type { BufferPool } from "./buffer_pool.ts";
import { BlkError } from "./error.ts";
import type { BlkRequestQueue, RequestNote } from "./request_queue.ts";

/**
 * Requests as promises over request queues: buffers, waiting where there is no room, one kick for what comes in one turn,
 * and giving the device up.
 */
export class RequestScheduler {
  /** Capacity, beyond which nothing is sent. */
  sectors: number;
  readonly #session: DriverSession;
  readonly #queues: readonly BlkRequestQueue[];
  readonly #buffers: BufferPool;
  readonly #timeout: number;
  #timer: ReturnType<typeof setTimeout> | null = null;
  #broken: Error | null = null;
  #turn = 0;
  /** Requests for which there was no room, in order. */
  readonly #waiting: PendingRequest[] = [];
  readonly #unpublished: Set<BlkRequestQueue> = new Set();
  #publishing = false;
  #inFlight = 0;

  /** @param timeout See `BlkDriverOptions`. */
  constructor(
    session: DriverSession,
    queues: readonly BlkRequestQueue[],
    buffers: BufferPool,
    sectors: number,
    timeout: number,
  ) {
    this.#session = session;
    this.#queues = queues;
    this.#buffers = buffers;
    this.sectors = sectors;
    this.#timeout = timeout;
  }

  /** Why the device was given up; null while it works. */
  get broken(): Error | null {
    return this.#broken;
  }

  /** Sends a request. `writes`: whether the device fills `bytes`. */
  request(
    type: number,
    sector: number,
    bytes: Uint8Array | null,
    writes: boolean,
  ): Promise<void> {
    return new Promise((resolve, reject) => {
      if (this.#broken !== null) {
        reject(this.#broken);
        return;
      }
      const request = new PendingRequest(this, type, sector, bytes, writes, resolve, reject);
      if (this.#waiting.length > 0 || !this.#start(request)) this.#waiting.push(request);
    });
  }

  #start(request: PendingRequest): boolean {
    const { bytes } = request;
    const length = bytes === null ? 0 : bytes.length;
    if (isTransfer(request.type) && request.sector + length / SECTOR_SIZE > this.sectors) {
      // The disk has shrunk while it waited.
      if (request.address >= 0) this.#buffers.give(request.address);
      request.reject(new RangeError("The disk has become too small for the request"));
      return true;
    }
    if (length > 0 && request.address < 0) {
      const address = this.#buffers.take();
      if (address < 0) return false;
      request.address = address;
      if (!request.writes) this.#session.dma.memory.write(address, bytes!);
    }
    for (let i = 0; i < this.#queues.length; i++) {
      const queue = this.#queues[this.#turn++ % this.#queues.length]!;
      const { type, sector, address, writes } = request;
      if (queue.submit(type, sector, address, length, writes, request) < 0) continue;
      this.#inFlight++;
      this.#publishSoon(queue);
      this.#watch();
      return true;
    }
    return false;
  }

  /** What is submitted in one turn is published together. */
  #publishSoon(queue: BlkRequestQueue): void {
    this.#unpublished.add(queue);
    if (this.#publishing) return;
    this.#publishing = true;
    queueMicrotask(() => {
      this.#publishing = false;
      const queues = [...this.#unpublished];
      this.#unpublished.clear();
      if (this.#broken !== null) return;
      for (const each of queues) each.publish();
    });
  }

  /** Called by a request when the device has answered it. */
  answered(request: PendingRequest, status: number): void {
    this.#inFlight--;
    const { bytes, address } = request;
    if (status === VIRTIO_BLK_S_OK && request.writes) {
      this.#session.dma.memory.read(address, bytes!);
    }
    if (address >= 0) this.#buffers.give(address);
    if (status === VIRTIO_BLK_S_OK) request.resolve();
    else request.reject(new BlkError(request.type, status));
  }

  /** Called by a request when its queue was reset. It was not answered, so it may be done again. */
  lost(request: PendingRequest): void {
    this.#inFlight--;
    if (this.#broken !== null) request.reject(this.#broken);
    else this.#waiting.push(request);
  }

  /** Sends what waited, as far as there is room. */
  startWaiting(): void {
    while (this.#waiting.length > 0 && this.#start(this.#waiting[0]!)) this.#waiting.shift();
  }

  /** Takes what the device has answered in a queue. */
  collect(index: number): void {
    const queue = this.#queues[index];
    if (queue === undefined || this.#broken !== null) return;
    try {
      queue.collect();
      this.startWaiting();
    } catch (error) {
      this.giveUp(error instanceof Error ? error : new DriverError(String(error)));
    }
  }

  /** A device that does not answer must not hang its driver; one timer for all requests costs the hot path nothing. */
  #watch(): void {
    if (this.#timer !== null || this.#timeout === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.#inFlight === 0 || this.#broken !== null) return;
      // Every queue has its turn, or its rounds would stand still.
      if (this.#queues.map((queue) => queue.overdue()).includes(true)) {
        this.giveUp(
          new DriverError(`The device left a request unanswered for ${this.#timeout} ms`),
        );
      } else {
        this.#watch();
      }
    }, this.#timeout);
  }

  /** Fails everything, now and later. */
  giveUp(reason: Error): void {
    if (this.#broken !== null) return;
    this.#broken = reason;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    // The device may still write to what is in flight: its memory stays taken until `close` has reset it.
    for (const queue of this.#queues) queue.abandon(reason);
    for (const request of this.#waiting.splice(0)) request.reject(reason);
  }
}

/** A request of the promise methods. */
class PendingRequest implements RequestNote {
  /** Guest-physical address of its buffer; -1: none. */
  address = -1;
  readonly type: number;
  readonly sector: number;
  readonly bytes: Uint8Array | null;
  readonly writes: boolean;
  readonly resolve: () => void;
  readonly reject: (error: Error) => void;
  readonly #scheduler: RequestScheduler;

  constructor(
    scheduler: RequestScheduler,
    type: number,
    sector: number,
    bytes: Uint8Array | null,
    writes: boolean,
    resolve: () => void,
    reject: (error: Error) => void,
  ) {
    this.#scheduler = scheduler;
    this.type = type;
    this.sector = sector;
    this.bytes = bytes;
    this.writes = writes;
    this.resolve = resolve;
    this.reject = reject;
  }

  settled(status: number): void {
    this.#scheduler.answered(this, status);
  }

  failed(reason: Error): void {
    this.reject(reason);
  }

  lost(): void {
    this.#scheduler.lost(this);
  }
}

function isTransfer(type: number): boolean {
  return type === VIRTIO_BLK_T_IN || type === VIRTIO_BLK_T_OUT;
}

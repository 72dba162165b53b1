/**
 * A disk on a server of network block devices (NBD): qemu-nbd, nbdkit, a gateway of a storage cluster. Over TCP or a Unix
 * socket, encrypted if wanted, over several connections where the server can. Needs Deno, and the permission for the network or
 * the socket.
 *
 * @module
 */
import { checkInteger } from "@virtio/device";
import { type BlkBackend, checkRange } from "../backend.ts";
import type { NbdAddress } from "./nbd_address.ts";
import { NbdConnection } from "./nbd_connection.ts";
import { NbdError } from "./nbd_error.ts";
import type { NbdExport } from "./nbd_handshake.ts";
import * as nbd from "./nbd_protocol.ts";
import { NbdRequest } from "./nbd_request.ts";
import { type NbdBackendOptions, type OpenSession, openSession, timeoutOf } from "./nbd_session.ts";

export { NBD_PORT, type NbdAddress, type NbdTarget, parseNbdUri } from "./nbd_address.ts";
export { NbdError, type NbdProblem } from "./nbd_error.ts";
export type { NbdBackendOptions, NbdReconnect } from "./nbd_session.ts";

/** Bytes of one trim or write of zeroes at most. */
const MOST_RANGE = 1 << 30;
const LONGEST_DELAY = 5000;

/** A connection, or a place for one. */
interface Lane {
  connection: NbdConnection | null;
  /** Requests that wait for the connection. */
  waiting: NbdRequest[];
  connecting: boolean;
  /** When to try again where the others do. */
  notBefore: number;
}

/**
 * A disk on a server.
 *
 * ```ts
 * import { NbdBackend } from "@virtio/blk/nbd";
 * import { assertRejects } from "@std/assert";
 *
 * await assertRejects(() => NbdBackend.connect({ path: "/nowhere/nbd.sock" }), Error, "/nowhere/nbd.sock");
 * ```
 */
export class NbdBackend implements BlkBackend {
  /** Where the server is. */
  readonly address: NbdAddress;
  /** Bytes, without a last part of a sector. */
  readonly capacity: number;
  /** Whether writes are refused. */
  readonly readonly: boolean;
  /** The server answers later. */
  readonly asynchronous = true;
  /** Blocks that requests have to consist of, in bytes: what `BlkDeviceOptions.blockSize` has to be, at least. */
  readonly blockSize: number;
  /** Whether the server makes writes durable when it is told to; if not, `flush` has nothing to say to it. */
  readonly canFlush: boolean;
  /** Whether zeroes may give storage back. */
  readonly writeZeroesMayUnmap: boolean;
  /** Never called: an export keeps its size. */
  onChange: (() => void) | null = null;
  /** As `write`, and durable. There where the server can. */
  writeDurably?: BlkBackend["write"];
  /** Tells that the range is not needed. There where the server can. */
  discard?: (position: number, length: number) => Promise<void>;
  /** Makes the range read as zeroes. There where the server can. */
  writeZeroes?: (position: number, length: number, unmap: boolean) => Promise<void>;
  readonly #options: NbdBackendOptions;
  readonly #export: NbdExport;
  readonly #timeout: number;
  readonly #patience: number;
  readonly #lanes: Lane[] = [];
  readonly #sleeping: Map<ReturnType<typeof setTimeout>, () => void> = new Map();
  /** Writes that were acknowledged, and how many of them are known to be durable. */
  #written = 0;
  #durable = 0;
  /** Whether some of those may be lost. */
  #maybeLost = false;
  #failed: NbdError | null = null;

  private constructor(address: NbdAddress, options: NbdBackendOptions, first: OpenSession) {
    this.address = address;
    this.#options = options;
    this.#timeout = timeoutOf(options);
    const { reconnect = {} } = options;
    this.#patience = reconnect === false
      ? 0
      : checkInteger("patience", reconnect.patience, 0, Infinity, 60_000);
    if (reconnect !== false) checkInteger("delay", reconnect.delay, 1, Infinity, 100);
    const info = this.#export = first.export;
    const can = (flag: number): boolean => (info.flags & flag) !== 0;
    this.capacity = info.size - info.size % Math.max(512, info.minimumBlock);
    this.blockSize = Math.max(512, info.minimumBlock);
    this.readonly = (options.readonly ?? false) || can(nbd.NBD_FLAG_READ_ONLY);
    this.canFlush = can(nbd.NBD_FLAG_SEND_FLUSH);
    this.writeZeroesMayUnmap = can(nbd.NBD_FLAG_SEND_WRITE_ZEROES);
    if (can(nbd.NBD_FLAG_SEND_FUA)) this.writeDurably = this.#writeDurably;
    if (can(nbd.NBD_FLAG_SEND_TRIM)) this.discard = this.#discard;
    if (can(nbd.NBD_FLAG_SEND_WRITE_ZEROES)) this.writeZeroes = this.#writeZeroes;
    this.#lanes.push({ connection: null, waiting: [], connecting: false, notBefore: 0 });
    this.#adopt(this.#lanes[0]!, first);
    const most = can(nbd.NBD_FLAG_CAN_MULTI_CONN)
      ? checkInteger("connections", options.connections, 1, 16, 4)
      : 1;
    // The others are made when there is something to do for them.
    while (this.#lanes.length < most) {
      this.#lanes.push({ connection: null, waiting: [], connecting: false, notBefore: 0 });
    }
  }

  /**
   * Connects to a server.
   *
   * @throws {NbdError} If there is none, or it refuses, or does not speak the protocol.
   * @throws {RangeError} If an option is out of range.
   */
  static async connect(address: NbdAddress, options: NbdBackendOptions = {}): Promise<NbdBackend> {
    checkInteger("connections", options.connections, 1, 16, 4);
    const first = await openSession(address, options);
    try {
      return new NbdBackend(address, options, first);
    } catch (error) {
      first.stream.close();
      throw error;
    }
  }

  /** Connections that there are. */
  get connections(): number {
    return this.#lanes.filter(({ connection }) => connection !== null).length;
  }

  /** Reads. @throws {BackendRangeError} If the range is not within the disk. */
  read(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    return this.#transfer(nbd.NBD_CMD_READ, 0, position, bytes, offset, length);
  }

  /** Writes. @throws {BackendRangeError} If the range is not within the disk. */
  write(position: number, bytes: Uint8Array, offset: number, length: number): Promise<void> {
    return this.#transfer(nbd.NBD_CMD_WRITE, 0, position, bytes, offset, length);
  }

  /**
   * Makes all writes that were done before durable, if the server can.
   *
   * @throws {NbdError} `"unflushed"` once, if a server went away that had acknowledged writes, and need not have kept them.
   */
  async flush(): Promise<void> {
    this.#check(0, 0);
    if (this.#maybeLost) throw this.#tellLost();
    if (!this.canFlush || this.readonly) return;
    const written = this.#written;
    await this.#send(new NbdRequest(nbd.NBD_CMD_FLUSH, 0, 0, 0, null));
    this.#durable = Math.max(this.#durable, written);
  }

  /** Ends the connections. Requests that are not answered fail: wait for them first. */
  async close(): Promise<void> {
    const ended = this.#lanes.map(({ connection }) => connection?.ended);
    if (this.#failed === null) this.#fail(new NbdError("closed", "The connection was closed"));
    await Promise.all(ended);
  }

  /** As `close`. */
  [Symbol.dispose](): void {
    void this.close();
  }

  #writeDurably(
    position: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): Promise<void> {
    return this.#transfer(
      nbd.NBD_CMD_WRITE,
      nbd.NBD_CMD_FLAG_FUA,
      position,
      bytes,
      offset,
      length,
    );
  }

  #discard(position: number, length: number): Promise<void> {
    return this.#range(nbd.NBD_CMD_TRIM, 0, position, length);
  }

  #writeZeroes(position: number, length: number, unmap: boolean): Promise<void> {
    const flags = unmap ? 0 : nbd.NBD_CMD_FLAG_NO_HOLE;
    return this.#range(nbd.NBD_CMD_WRITE_ZEROES, flags, position, length);
  }

  async #transfer(
    type: number,
    flags: number,
    position: number,
    bytes: Uint8Array,
    offset: number,
    length: number,
  ): Promise<void> {
    this.#check(position, length, type !== nbd.NBD_CMD_READ);
    const most = this.#export.maximumBlock - this.#export.maximumBlock % this.blockSize;
    const sent: Promise<void>[] = [];
    for (let done = 0; done < length; done += most) {
      const count = Math.min(most, length - done);
      const part = bytes.subarray(offset + done, offset + done + count);
      sent.push(this.#send(new NbdRequest(type, flags, position + done, count, part)));
    }
    await settled(sent);
  }

  async #range(type: number, flags: number, position: number, length: number): Promise<void> {
    this.#check(position, length, true);
    for (let done = 0; done < length; done += MOST_RANGE) {
      const count = Math.min(MOST_RANGE, length - done);
      await this.#send(new NbdRequest(type, flags, position + done, count, null));
    }
  }

  #check(position: number, length: number, writes = false): void {
    if (this.#failed !== null) throw this.#failed;
    checkRange(position, length, this.capacity);
    if (writes && this.readonly) {
      throw new NbdError("write protected", "The export is read-only");
    }
    if (position % this.#export.minimumBlock !== 0 || length % this.#export.minimumBlock !== 0) {
      throw new NbdError(
        "alignment",
        `The server wants blocks of ${this.blockSize} bytes: give the device that blockSize`,
      );
    }
  }

  async #send(request: NbdRequest): Promise<void> {
    this.#begin(request);
    await request.promise;
    const { type, flags } = request;
    const writes = type === nbd.NBD_CMD_WRITE || type === nbd.NBD_CMD_WRITE_ZEROES;
    if (writes && (flags & nbd.NBD_CMD_FLAG_FUA) === 0) this.#written++;
  }

  /** The guest is told that writes may be lost. Once: what it does then is its own affair. */
  #tellLost(): NbdError {
    this.#maybeLost = false;
    this.#durable = this.#written;
    return new NbdError(
      "unflushed",
      "The server went away and came back: what it had not made durable before may be lost",
    );
  }

  #begin(request: NbdRequest): void {
    if (this.#failed !== null) {
      request.fail(this.#failed);
      return;
    }
    // The least busy connection; another one is made where all are busy.
    let best: Lane | null = null;
    for (const lane of this.#lanes) {
      if (lane.connection === null) continue;
      if (best === null || lane.connection.inFlight < best.connection!.inFlight) best = lane;
    }
    if (best === null || best.connection!.inFlight > 1) {
      const now = performance.now();
      const idle = this.#lanes.find((lane) =>
        lane.connection === null && !lane.connecting && (best === null || lane.notBefore <= now)
      );
      if (idle !== undefined) void this.#connect(idle);
    }
    if (best !== null) best.connection!.send(request);
    else this.#lanes.find((lane) => lane.connecting)!.waiting.push(request);
  }

  #adopt(lane: Lane, session: OpenSession): void {
    const connection = new NbdConnection(session, this.#timeout, (error, requests) => {
      if (lane.connection !== connection) return;
      lane.connection = null;
      this.#lost(error, requests);
    });
    session.onError = (error) => connection.lost(error);
    lane.connection = connection;
  }

  #lost(error: NbdError, requests: NbdRequest[]): void {
    const { reconnect = {} } = this.#options;
    if (this.#failed !== null) {
      for (const request of requests) request.fail(this.#failed);
      return;
    }
    // A server that breaks the rules is not to be trusted a second time.
    if (reconnect === false || error.problem === "protocol") {
      for (const request of requests) request.fail(error);
      this.#fail(error);
      return;
    }
    if (this.#written > this.#durable && !reconnect.keepsWrites) this.#maybeLost = true;
    for (const request of requests) {
      if (this.#maybeLost && request.type === nbd.NBD_CMD_FLUSH) {
        request.fail(this.#tellLost());
        continue;
      }
      request.again();
      this.#begin(request);
    }
  }

  async #connect(lane: Lane): Promise<void> {
    lane.connecting = true;
    const { reconnect = {} } = this.#options;
    const give = performance.now() + this.#patience;
    let delay = reconnect === false ? 0 : reconnect.delay ?? 100;
    for (;;) {
      try {
        const session = await openSession(this.address, this.#options);
        if (this.#failed !== null) return session.stream.close();
        const { size, flags, minimumBlock } = session.export;
        const { size: before, flags: could, minimumBlock: block } = this.#export;
        if (size !== before || (could & ~flags) !== 0 || minimumBlock !== block) {
          session.stream.close();
          throw new NbdError("changed", "The server has another export by that name now");
        }
        this.#adopt(lane, session);
        break;
      } catch (error) {
        if (this.#failed !== null) return;
        const problem = error instanceof NbdError ? error.problem : "lost";
        const hopeless = problem === "changed" || problem === "protocol";
        if (!hopeless && performance.now() + delay <= give) {
          await this.#sleep(delay);
          delay = Math.min(2 * delay, LONGEST_DELAY);
          if (this.#failed !== null) return;
          continue;
        }
        lane.connecting = false;
        if (this.#lanes.some(({ connection }) => connection !== null) && !hopeless) {
          // The others go on.
          lane.notBefore = performance.now() + LONGEST_DELAY;
          for (const request of lane.waiting.splice(0)) this.#begin(request);
          return;
        }
        this.#fail(error instanceof NbdError ? error : new NbdError("lost", String(error)));
        return;
      }
    }
    lane.connecting = false;
    for (const each of this.#lanes) {
      for (const request of each.waiting.splice(0)) this.#begin(request);
    }
  }

  #sleep(milliseconds: number): Promise<void> {
    return new Promise((resolve) => {
      const timer = setTimeout(() => {
        this.#sleeping.delete(timer);
        resolve();
      }, milliseconds);
      this.#sleeping.set(timer, resolve);
    });
  }

  /** The end: nothing is answered any more. */
  #fail(error: NbdError): void {
    this.#failed = error;
    for (const lane of this.#lanes) {
      lane.connection?.lost(error);
      for (const request of lane.waiting.splice(0)) request.fail(error);
    }
    for (const [timer, wake] of this.#sleeping) {
      clearTimeout(timer);
      wake();
    }
    this.#sleeping.clear();
  }
}

/** Waits for all, so that no buffer is in use any more when the first failure is told. */
async function settled(results: readonly Promise<void>[]): Promise<void> {
  if (results.length === 1) return await results[0];
  for (const result of await Promise.allSettled(results)) {
    if (result.status === "rejected") throw result.reason;
  }
}

/**
 * The front end of one device: what the driver wants stands here, and is given to whichever back end is at the other end of
 * the connection. Everything that takes messages is done in order, one after the other.
 */
import { UnixSocket } from "@virtio/linux";
import {
  type FeatureSet,
  hasFeature,
  VIRTIO_STATUS_ACKNOWLEDGE,
  VIRTIO_STATUS_DRIVER,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_FEATURES_OK,
} from "@virtio/device";
import type { QueueConfig, QueuePosition } from "@virtio/vring";
import {
  encodeU64,
  FrontEndRequest as Request,
  ProtocolFeature as P,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from "../protocol/mod.ts";
import { BackEndError, type Connection } from "./connection.ts";
import { DirtyLog } from "./dirty_log.ts";
import { ConfigCopy } from "./config_copy.ts";
import type { Agreement } from "./handshake.ts";
import { Link } from "./link.ts";
import type { MemoryUser } from "./memory.ts";
import { checkStatus, meet, type Met } from "./meet.ts";
import { type CheckedOptions, checkOptions, countQueues, type FrontEndOptions } from "./options.ts";
import { type RingOptions, Rings } from "./rings.ts";
import { reactor } from "../backend/reactor.ts";

/** Who is told what the device does. */
export interface FrontEndHandlers {
  /** Buffers were used. */
  call(index: number): void;
  /** The configuration may have changed; `config` has it. */
  config(): void;
  /** The device does not work any more, until it is reset. */
  failed(error: Error): void;
}

/** Features of the protocol's, which no driver sees. */
const PROTOCOL_BITS = VHOST_USER_F_PROTOCOL_FEATURES | VHOST_F_LOG_ALL;

const FOUND = VIRTIO_STATUS_ACKNOWLEDGE | VIRTIO_STATUS_DRIVER;
const AGREED = FOUND | VIRTIO_STATUS_FEATURES_OK;

/** A device behind vhost-user. `VhostUserTransport` and `RemoteDevice` are the ways to use it. */
export class FrontEnd implements MemoryUser {
  /** Options, checked. */
  readonly options: CheckedOptions;
  /** Who is told. */
  handlers: FrontEndHandlers | null = null;
  readonly #link: Link;
  readonly #rings: Rings;
  /** The driver's features, while the device runs. */
  #features: FeatureSet | null = null;
  /** What the back end offered when the driver chose. */
  #offered: FeatureSet = 0n;
  #log: DirtyLog | null = null;
  #closed = false;
  readonly #config: ConfigCopy;

  private constructor(options: CheckedOptions, path: string | null, met: Met) {
    this.options = options;
    const count = countQueues(options, met.agreement.queues);
    this.#rings = new Rings(count, options, {
      call: (index) => this.#called(index),
      error: (index) =>
        this.#link.connection?.fail(
          new BackEndError(`The back end says that something is wrong with queue ${index}`),
        ),
    });
    this.#link = new Link(options, path, met, {
      lost: () => this.#rings.lose(),
      check: (now) => this.#checkNext(now),
      restore: (connection, now) => this.#restore(connection, now),
      failed: (error) => this.handlers?.failed(error),
      configChanged: () => this.#config.refresh(),
    });
    this.#config = new ConfigCopy(
      this.#link,
      this.#configOf(met.agreement),
      () => this.handlers?.config(),
    );
    options.memory.attach(this);
  }

  /**
   * Connects, and negotiates.
   *
   * @param to The back end's socket: its path, or a connected socket, which is the front end's from then on.
   * @throws {RangeError} If an option is out of range.
   * @throws {SystemError} If nobody listens.
   * @throws {BackEndError} If the back end does not answer.
   * @throws {ProtocolError} If it answers nonsense.
   */
  static async connect(to: string | UnixSocket, options: FrontEndOptions): Promise<FrontEnd> {
    const checked = checkOptions(options);
    const path = typeof to === "string" ? to : null;
    const met = await meet(typeof to === "string" ? UnixSocket.connect(to) : to, checked);
    try {
      return new FrontEnd(checked, path, met);
    } catch (error) {
      met.connection.close();
      throw error;
    }
  }

  /** The configuration space, as it was read last. */
  get config(): Uint8Array {
    return this.#config.bytes;
  }

  /** Feature bits that the back end offers. */
  get features(): FeatureSet {
    return this.#link.agreement.features & ~PROTOCOL_BITS;
  }

  /** Protocol features that were agreed on, of `ProtocolFeature`. */
  get protocolFeatures(): bigint {
    return this.#link.agreement.protocolFeatures;
  }

  /** Queues that there may be. */
  get queueCount(): number {
    return this.#rings.count;
  }

  /** Whether there is a back end. */
  get connected(): boolean {
    return this.#link.connection !== null;
  }

  /** Why the device does not work; null if it does. */
  get failure(): Error | null {
    return this.#link.failure;
  }

  /** Whether the back end can log what it writes. */
  get canLog(): boolean {
    return hasFeature(this.#link.agreement.features, VHOST_F_LOG_ALL) && this.#has(P.LOG_SHMFD);
  }

  #has(features: bigint): boolean {
    return hasFeature(this.#link.agreement.protocolFeatures, features);
  }

  /** Whether a back end can go on where another one ended. */
  #checkNext(now: Agreement): void {
    // What the driver has that the one before did not offer is done here.
    const wanted = (this.#features ?? 0n) & this.#offered;
    const needed = this.#rings.hasInflight ? P.INFLIGHT_SHMFD : 0n;
    if (
      !hasFeature(now.features, wanted) || !hasFeature(now.protocolFeatures, needed) ||
      countQueues(this.options, now.queues) < this.#rings.used
    ) {
      throw new RangeError("The back end that came back offers less than the one that went away");
    }
  }

  /** What a back end does not show, the front end knows. */
  #configOf({ config }: Agreement): Uint8Array {
    return config.length > 0 ? config : this.options.config;
  }

  async #restore(connection: Connection, now: Agreement): Promise<void> {
    const changed = this.#config.replace(this.#configOf(now));
    if (this.#features !== null) await this.#begin(connection);
    if (changed) this.handlers?.config();
    this.#rings.wakeAll();
  }

  #called(index: number): void {
    try {
      this.handlers?.call(index);
    } catch (error) {
      // The driver does not believe what the device used.
      this.#link.connection?.fail(error as Error);
    }
  }

  /**
   * Sets the device going, with the queues that `setQueue` told of.
   *
   * @param features What the driver accepted.
   */
  start(features: FeatureSet): void {
    this.#features = features;
    this.#offered = this.#link.agreement.features;
    this.#rings.features = features;
    void this.#link.inTurn(async (connection) => {
      // In the turn that waited for, it may have been reset.
      if (this.#features !== null) await this.#begin(connection);
    });
  }

  /** Gives everything to a back end. */
  async #begin(connection: Connection): Promise<void> {
    const told: Promise<unknown>[] = [];
    try {
      this.#tellStatus(connection, told, FOUND);
      if (this.#log !== null && this.canLog) {
        await this.#log.grow(this.options.memory.end, connection);
        told.push(this.#log.give(connection));
      }
      told.push(connection.tell(Request.SET_FEATURES, encodeU64(this.#featureBits())));
      this.#tellStatus(connection, told, AGREED);
      if (this.#has(P.STATUS)) told.push(checkStatus(connection, VIRTIO_STATUS_FEATURES_OK));
      told.push(this.#link.table!.give(this.options.memory.regions));
      await this.#rings.begin(connection, this.#ringOptions, told);
      this.#tellStatus(connection, told, AGREED | VIRTIO_STATUS_DRIVER_OK);
    } finally {
      // All of them are heard, whatever comes first.
      await Promise.all(told);
    }
  }

  #tellStatus(connection: Connection, told: Promise<unknown>[], bits: number): void {
    if (!this.#has(P.STATUS)) return;
    told.push(connection.tell(Request.SET_STATUS, encodeU64(BigInt(bits))));
  }

  #featureBits(): bigint {
    const offered = this.#link.agreement.features;
    // What a transport does by itself, the back end need not know.
    return ((this.#features ?? 0n) & offered & ~PROTOCOL_BITS) |
      (offered & VHOST_USER_F_PROTOCOL_FEATURES) |
      (this.#ringOptions.logged ? VHOST_F_LOG_ALL : 0n);
  }

  get #ringOptions(): RingOptions {
    return {
      logged: this.#log !== null && this.canLog,
      enable: hasFeature(this.#link.agreement.features, VHOST_USER_F_PROTOCOL_FEATURES),
    };
  }

  /**
   * Tells where a queue is. It begins to run at `start`, or now if the device runs.
   *
   * @throws {RangeError} If there is no such queue.
   */
  setQueue(index: number, config: QueueConfig): void {
    this.#rings.set(index, config);
    if (this.#features === null) return;
    void this.#link.inTurn((connection) =>
      this.#rings.beginOne(connection, index, this.#ringOptions)
    );
  }

  /** Tells the back end that a queue has buffers. */
  kick(index: number): void {
    this.#rings.kick(index);
  }

  /**
   * Takes a queue away from the back end.
   *
   * @returns Where it goes on; nothing of it is in flight then.
   * @throws {RangeError} If the queue is not in use, or nobody can tell where it goes on.
   */
  async stopQueue(index: number): Promise<QueuePosition> {
    const stop = this.#rings.take(index);
    let position: QueuePosition | null = null;
    await this.#link.inTurn(async (connection) => {
      position = await stop(connection);
    });
    return position ?? await stop(null);
  }

  /**
   * Resets the device. If its back end went away, it is looked for again.
   *
   * @returns Resolves when no back end uses guest memory.
   */
  async reset(): Promise<void> {
    this.#features = null;
    const stops = this.#rings.takeAll();
    await this.#link.restart(async (connection) => {
      await Promise.all(stops.map((stop) => stop(connection)));
      if (this.#has(P.RESET_DEVICE)) await connection.tell(Request.RESET_DEVICE);
      if (this.#has(P.STATUS)) await connection.tell(Request.SET_STATUS, encodeU64(0n));
      await connection.settle();
    });
    this.#rings.forgetInflight();
  }

  /** Writes to the configuration space; `config` has it at once. */
  writeConfig(offset: number, bytes: Uint8Array): void {
    this.#config.write(offset, bytes);
  }

  /**
   * Has the back end log what it writes, also one that comes back. `log.drain` gives what was written since.
   *
   * @returns Null if it cannot.
   */
  startLog(): DirtyLog | null {
    if (!this.canLog) return null;
    const log = this.#log ??= new DirtyLog(this.options.memory.end);
    if (this.#features !== null) {
      void this.#link.inTurn(async (connection) => {
        const given = log.give(connection);
        await Promise.all([given, this.#tellLogged(connection)]);
      });
    }
    return log;
  }

  /** Ends logging. */
  async stopLog(): Promise<void> {
    const log = this.#log;
    this.#log = null;
    await this.#link.inTurn(async (connection) => {
      if (this.#features !== null) await this.#tellLogged(connection);
    });
    log?.close();
  }

  async #tellLogged(connection: Connection): Promise<void> {
    await Promise.all([
      connection.tell(Request.SET_FEATURES, encodeU64(this.#featureBits())),
      this.#rings.tellAddresses(connection, this.#ringOptions.logged),
    ]);
  }

  /** See `MemoryUser`. */
  memoryChanged(): Promise<void> {
    if (this.#features === null) return Promise.resolve();
    return this.#link.inTurn(async (connection) => {
      const { end } = this.options.memory;
      if (this.#ringOptions.logged) await this.#log?.grow(end, connection);
      await this.#link.table?.give(this.options.memory.regions);
    });
  }

  /**
   * Tells a network device how large packets may be (protocol feature NET_MTU).
   *
   * @returns Whether it agrees; false also if it cannot be told.
   */
  setMtu(mtu: number): Promise<boolean> {
    return this.#tellNumber(P.NET_MTU, Request.NET_SET_MTU, BigInt(mtu));
  }

  /**
   * Has a network device announce where a guest is now (protocol feature RARP).
   *
   * @param mac Six bytes.
   * @returns Whether it agrees.
   */
  sendRarp(mac: Uint8Array): Promise<boolean> {
    const value = mac.reduceRight((sum, byte) => sum << 8n | BigInt(byte), 0n);
    return this.#tellNumber(P.RARP, Request.SEND_RARP, value);
  }

  async #tellNumber(
    feature: bigint,
    shape: (typeof Request)[keyof typeof Request],
    value: bigint,
  ): Promise<boolean> {
    let agreed = false;
    await this.#link.inTurn(async (connection) => {
      if (!this.#has(feature)) return;
      try {
        await connection.tell(shape, encodeU64(value));
        agreed = true;
      } catch (error) {
        if (!connection.open) throw error;
      }
    });
    return agreed;
  }

  /** Closes the connection: the back end stops by itself. */
  async close(): Promise<void> {
    if (this.#closed) return;
    this.#closed = true;
    this.options.memory.detach(this);
    this.handlers = null;
    await this.#link.close();
    this.#rings.close();
    this.#log?.close();
    this.#log = null;
    await reactor().idle();
  }
}

/** One front end: the messages it sends, as calls of a device. */
import {
  hasFeature,
  Negotiation,
  unmetRequirement,
  VIRTIO_STATUS_DEVICE_NEEDS_RESET,
  VIRTIO_STATUS_FEATURES_OK,
} from "@virtio/device";
import { PollEvent, type UnixSocket } from "@virtio/linux";
import { Channel, type Message } from "../protocol/channel.ts";
import { ProtocolError } from "../protocol/errors.ts";
import {
  ProtocolFeature,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from "../protocol/features.ts";
import { checkRequest, frontEndRequests, type MessageShape } from "../protocol/messages.ts";
import { decodeU64, encodeU64 } from "../protocol/payloads.ts";
import { BackChannel } from "./back_channel.ts";
import { readConfig, writeConfig } from "./config_messages.ts";
import { InflightMemory } from "./inflight_memory.ts";
import { DEVICE_ID_NET, queueCountOf, setMtu } from "./net_messages.ts";
import { reactor, type Watch } from "./reactor.ts";
import { Rings } from "./rings.ts";
import type { Served } from "./served.ts";
import { type SessionOptions, VHOST_USER_CARRIES } from "./session_options.ts";

const P = ProtocolFeature;

/** Messages that are seen to before the event loop turns. */
const BATCH = 64;

/** A message that cannot be done, although it is well formed. */
class Refusal extends Error {}

/** From accepting a front end until it is gone. */
export class Session {
  /** Resolves when the front end is gone and nothing of it is left. */
  readonly ended: Promise<void>;
  readonly #channel: Channel;
  readonly #served: Served;
  readonly #options: SessionOptions;
  readonly #negotiation: Negotiation;
  readonly #rings: Rings;
  readonly #inflight: InflightMemory = new InflightMemory();
  #protocolFeatures = 0n;
  #driverFeatures = 0n;
  #status = 0;
  #back: BackChannel | null = null;
  #watch: Watch | null = null;
  #watchesRoom = false;
  #closing = false;
  #wasLive = false;
  /** The message that is being handled. */
  #working: Promise<void> | null = null;
  #resolveEnded: () => void = () => {};

  /** @param socket Connected; the session closes it. */
  constructor(socket: UnixSocket, served: Served, options: SessionOptions) {
    this.#channel = new Channel(socket);
    this.#served = served;
    this.#options = options;
    this.#negotiation = new Negotiation(
      // What the device itself says is asked later: it may have to be waited for.
      { features: served.features, requires: served.requires },
      options.features,
      VHOST_USER_CARRIES,
    );
    this.#rings = new Rings(
      served,
      this.#inflight,
      options.requireSeals,
      (error) => this.#failed(error),
    );
    this.ended = new Promise((resolve) => this.#resolveEnded = resolve);
    served.listener = {
      interrupt: (index) => {
        if (this.#has(P.INBAND_NOTIFICATIONS)) this.#back?.call(index);
      },
      configChanged: () => {
        if (this.#has(P.CONFIG)) this.#back?.configChanged();
      },
      failed: (error) => this.#failed(error),
      lost: (error) => this.#giveUp(error),
    };
    this.#wait();
  }

  /** All feature bits of GET_FEATURES. */
  get offered(): bigint {
    return BigInt.asUintN(64, this.#negotiation.offered) | VHOST_USER_F_PROTOCOL_FEATURES |
      VHOST_F_LOG_ALL;
  }

  /** Feature bits that the driver accepted, of the device and its rings. */
  get features(): bigint {
    return this.#driverFeatures & ~(VHOST_USER_F_PROTOCOL_FEATURES | VHOST_F_LOG_ALL);
  }

  /** Protocol features that were agreed on. */
  get protocolFeatures(): bigint {
    return this.#protocolFeatures;
  }

  /** The rings, for status lines. */
  get rings(): Rings {
    return this.#rings;
  }

  /** Whether the device broke, and was not reset. */
  get failed(): boolean {
    return this.#rings.failed;
  }

  /** Protocol features of GET_PROTOCOL_FEATURES. */
  get #offeredProtocol(): bigint {
    const always = P.MQ | P.LOG_SHMFD | P.REPLY_ACK | P.BACKEND_REQ | P.CONFIG |
      P.BACKEND_SEND_FD | P.INFLIGHT_SHMFD | P.RESET_DEVICE | P.CONFIGURE_MEM_SLOTS | P.STATUS;
    return always | (this.#options.inband ? P.INBAND_NOTIFICATIONS : 0n) |
      (this.#served.type === DEVICE_ID_NET ? P.NET_MTU : 0n) |
      (this.#options.announce !== null ? P.RARP : 0n);
  }

  #has(bits: bigint): boolean {
    return hasFeature(this.#protocolFeatures, bits);
  }

  /** Gives the front end up: lets what is in flight end, and closes. */
  close(): Promise<void> {
    if (!this.#closing) {
      this.#closing = true;
      this.#watch?.close();
      this.#watch = null;
      this.#end();
    }
    return this.ended;
  }

  async #end(): Promise<void> {
    let timer: ReturnType<typeof setTimeout> | undefined;
    const patience = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, this.#options.patience);
    });
    try {
      // What was used is seen by the driver even if its front end connects again; a request that hangs is given up.
      await Promise.race([
        this.#working?.then(() => this.#rings.stop()) ?? this.#rings.stop(),
        patience,
      ]);
    } catch (error) {
      this.#options.error(error as Error);
    }
    clearTimeout(timer);
    try {
      await this.#rings.close();
    } catch (error) {
      this.#options.error(error as Error);
    }
    this.#served.listener = null;
    this.#back?.close();
    this.#inflight.close();
    this.#channel.close();
    this.#resolveEnded();
  }

  #wait(): void {
    this.#watch?.close();
    this.#watch = null;
    if (this.#closing) return;
    this.#watchesRoom = this.#channel.sending;
    // A front end that does not read its answers is not listened to.
    const events = this.#watchesRoom ? PollEvent.writable : PollEvent.readable;
    this.#watch = reactor().watch(this.#channel.socket.descriptor, () => this.#ready(), events);
  }

  #ready(): void {
    if (this.#closing) return;
    try {
      this.#channel.flush();
      // The rest is found when this is called again: others must have their turn, whatever one front end sends.
      for (let i = 0; i < BATCH && !this.#channel.sending && !this.#closing; i++) {
        const message = this.#channel.receive();
        if (message === null) break;
        const working = this.#take(message);
        if (working === undefined) continue;
        this.#watch?.close();
        this.#watch = null;
        this.#working = working.then(
          () => {
            this.#working = null;
            this.#wait();
          },
          (error) => {
            this.#working = null;
            this.#giveUp(error);
          },
        );
        return;
      }
    } catch (error) {
      this.#giveUp(error);
      return;
    }
    if (this.#channel.ended) this.close();
    else if (this.#watchesRoom !== this.#channel.sending) this.#wait();
  }

  #giveUp(error: unknown): void {
    if (!this.#closing) this.#options.error(error as Error);
    this.close();
  }

  /** Sees to a message. What is thrown ends the session. */
  #take(message: Message): void | Promise<void> {
    const done = (refused: unknown): void => {
      message.close();
      if (this.#wasLive !== this.#rings.live) {
        this.#wasLive = this.#rings.live;
        this.#options.changed();
      }
      const shape = frontEndRequests.get(message.request);
      const acknowledges = message.needsReply && this.#has(P.REPLY_ACK) &&
        (shape?.reply ?? null) === null;
      if (refused instanceof Refusal && acknowledges) {
        this.#channel.reply(message.request, encodeU64(1n));
        this.#options.error(refused);
        return;
      }
      if (refused !== undefined) throw refused;
      if (acknowledges) this.#channel.reply(message.request, encodeU64(0n));
    };
    let handled: void | Promise<void>;
    try {
      handled = this.#handle(message);
    } catch (error) {
      return done(error ?? new Error("A message failed"));
    }
    if (handled === undefined) return done(undefined);
    return handled.then(() => done(undefined), (error) => done(error));
  }

  #handle(message: Message): void | Promise<void> {
    const shape = frontEndRequests.get(message.request);
    if (message.isReply) throw new ProtocolError("An answer came that nobody waits for");
    if (shape === undefined) throw new Refusal(`There is no message ${message.request}`);
    checkRequest(shape, message.payload.length, message.descriptorCount);
    if (!this.#has(shape.needs)) {
      throw new Refusal(`${shape.name} came without the protocol feature that it needs`);
    }
    const handled = this.#dispatch(shape, message);
    if (handled === "unknown") return this.#rings.handle(shape, message, this.#channel);
    return handled;
  }

  #dispatch(shape: MessageShape, message: Message): void | "unknown" | Promise<void> {
    const { payload } = message;
    const channel = this.#channel;
    switch (shape.name) {
      case "GET_FEATURES":
        return channel.reply(shape.id, encodeU64(this.offered));
      case "SET_FEATURES":
        return this.#setFeatures(decodeU64(payload));
      case "GET_PROTOCOL_FEATURES":
        return channel.reply(shape.id, encodeU64(this.#offeredProtocol));
      case "SET_PROTOCOL_FEATURES":
        return this.#setProtocolFeatures(decodeU64(payload));
      case "SET_OWNER":
      case "RESET_OWNER":
        // The second is to be ignored: it once meant several things.
        return;
      case "GET_QUEUE_NUM":
        return channel.reply(shape.id, encodeU64(BigInt(queueCountOf(this.#served))));
      case "SET_BACKEND_REQ_FD":
        this.#back?.close();
        this.#back = null;
        this.#back = new BackChannel(message.take(0), this.#has(P.REPLY_ACK));
        return;
      case "GET_CONFIG":
        return channel.reply(shape.id, readConfig(this.#served, payload));
      case "SET_CONFIG":
        return writeConfig(this.#served, payload);
      case "NET_SET_MTU":
        if (!setMtu(this.#served, this.features, decodeU64(payload))) {
          throw new Refusal(`The device has no MTU ${decodeU64(payload)}`);
        }
        return;
      case "SEND_RARP":
        return this.#options.announce?.(payload.slice(0, 6));
      case "GET_INFLIGHT_FD": {
        this.#checkIdle("Notes of requests in flight");
        const { answer, descriptor } = this.#inflight.allocate(
          payload,
          this.#served.queueSizes,
        );
        return channel.reply(shape.id, answer, descriptor < 0 ? [] : [descriptor]);
      }
      case "SET_INFLIGHT_FD":
        this.#checkIdle("Notes of requests in flight");
        this.#inflight.take(payload, message.descriptor(0), this.#served.queueSizes);
        return;
      case "RESET_DEVICE":
        return this.#reset();
      case "GET_STATUS":
        return channel.reply(
          shape.id,
          encodeU64(
            BigInt(this.#status | (this.failed ? VIRTIO_STATUS_DEVICE_NEEDS_RESET : 0)),
          ),
        );
      case "SET_STATUS":
        return this.#setStatus(Number(decodeU64(payload) & 0xffn));
    }
    return "unknown";
  }

  /** What live rings use cannot be taken from them. */
  #checkIdle(what: string): void {
    if (this.#rings.live) throw new Refusal(`${what} cannot change while a ring is live`);
  }

  #setProtocolFeatures(features: bigint): void {
    if ((features & ~this.#offeredProtocol) !== 0n) {
      throw new Refusal(
        `Protocol features 0x${features.toString(16)} were not offered, or not all of them`,
      );
    }
    const needed = P.BACKEND_REQ | P.REPLY_ACK;
    if ((features & P.INBAND_NOTIFICATIONS) !== 0n && !hasFeature(features, needed)) {
      throw new ProtocolError("INBAND_NOTIFICATIONS needs BACKEND_REQ and REPLY_ACK");
    }
    this.#protocolFeatures = features;
    this.#options.changed();
  }

  #setFeatures(features: bigint): void | Promise<void> {
    if ((features & ~this.offered) !== 0n) {
      throw new Refusal(`Features 0x${(features & ~this.offered).toString(16)} were not offered`);
    }
    const before = this.features;
    this.#driverFeatures = features;
    const rings = this.#rings;
    rings.enabledAtOnce = (features & VHOST_USER_F_PROTOCOL_FEATURES) === 0n;
    const logged = rings.setLogging((features & VHOST_F_LOG_ALL) !== 0n);
    if (logged !== undefined) return logged.then(() => this.#agree(before));
    return this.#agree(before);
  }

  async #agree(before: bigint): Promise<void> {
    let { features } = this;
    if (features === before && this.#rings.live) return;
    this.#checkIdle("Features");
    // A front end keeps to itself what it sees to without us, as QEMU a network card's control queue. What builds on that is
    // not the device's either.
    const { requires } = this.#served;
    for (let unmet; (unmet = unmetRequirement(features, requires)) !== null;) features &= ~unmet;
    const negotiation = this.#negotiation;
    negotiation.reset();
    for (let word = 0; word < 2; word++) {
      negotiation.write(word, Number(features >> BigInt(32 * word) & 0xffff_ffffn));
    }
    // Front ends tell a set without VERSION_1 before the driver chose: nothing can start with it.
    const agreed = negotiation.finish() && await this.#served.accepts(features);
    if (!agreed) this.#status &= ~VIRTIO_STATUS_FEATURES_OK;
    await this.#rings.setFeatures(agreed ? features : null);
    this.#options.changed();
  }

  #setStatus(status: number): void | Promise<void> {
    // QEMU 7.2 stops a machine this way, and asks for the places of its rings afterwards: what is in flight ends first, since
    // nobody would do it again.
    if (status === 0) return this.#rings.stop().then(() => this.#reset());
    this.#status = status & ~VIRTIO_STATUS_DEVICE_NEEDS_RESET;
    if (this.#rings.features === null) this.#status &= ~VIRTIO_STATUS_FEATURES_OK;
  }

  async #reset(): Promise<void> {
    this.#status = 0;
    await this.#rings.reset();
    this.#options.changed();
  }

  #failed(error: Error): void {
    // What follows from the first error is no news.
    if (this.failed) return;
    this.#rings.fail((index) => {
      if (this.#has(P.INBAND_NOTIFICATIONS)) this.#back?.error(index);
    });
    // So that the front end looks at the status.
    if (this.#has(P.STATUS | P.CONFIG)) this.#back?.configChanged();
    this.#options.error(error);
    this.#options.changed();
  }
}

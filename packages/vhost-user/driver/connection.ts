/** A front end's half of one connection: requests in order, each with the answer that belongs to it, and the back channel. */
import { PollEvent, UnixSocket } from "@virtio/linux";
import * as protocol from "../protocol/mod.ts";
import { reactor, type Watch } from "../backend/reactor.ts";

const {
  backEndRequests,
  BackEndRequest,
  checkReply,
  checkRequest,
  FrontEndRequest,
  ProtocolError,
} = protocol;

/** The connection is gone, or the back end broke the protocol, or does not answer. */
export class BackEndError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "BackEndError";
}

/** Who is told of what the back end does by itself. */
export interface ConnectionHandlers {
  /** The configuration changed. */
  configChanged(): void;
  /** The connection is of no use any more; told once, not after `close`. */
  lost(error: Error): void;
}

interface Pending {
  readonly shape: protocol.MessageShape;
  readonly kind: protocol.PayloadKind;
  readonly finish: (message: protocol.Message) => void;
  readonly reject: (error: Error) => void;
}

/** Events that a socket ends with. */
const BROKEN = PollEvent.error | PollEvent.hangUp | PollEvent.invalid;
/** Requests of the back end that are seen to in one turn; the others wait for the next. */
const REQUESTS_OF_A_TURN = 32;

/** One connection to a back end. */
export class Connection {
  /** Protocol features that were agreed on. */
  agreed = 0n;
  readonly #channel: protocol.Channel;
  readonly #handlers: ConnectionHandlers;
  readonly #timeout: number;
  #watch: Watch;
  #writing = false;
  #back: { readonly channel: protocol.Channel; readonly watch: Watch } | null = null;
  readonly #pending: Pending[] = [];
  #timer: ReturnType<typeof setTimeout> | undefined;
  #closed = false;

  /**
   * @param socket Connected; the connection's own.
   * @param timeout Milliseconds that an answer may take.
   */
  constructor(socket: UnixSocket, timeout: number, handlers: ConnectionHandlers) {
    this.#channel = new protocol.Channel(socket);
    this.#timeout = timeout;
    this.#handlers = handlers;
    this.#watch = reactor().watch(socket.descriptor, (events) => this.#ready(events));
  }

  /** Whether it can be used. */
  get open(): boolean {
    return !this.#closed;
  }

  /** Whether all of some protocol features were agreed on. */
  has(features: bigint): boolean {
    return (this.agreed & features) === features;
  }

  /**
   * Sends a request that always has an answer.
   *
   * @param parse Makes of the answer what the caller wants; it may take descriptors, and throws `ProtocolError` if the answer
   * makes no sense.
   */
  ask<T>(
    shape: protocol.MessageShape,
    payload: Uint8Array | undefined,
    parse: (message: protocol.Message) => T,
    descriptors: readonly number[] = [],
  ): Promise<T> {
    return this.#send(shape, shape.reply ?? "u64", payload, descriptors, false, parse);
  }

  /**
   * Sends a request that has no answer of its own, and has it acknowledged if that was agreed on.
   *
   * @returns Resolves when the back end has seen to it; at once where it cannot say so.
   * @throws {BackEndError} If it refuses.
   */
  async tell(
    shape: protocol.MessageShape,
    payload?: Uint8Array,
    descriptors: readonly number[] = [],
  ): Promise<void> {
    if (this.has(protocol.ProtocolFeature.REPLY_ACK)) {
      const result = await this.#send(
        shape,
        "u64",
        payload,
        descriptors,
        true,
        (message) => protocol.decodeU64(message.payload),
      );
      if (result !== 0n) {
        throw new BackEndError(`The back end refuses ${shape.name}: it answers ${result}`);
      }
      return;
    }
    if (this.#closed) throw new BackEndError("The connection is closed");
    try {
      this.#channel.request(shape, payload, descriptors);
      this.#listen();
    } catch (error) {
      this.#lose(error);
      throw error;
    }
  }

  /** Resolves when the back end has seen to all that was sent. */
  async settle(): Promise<void> {
    if (!this.has(protocol.ProtocolFeature.REPLY_ACK)) {
      // Any question does: they are answered in their order.
      await this.ask(FrontEndRequest.GET_FEATURES, undefined, () => {});
    }
  }

  #send<T>(
    shape: protocol.MessageShape,
    kind: protocol.PayloadKind,
    payload: Uint8Array | undefined,
    descriptors: readonly number[],
    acknowledge: boolean,
    parse: (message: protocol.Message) => T,
  ): Promise<T> {
    if (this.#closed) return Promise.reject(new BackEndError("The connection is closed"));
    return new Promise((resolve, reject) => {
      this.#pending.push({
        shape,
        kind,
        finish: (message) => resolve(parse(message)),
        reject,
      });
      if (this.#pending.length === 1) this.#wait();
      try {
        this.#channel.request(shape, payload, descriptors, acknowledge);
        this.#listen();
      } catch (error) {
        this.#lose(error);
      }
    });
  }

  /** The clock runs for the oldest question. */
  #wait(): void {
    clearTimeout(this.#timer);
    const first = this.#pending[0];
    if (first === undefined) return;
    this.#timer = setTimeout(() => {
      this.#lose(
        new BackEndError(
          `The back end does not answer ${first.shape.name} within ${this.#timeout} ms`,
        ),
      );
    }, this.#timeout);
  }

  /** Waits for room too, if something waits to be sent. */
  #listen(): void {
    const { sending } = this.#channel;
    if (sending === this.#writing || this.#closed) return;
    this.#writing = sending;
    this.#watch.close();
    this.#watch = reactor().watch(
      this.#channel.socket.descriptor,
      (events) => this.#ready(events),
      PollEvent.readable | (sending ? PollEvent.writable : 0),
    );
  }

  #ready(events: number): void {
    try {
      if ((events & PollEvent.writable) !== 0) this.#channel.flush();
      while (!this.#closed) {
        const message = this.#channel.receive();
        if (message === null) break;
        try {
          this.#answered(message);
        } finally {
          message.close();
        }
      }
      if (this.#closed) return;
      this.#listen();
      if (this.#channel.ended) throw new BackEndError("The back end closed the connection");
      if ((events & BROKEN) !== 0 && (events & PollEvent.readable) === 0) {
        throw new BackEndError("The connection to the back end broke");
      }
    } catch (error) {
      this.#lose(error);
    }
  }

  #answered(message: protocol.Message): void {
    const pending = this.#pending[0];
    if (!message.isReply || pending === undefined || message.request !== pending.shape.id) {
      const wanted = pending === undefined ? "nothing" : `the answer to ${pending.shape.name}`;
      throw new ProtocolError(`${wanted} is expected, and message ${message.request} came`);
    }
    checkReply(pending.shape, pending.kind, message.payload.length, message.descriptorCount);
    pending.finish(message);
    this.#pending.shift();
    this.#wait();
  }

  /** Makes the second socket, for requests of the back end, and sends it its end. */
  async openBackChannel(): Promise<void> {
    const [ours, theirs] = UnixSocket.pair();
    const channel = new protocol.Channel(ours);
    this.#back = {
      channel,
      watch: reactor().watch(ours.descriptor, (events) => this.#backReady(events)),
    };
    try {
      await this.tell(FrontEndRequest.SET_BACKEND_REQ_FD, undefined, [theirs.descriptor]);
      await this.settle();
    } finally {
      theirs.close();
    }
  }

  #backReady(events: number): void {
    const back = this.#back!;
    try {
      for (let i = 0; i < REQUESTS_OF_A_TURN && !this.#closed; i++) {
        const message = back.channel.receive();
        if (message === null) break;
        try {
          this.#requested(message, back.channel);
        } finally {
          message.close();
        }
      }
      if (this.#closed) return;
      // Who asks must read what is answered.
      if (back.channel.sending) throw new ProtocolError("The back end does not read answers");
      // A back end may close it: it has nothing to say then.
      if (back.channel.ended || (events & BROKEN) !== 0) this.#closeBack();
    } catch (error) {
      this.#lose(error);
    }
  }

  #requested(message: protocol.Message, channel: protocol.Channel): void {
    const shape = backEndRequests.get(message.request);
    let refused = shape === undefined;
    if (shape !== undefined) {
      checkRequest(shape, message.payload.length, message.descriptorCount);
      if (shape === BackEndRequest.CONFIG_CHANGE_MSG) this.#handlers.configChanged();
      else refused = true;
    }
    if (message.needsReply && !this.#closed) {
      channel.reply(message.request, protocol.encodeU64(refused ? 1n : 0n));
    }
  }

  #closeBack(): void {
    this.#back?.watch.close();
    this.#back?.channel.close();
    this.#back = null;
  }

  /** Gives the connection up for something that the back end did. */
  fail(error: Error): void {
    this.#lose(error);
  }

  #lose(cause: unknown): void {
    if (this.#closed) return;
    const error = cause instanceof Error ? cause : new BackEndError(String(cause));
    this.#end(error);
    this.#handlers.lost(error);
  }

  /** Closes it. Whoever waits for an answer is told. */
  close(): void {
    if (!this.#closed) this.#end(new BackEndError("The connection was closed"));
  }

  #end(error: Error): void {
    this.#closed = true;
    clearTimeout(this.#timer);
    this.#watch.close();
    this.#channel.close();
    this.#closeBack();
    for (const { reject } of this.#pending.splice(0)) reject(error);
  }
}

/** The messages of one vhost-user socket, for either side: headers, payloads, and the descriptors that come with them. */
import {
  closeDescriptor,
  Errno,
  type ReceiveResult,
  SystemError,
  type UnixSocket,
} from "@virtio/linux";
import { ProtocolError } from "./errors.ts";
import {
  HEADER_SIZE,
  MAX_DESCRIPTORS,
  MAX_PAYLOAD_SIZE,
  type MessageShape,
  VHOST_USER_NEED_REPLY,
  VHOST_USER_REPLY,
  VHOST_USER_VERSION,
  VHOST_USER_VERSION_MASK,
} from "./messages.ts";

/** A message that came. Its descriptors are closed by `close`, but for those that were taken. */
export class Message {
  /** Its number. */
  readonly request: number;
  /** The flags of its header. */
  readonly flags: number;
  /** Its payload; the receiver's own. */
  readonly payload: Uint8Array;
  readonly #descriptors: (number | null)[];

  /** @param descriptors What came with it; the message owns them. */
  constructor(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly number[],
  ) {
    this.request = request;
    this.flags = flags;
    this.payload = payload;
    this.#descriptors = [...descriptors];
  }

  /** Whether it is an answer. */
  get isReply(): boolean {
    return (this.flags & VHOST_USER_REPLY) !== 0;
  }

  /** Whether it wants an answer. */
  get needsReply(): boolean {
    return (this.flags & VHOST_USER_NEED_REPLY) !== 0;
  }

  /** How many descriptors came. */
  get descriptorCount(): number {
    return this.#descriptors.length;
  }

  /** A descriptor that stays the message's: for a look at it. */
  descriptor(at: number): number {
    const descriptor = this.#descriptors[at];
    if (descriptor === undefined || descriptor === null) {
      throw new RangeError(`There is no descriptor ${at}`);
    }
    return descriptor;
  }

  /** Takes a descriptor over: the caller closes it. */
  take(at: number): number {
    const descriptor = this.descriptor(at);
    this.#descriptors[at] = null;
    return descriptor;
  }

  /** Closes what was not taken. */
  close(): void {
    this.#descriptors.forEach((descriptor, at) => {
      if (descriptor !== null) closeDescriptor(descriptor);
      this.#descriptors[at] = null;
    });
  }
}

/** What waits to be sent. */
interface Outgoing {
  readonly bytes: Uint8Array;
  at: number;
  readonly descriptors: readonly number[];
}

/** Bytes that may wait to be sent: a peer that reads nothing is given up. */
const MOST_WAITING = 1 << 16;

/**
 * Messages over a socket. Nothing blocks: who waits, waits for the socket to be readable (and writable while `sending`), and
 * then calls `receive` until it gives null.
 */
export class Channel {
  /** The socket; the channel's own. */
  readonly socket: UnixSocket;
  readonly #header: Uint8Array<ArrayBuffer> = new Uint8Array(new ArrayBuffer(HEADER_SIZE));
  readonly #payload: Uint8Array<ArrayBuffer> = new Uint8Array(new ArrayBuffer(MAX_PAYLOAD_SIZE));
  #got = 0;
  #size = -1;
  #descriptors: number[] = [];
  #ended = false;
  #closed = false;
  readonly #outgoing: Outgoing[] = [];
  #waiting = 0;

  /** @param socket Connected; `close` closes it. */
  constructor(socket: UnixSocket) {
    this.socket = socket;
  }

  /** Whether the other side is gone. */
  get ended(): boolean {
    return this.#ended;
  }

  /** Whether a part of a message came, and the rest is outstanding. */
  get partial(): boolean {
    return this.#got > 0 || this.#size >= 0;
  }

  /** Whether something waits for room in the socket: call `flush` when it can be written. */
  get sending(): boolean {
    return this.#outgoing.length > 0;
  }

  /**
   * The next message, or null if no whole one is there; see `ended`.
   *
   * @throws {ProtocolError} If what comes is no message; close the channel.
   * @throws {SystemError} If the system refuses.
   */
  receive(): Message | null {
    if (this.#ended || this.#closed) return null;
    if (this.#size < 0) {
      if (!this.#fill(this.#header, HEADER_SIZE)) return null;
      const header = new DataView(this.#header.buffer);
      const flags = header.getUint32(4, true);
      const size = header.getUint32(8, true);
      if ((flags & VHOST_USER_VERSION_MASK) !== VHOST_USER_VERSION) {
        throw new ProtocolError(
          `The flags of a message are 0x${flags.toString(16)}: not version 1`,
        );
      }
      if (size > MAX_PAYLOAD_SIZE) {
        throw new ProtocolError(`A message says that it has ${size} bytes`);
      }
      this.#size = size;
      this.#got = 0;
    }
    if (!this.#fill(this.#payload, this.#size)) return null;
    const header = new DataView(this.#header.buffer);
    const message = new Message(
      header.getUint32(0, true),
      header.getUint32(4, true),
      this.#payload.slice(0, this.#size),
      this.#descriptors,
    );
    this.#descriptors = [];
    this.#size = -1;
    this.#got = 0;
    return message;
  }

  #fill(into: Uint8Array, length: number): boolean {
    while (this.#got < length) {
      const got = this.#read(into.subarray(this.#got, length));
      this.#descriptors.push(...got.descriptors);
      if (got.truncated || this.#descriptors.length > MAX_DESCRIPTORS) {
        throw new ProtocolError("More descriptors came than any message has");
      }
      if (got.length < 0) return false;
      if (got.length === 0) {
        this.#ended = true;
        return false;
      }
      this.#got += got.length;
    }
    return true;
  }

  #read(into: Uint8Array): ReceiveResult {
    try {
      return this.socket.receive(into, MAX_DESCRIPTORS);
    } catch (error) {
      // It went without reading all that it was sent.
      if (!(error instanceof SystemError && error.errno === Errno.ECONNRESET)) throw error;
      return { length: 0, descriptors: [], truncated: false };
    }
  }

  /**
   * Sends a request.
   *
   * @param needReply Whether an acknowledgement is wanted.
   * @param descriptors They stay the caller's, and open until the message went: see `sending`.
   * @throws {ProtocolError} If the other side does not read.
   * @throws {SystemError} If it is gone.
   */
  request(
    shape: MessageShape,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly number[] = [],
    needReply = false,
  ): void {
    const flags = VHOST_USER_VERSION | (needReply ? VHOST_USER_NEED_REPLY : 0);
    this.#send(shape.id, flags, payload, descriptors);
  }

  /** Answers a message. @throws {ProtocolError} As `request`. @throws {SystemError} Likewise. */
  reply(request: number, payload: Uint8Array, descriptors: readonly number[] = []): void {
    this.#send(request, VHOST_USER_VERSION | VHOST_USER_REPLY, payload, descriptors);
  }

  #send(
    request: number,
    flags: number,
    payload: Uint8Array,
    descriptors: readonly number[],
  ): void {
    const bytes = new Uint8Array(new ArrayBuffer(HEADER_SIZE + payload.length));
    const header = new DataView(bytes.buffer);
    header.setUint32(0, request, true);
    header.setUint32(4, flags, true);
    header.setUint32(8, payload.length, true);
    bytes.set(payload, HEADER_SIZE);
    this.#waiting += bytes.length;
    if (this.#waiting > MOST_WAITING) {
      throw new ProtocolError("The other side does not read what it is sent");
    }
    this.#outgoing.push({ bytes, at: 0, descriptors });
    this.flush();
  }

  /** Sends what waits, as far as there is room. @throws {SystemError} If the other side is gone. */
  flush(): void {
    for (let first = this.#outgoing[0]; first !== undefined; first = this.#outgoing[0]) {
      const sent = this.socket.send(
        first.bytes.subarray(first.at),
        first.at === 0 ? first.descriptors : [],
      );
      if (sent === 0) return;
      first.at += sent;
      this.#waiting -= sent;
      if (first.at === first.bytes.length) this.#outgoing.shift();
    }
  }

  /** Closes the socket, and descriptors of a message that came in part. */
  close(): void {
    if (this.#closed) return;
    this.#closed = true;
    this.#ended = true;
    for (const descriptor of this.#descriptors) closeDescriptor(descriptor);
    this.#descriptors = [];
    this.#outgoing.length = 0;
    this.socket.close();
  }
}

/** A small front end, message by message, for tests of a session. Not published. */
import { type Device, QueueDevice } from "@virtio/device";
import { EventFd, MemoryFile, SharedMapping, UnixSocket } from "@virtio/linux";
import { GuestMemory } from "@virtio/memory";
import type { Chain, QueueConfig } from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { Channel, type Message } from "../protocol/channel.ts";
import { VHOST_USER_F_PROTOCOL_FEATURES } from "../protocol/features.ts";
import { FrontEndRequest, type MessageShape } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { LocalDevice, type Served } from "./served.ts";
import { Session } from "./session.ts";
import { type SessionOptions, VHOST_USER_FEATURES } from "./session_options.ts";

/** Where the front end has its memory: far from guest-physical addresses, so that mixing them up is noticed. */
export const USER_BASE = 0x7f00_0000_0000;
/** Guest-physical base. */
export const GUEST_BASE = 0x10_0000;
/** Bytes. */
export const SIZE = 0x10_0000;

/** Writes each byte of the readable part plus one into the writable part. Holds chains while `hold` is set. */
export class EchoDevice extends QueueDevice {
  /** Chains that were held, in their order. */
  readonly held: { readonly chain: Chain; readonly queue: number }[] = [];
  /** Whether chains are held. */
  hold = false;
  /** How many chains came, whichever life. */
  handled = 0;

  constructor(queues = 2) {
    super({ type: 42, queueSizes: Array.from({ length: queues }, () => 64), features: 0b111n });
  }

  protected override handle(chain: Chain, queue: number): void | false {
    this.handled++;
    if (this.hold) {
      this.held.push({ chain, queue });
      return false;
    }
    this.#answer(chain);
  }

  #answer(chain: Chain): void {
    const bytes = new Uint8Array(chain.readable);
    chain.reader.read(bytes);
    chain.writer.write(bytes.map((byte) => byte + 1).subarray(0, chain.writable));
  }

  /** Uses a chain that was held: the one at this place. */
  release(at = 0): void {
    const [{ chain, queue }] = this.held.splice(at, 1) as [{ chain: Chain; queue: number }];
    if (!this.isLive(chain)) return;
    this.#answer(chain);
    this.complete(queue, chain);
  }
}

/** What a session was told to be held with. */
export type FrontOptions = Partial<SessionOptions> & {
  /** Whether the memory file is sealed against shrinking. */
  readonly sealed?: boolean;
};

/** Lets the event loop and the reactor do their work. */
export const settle = (milliseconds = 5): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, milliseconds));

/** Waits until something is so. @throws {Error} If it never is. */
export async function until(condition: () => boolean, what: string): Promise<void> {
  for (let i = 0; i < 2000; i++) {
    if (condition()) return;
    await settle(2);
  }
  throw new Error(`Waited in vain: ${what}`);
}

/** A front end and the session that serves it. */
export class Front {
  readonly channel: Channel;
  readonly session: Session;
  readonly errors: Error[] = [];
  readonly file: MemoryFile = MemoryFile.create(SIZE);
  readonly mapping: SharedMapping = new SharedMapping(this.file.descriptor, 0, SIZE);
  readonly memory: GuestMemory = new GuestMemory([
    { base: GUEST_BASE, buffer: this.mapping.buffer, size: SIZE },
  ]);
  readonly kicks: EventFd[] = [];
  readonly calls: EventFd[] = [];
  readonly queues: DriverQueue[] = [];

  constructor(device: Device | Served, options: FrontOptions = {}) {
    const [here, there] = UnixSocket.pair();
    this.channel = new Channel(here);
    const served = device instanceof QueueDevice ? new LocalDevice(device) : device as Served;
    this.session = new Session(there, served, {
      features: VHOST_USER_FEATURES,
      inband: false,
      requireSeals: false,
      announce: null,
      patience: 200,
      changed: () => {},
      error: (error) => this.errors.push(error),
      ...options,
    });
  }

  /** Sends a message. */
  send(
    shape: MessageShape,
    payload: Uint8Array = new Uint8Array(0),
    descriptors: readonly number[] = [],
    needReply = false,
  ): void {
    this.channel.request(shape, payload, descriptors, needReply);
  }

  /** The next message; null if the session ended. */
  async receive(): Promise<Message | null> {
    for (let i = 0; i < 2000; i++) {
      const message = this.channel.receive();
      if (message !== null) return message;
      if (this.channel.ended) return null;
      await settle(i < 20 ? 0 : 2);
    }
    throw new Error("No answer came");
  }

  /** Sends a message that has an answer. @throws {Error} If the session ended. */
  async ask(
    shape: MessageShape,
    payload?: Uint8Array,
    descriptors: readonly number[] = [],
  ): Promise<Message> {
    this.send(shape, payload, descriptors);
    const answer = await this.receive();
    if (answer === null) throw new Error(`${shape.name} ended the session: ${this.errors}`);
    return answer;
  }

  /** Sends a message, and waits until it was seen to. @returns Whether it was acknowledged with 0. */
  async done(
    shape: MessageShape,
    payload?: Uint8Array,
    descriptors: readonly number[] = [],
  ): Promise<boolean> {
    this.send(shape, payload, descriptors, true);
    const answer = await this.receive();
    if (answer === null) throw new Error(`${shape.name} ended the session: ${this.errors}`);
    return payloads.decodeU64(answer.payload) === 0n;
  }

  /** Whether a message ends the session. */
  async ends(
    shape: MessageShape,
    payload?: Uint8Array,
    descriptors: readonly number[] = [],
  ): Promise<boolean> {
    this.send(shape, payload, descriptors);
    await Promise.race([this.session.ended, settle(500)]);
    this.channel.receive()?.close();
    return this.channel.receive() === null && this.channel.ended;
  }

  /** Owner, features, protocol features, memory. */
  async negotiate(features: bigint, protocolFeatures: bigint): Promise<void> {
    this.send(FrontEndRequest.SET_OWNER);
    await this.ask(FrontEndRequest.GET_FEATURES);
    if (protocolFeatures !== 0n) {
      await this.ask(FrontEndRequest.GET_PROTOCOL_FEATURES);
      this.send(
        FrontEndRequest.SET_PROTOCOL_FEATURES,
        payloads.encodeU64(protocolFeatures),
      );
      features |= VHOST_USER_F_PROTOCOL_FEATURES;
    }
    this.send(FrontEndRequest.SET_FEATURES, payloads.encodeU64(features));
  }

  /** The region of its memory. */
  region(): payloads.MemoryTableRegion {
    return {
      guestAddress: BigInt(GUEST_BASE),
      size: BigInt(SIZE),
      userAddress: BigInt(USER_BASE),
      offset: 0n,
    };
  }

  /** SET_MEM_TABLE. */
  share(): void {
    this.send(FrontEndRequest.SET_MEM_TABLE, payloads.encodeMemoryTable([this.region()]), [
      this.file.descriptor,
    ]);
  }

  /** Where a queue's areas are. */
  config(index: number, size = 64): QueueConfig {
    const base = GUEST_BASE + 0x8000 * index;
    return {
      size,
      descriptorArea: base,
      driverArea: base + 0x2000,
      deviceArea: base + 0x4000,
    };
  }

  /** Sets a queue up; `base` null leaves SET_VRING_BASE out. */
  setUp(index: number, features: bigint, base: number | null = null): DriverQueue {
    const config = this.config(index);
    const queue = this.queues[index] = openDriverQueue(this.memory, config, features);
    this.tell(index, base);
    return queue;
  }

  /** The messages that set a queue up. */
  tell(index: number, base: number | null = null): void {
    const config = this.config(index);
    const state = (value: number) => payloads.encodeVringState({ index, value });
    this.send(FrontEndRequest.SET_VRING_NUM, state(config.size));
    if (base !== null) this.send(FrontEndRequest.SET_VRING_BASE, state(base));
    this.send(FrontEndRequest.SET_VRING_ADDR, this.address(index));
    this.kicks[index] ??= EventFd.create();
    this.calls[index] ??= EventFd.create();
    const which = payloads.encodeVringDescriptor({ index, none: false });
    this.send(FrontEndRequest.SET_VRING_KICK, which, [this.kicks[index]!.descriptor]);
    this.send(FrontEndRequest.SET_VRING_CALL, which, [this.calls[index]!.descriptor]);
  }

  /** Payload of SET_VRING_ADDR. */
  address(index: number, flags = 0, log = 0n): Uint8Array {
    const config = this.config(index);
    const user = (address: number) => BigInt(address - GUEST_BASE + USER_BASE);
    return payloads.encodeVringAddress({
      index,
      flags,
      descriptors: user(config.descriptorArea),
      available: user(config.driverArea),
      used: user(config.deviceArea),
      log,
    });
  }

  /** SET_VRING_ENABLE. */
  enable(index: number, enabled = true): void {
    this.send(
      FrontEndRequest.SET_VRING_ENABLE,
      payloads.encodeVringState({ index, value: enabled ? 1 : 0 }),
    );
  }

  /** Makes a request available, and kicks. */
  request(index: number, token: number): void {
    const at = GUEST_BASE + 0x4_0000 + 0x2_0000 * index + 64 * token;
    this.memory.fill(at, 16, token);
    this.memory.fill(at + 32, 16, 0);
    const list = new BufferList().readable(at, 7).readable(at + 7, 9).writable(at + 32, 16);
    if (!this.queues[index]!.add(list, token)) throw new Error("The queue is full");
    if (this.queues[index]!.publish()) this.kicks[index]!.signal();
  }

  /** Waits until so many requests are used. @returns Their tokens, in the order in which they were. */
  async used(index: number, count: number): Promise<number[]> {
    const tokens: number[] = [];
    const queue = this.queues[index]!;
    await until(() => {
      for (let token = queue.take(); token >= 0; token = queue.take()) {
        const at = GUEST_BASE + 0x4_0000 + 0x2_0000 * index + 64 * token + 32;
        const answer = this.memory.readU32(at + 12);
        const byte = token + 1 & 0xff;
        if (answer !== (byte * 0x0101_0101) >>> 0 || queue.usedLength !== 16) {
          throw new Error(`Request ${token} was answered with 0x${answer.toString(16)}`);
        }
        tokens.push(token);
      }
      return tokens.length >= count || queue.enableInterrupts() && false;
    }, `${count} used buffers of queue ${index}`);
    return tokens;
  }

  /** Ends everything. */
  async close(): Promise<void> {
    this.channel.close();
    await this.session.ended;
    this.mapping.unmap();
    this.file.close();
    for (const event of [...this.kicks, ...this.calls]) event?.close();
  }
}

/** A front end with one live ring; enabled where it knows protocol features. */
export async function live(device: EchoDevice, features: bigint, protocol: bigint): Promise<Front> {
  const front = new Front(device);
  await front.negotiate(features, protocol);
  front.share();
  front.setUp(0, features);
  if (protocol !== 0n) front.enable(0);
  return front;
}

/** What tests of front ends share. Not published. */
import { UnixSocket } from "@virtio/linux";
import { reactor, type Watch } from "../backend/reactor.ts";
import {
  Channel,
  decodeConfig,
  decodeVringState,
  encodeConfig,
  encodeU64,
  encodeVringState,
  type Message,
  ProtocolFeature as P,
  VHOST_F_LOG_ALL,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from "../protocol/mod.ts";

/** Descriptors of this process that are open; the look itself is one. */
export function openDescriptors(): string[] {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => {
    try {
      return `${name} ${Deno.readLinkSync(`/proc/self/fd/${name}`)}`;
    } catch {
      return "";
    }
  }).filter((each) => each !== "").sort();
}

/** What a back end answers: a payload, nothing, or the end of the connection. */
export type Answer = Uint8Array | null | "close";

const VERSION_1 = 1n << 32n;

/** A back end that answers as it is told, and otherwise as a simple one would; it does nothing with rings. */
export class ScriptedBackEnd {
  /** The front end's end. */
  readonly socket: UnixSocket;
  /** Ids of messages that came. */
  readonly seen: number[] = [];
  /** The other channel, when the front end has made it. */
  back: Channel | null = null;
  readonly channel: Channel;
  readonly #answer: (message: Message, normal: () => Answer, self: ScriptedBackEnd) => Answer;
  readonly #watch: Watch;
  #base = 0;

  /** @param answer Asked about each message that wants an answer, or none. */
  constructor(
    answer: (message: Message, normal: () => Answer, self: ScriptedBackEnd) => Answer = (
      _,
      normal,
    ) => normal(),
  ) {
    const [front, back] = UnixSocket.pair();
    this.socket = front;
    this.channel = new Channel(back);
    this.#answer = answer;
    this.#watch = reactor().watch(back.descriptor, () => this.#ready());
  }

  #ready(): void {
    try {
      for (
        let message = this.channel.receive();
        message !== null;
        message = this.channel.receive()
      ) {
        this.seen.push(message.request);
        const answer = this.#answer(message, () => this.#normal(message!), this);
        if (answer === "close") {
          message.close();
          this.close();
          return;
        }
        if (answer !== null) this.channel.reply(message.request, answer);
        message.close();
      }
      if (this.channel.ended) this.close();
    } catch {
      this.close();
    }
  }

  #normal(message: Message): Answer {
    switch (message.request) {
      case 1:
        return encodeU64(VERSION_1 | VHOST_USER_F_PROTOCOL_FEATURES | VHOST_F_LOG_ALL);
      case 15:
        return encodeU64(
          P.MQ | P.LOG_SHMFD | P.REPLY_ACK | P.BACKEND_REQ | P.CONFIG | P.RESET_DEVICE |
            P.CONFIGURE_MEM_SLOTS | P.STATUS,
        );
      case 17:
        return encodeU64(2n);
      case 21:
        this.back ??= new Channel(new UnixSocket(message.take(0)));
        break;
      case 24: {
        const { offset, bytes } = decodeConfig(message.payload);
        return encodeConfig({ offset, flags: 0, bytes: bytes.fill(1) });
      }
      case 36:
        return encodeU64(8n);
      case 11: {
        const { index } = decodeVringState(message.payload);
        return encodeVringState({ index, value: this.#base });
      }
      case 40:
        return encodeU64(15n);
      case 6:
        return encodeU64(0n);
    }
    return message.needsReply ? encodeU64(0n) : null;
  }

  /** Ends it. */
  close(): void {
    this.#watch.close();
    this.channel.close();
    this.back?.close();
    this.back = null;
  }
}

/** The second socket, over which a back end has something to say. */
import { PollEvent, setNonblocking, UnixSocket } from "@virtio/linux";
import { Channel } from "../protocol/channel.ts";
import { BackEndRequest, type MessageShape } from "../protocol/messages.ts";
import { encodeVringState } from "../protocol/payloads.ts";
import { reactor, type Watch } from "./reactor.ts";

/** Requests of a back end. Nobody waits for their answers. */
export class BackChannel {
  readonly #channel: Channel;
  readonly #acknowledged: boolean;
  #watch: Watch | null = null;
  #watchesRoom = false;

  /**
   * @param descriptor Of a socket; the channel closes it.
   * @param acknowledged Whether requests ask for an answer, which tells the front end to see to them before it goes on.
   * @throws {SystemError} If it is no open descriptor.
   */
  constructor(descriptor: number, acknowledged: boolean) {
    this.#channel = new Channel(new UnixSocket(descriptor));
    this.#acknowledged = acknowledged;
    try {
      setNonblocking(descriptor);
    } catch (error) {
      this.#channel.close();
      throw error;
    }
    this.#wait();
  }

  /** The configuration space changed. */
  configChanged(): void {
    this.#send(BackEndRequest.CONFIG_CHANGE_MSG, new Uint8Array(0));
  }

  /** A queue has used buffers. */
  call(index: number): void {
    this.#send(BackEndRequest.VRING_CALL, encodeVringState({ index, value: 0 }));
  }

  /** A queue broke. */
  error(index: number): void {
    this.#send(BackEndRequest.VRING_ERR, encodeVringState({ index, value: 0 }));
  }

  /** Closes the socket. */
  close(): void {
    this.#watch?.close();
    this.#watch = null;
    this.#channel.close();
  }

  #send(shape: MessageShape, payload: Uint8Array): void {
    if (this.#channel.ended) return;
    try {
      this.#channel.request(shape, payload, [], this.#acknowledged);
      if (this.#channel.sending && !this.#watchesRoom) this.#wait();
    } catch {
      // The front end does not read, or is gone: the main channel tells.
      this.close();
    }
  }

  #wait(): void {
    this.#watch?.close();
    this.#watchesRoom = this.#channel.sending;
    const events = PollEvent.readable | (this.#watchesRoom ? PollEvent.writable : 0);
    this.#watch = reactor().watch(this.#channel.socket.descriptor, () => this.#ready(), events);
  }

  #ready(): void {
    try {
      this.#channel.flush();
      // Answers say what nobody can do anything about.
      for (let answer = this.#channel.receive(); answer !== null;) {
        answer.close();
        answer = this.#channel.receive();
      }
      if (this.#channel.ended) this.close();
      else if (this.#watchesRoom !== this.#channel.sending) this.#wait();
    } catch {
      this.close();
    }
  }
}

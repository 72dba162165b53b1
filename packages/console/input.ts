import type { Chain } from "@virtio/vring";
import { receiveQueue } from "./constants.ts";
import type { ConsoleLink } from "./link.ts";
import type { PortState } from "./port_state.ts";

/** The host's input, from back ends to receiveqs. */
export class ConsoleInput {
  readonly #link: ConsoleLink;

  /** @param link The device. */
  constructor(link: ConsoleLink) {
    this.#link = link;
  }

  /** Sends input: into the guest's buffers, and what they have no room for waits. @returns How many bytes were taken. */
  send(port: PortState, bytes: Uint8Array, offset: number, length: number): number {
    let done = 0;
    if (port.input.length === 0 && this.#flows(port)) {
      while (done < length) {
        const chain = this.#buffer(port);
        if (chain === null) break;
        done += chain.writer.writeFrom(bytes, offset + done, length - done);
        this.#link.complete(receiveQueue(port.id), chain);
      }
      this.#link.stats.inputBytes += done;
    }
    done += port.input.push(bytes, offset + done, length - done);
    if (done < length) port.refused = true;
    return done;
  }

  /** Input that waited goes to the guest, as far as it has buffers. */
  feed(port: PortState): void {
    const { input } = port;
    if (this.#flows(port)) {
      while (input.length > 0) {
        const chain = this.#buffer(port);
        if (chain === null) break;
        // Twice, where it wraps around.
        this.#copy(port, chain);
        this.#copy(port, chain);
        this.#link.complete(receiveQueue(port.id), chain);
      }
    }
    if (!port.refused || input.room === 0) return;
    port.refused = false;
    this.#link.tell(port, () => port.backend.inputDrained?.());
  }

  #copy({ input }: PortState, chain: Chain): void {
    const count = chain.writer.writeFrom(input.bytes, input.start, input.piece);
    input.drop(count);
    this.#link.stats.inputBytes += count;
  }

  /** Whether input reaches the guest now. */
  #flows(port: PortState): boolean {
    return port.guestOpen && this.#link.live();
  }

  /** The next buffer for input, or null. */
  #buffer(port: PortState): Chain | null {
    const chain = this.#link.take(receiveQueue(port.id));
    if (chain !== null && chain.writable === 0) {
      this.#link.refuse(`A buffer of the receiveq of port ${port.id} has no device-writable byte`);
      return null;
    }
    return chain;
  }
}

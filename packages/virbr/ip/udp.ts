import { type AddressWords, type Guest, type IpOutput, IpProtocol } from "./packet.ts";

const HEADER = 8;

/** Sends datagrams of the gateway's services. */
export class UdpSender {
  readonly #output: IpOutput;

  constructor(output: IpOutput) {
    this.#output = output;
  }

  /** Sends a datagram. @returns Whether somebody is there to receive it. */
  send(
    to: Guest,
    source: AddressWords,
    sourcePort: number,
    destination: AddressWords,
    destinationPort: number,
    payload: Uint8Array,
  ): boolean {
    const output = this.#output;
    const path = output.path(to, source, destination, IpProtocol.udp);
    if (!output.begin(path) || payload.length + HEADER > output.room) return false;
    const { view, buffer, start } = output;
    view.setUint16(start, sourcePort);
    view.setUint16(start + 2, destinationPort);
    view.setUint16(start + 4, HEADER + payload.length);
    buffer.set(payload, start + HEADER);
    output.finish(HEADER + payload.length, 6, 0);
    return true;
  }
}

import { formatAddress } from "../ip/address.ts";
import { type AddressWords, type IpOutput, type IpPacket, IpProtocol } from "../ip/packet.ts";
import { type Outside, OutsideError } from "../outside/outside.ts";
import { Tally } from "../tally.ts";
import { type FlowCounts, ICMP_KINDS } from "./flow.ts";

/** Types of echo requests and replies: of ICMP and ICMPv6. */
const REQUEST = 8;
const REPLY = 0;
const REQUEST6 = 128;
const REPLY6 = 129;
const HEADER_SIZE = 8;
/** Milliseconds. */
const TIMEOUT = 10_000;
/** Requests that wait for their answers: all, and those of one port. */
const MAX_WAITING = 256;
const MAX_WAITING_OF_PORT = 64;

/** Echo requests of guests to the outside. */
export class EchoFlows {
  readonly #output: IpOutput;
  readonly #outside: Outside;
  readonly #counts: FlowCounts;
  readonly #asking: Tally = new Tally();
  #waiting = 0;

  /** Makes one that sends answers by `output`. */
  constructor(output: IpOutput, outside: Outside, counts: FlowCounts) {
    this.#output = output;
    this.#outside = outside;
    this.#counts = counts;
  }

  /** Whether the outside can be asked at all. */
  get possible(): boolean {
    return this.#outside.echo !== undefined;
  }

  /** Whether a packet is a request for an echo, and not an error, which is never answered with another. */
  isRequest({ version, view, offset, length, checksumGood }: IpPacket): boolean {
    if (!checksumGood || length < HEADER_SIZE) return false;
    return view.getUint8(offset) === (version === 4 ? REQUEST : REQUEST6);
  }

  /** Asks the outside, and gives the guest the answer if there is one. @param end Called when that is done. */
  send(packet: IpPacket, target: AddressWords, end: () => void): void {
    const { port } = packet.guest;
    if (this.#waiting >= MAX_WAITING || this.#asking.of(port) >= MAX_WAITING_OF_PORT) {
      this.#counts.datagramsDropped++;
      end();
      return;
    }
    const { buffer, offset, length } = packet;
    const message = buffer.slice(offset, offset + length);
    const protocol = packet.version === 4 ? IpProtocol.icmp : IpProtocol.icmpv6;
    const path = this.#output.path(
      packet.guest,
      packet.destination.slice(),
      packet.source.slice(),
      protocol,
    );
    path.dontFragment = false;
    this.#waiting++;
    this.#asking.enter(port);
    this.#counts.datagramsOut++;
    this.#outside.echo!(formatAddress(target), message.subarray(HEADER_SIZE), TIMEOUT)
      .then((time) => {
        const output = this.#output;
        if (time === null || !output.begin(path)) return;
        message[0] = protocol === IpProtocol.icmp ? REPLY : REPLY6;
        output.buffer.set(message, output.start);
        output.finish(message.length, 2, 0);
        this.#counts.datagramsIn++;
      }, (error) => {
        this.#counts.failed++;
        const kind = error instanceof OutsideError ? ICMP_KINDS[error.problem] : undefined;
        if (kind !== undefined) this.#output.reject(path, kind, message.subarray(0, HEADER_SIZE));
      })
      .finally(() => {
        this.#waiting--;
        this.#asking.leave(port);
        end();
      });
  }
}

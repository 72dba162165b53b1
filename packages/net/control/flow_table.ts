import { type FrameLayout, IPPROTO_TCP, IPPROTO_UDP } from "../offload/parse.ts";

/**
 * Which flow was last sent on which pair (virtio 1.4, 5.1.9.5.6): a bounded table, in which a new flow takes the place of an
 * older one that falls on the same entry.
 *
 * Hot path: nothing is allocated for a frame.
 */
export class FlowTable {
  readonly #mask: number;
  readonly #flows: Int32Array;
  /** One more than the pair; 0 where there is none. */
  readonly #pairs: Uint16Array;

  /** @param entries A power of two. */
  constructor(entries: number) {
    this.#mask = entries - 1;
    this.#flows = new Int32Array(entries);
    this.#pairs = new Uint16Array(entries);
  }

  /** Forgets all flows. */
  clear(): void {
    this.#pairs.fill(0);
  }

  /** Remembers where a flow was sent. */
  learn(flow: number, pair: number): void {
    const entry = flow & this.#mask;
    this.#flows[entry] = flow;
    this.#pairs[entry] = pair + 1;
  }

  /** The pair of a flow, or -1. */
  find(flow: number): number {
    const entry = flow & this.#mask;
    return this.#flows[entry] === flow ? this.#pairs[entry]! - 1 : -1;
  }
}

/**
 * A number for the flow that an IP packet belongs to: the same in both directions. Ports count where the whole packet is
 * there: of a fragmented one, only the first fragment has any.
 *
 * @returns 30 bits, so that no number is made on the heap, or -1 if it is no IP packet.
 */
export function flowOf(view: DataView, layout: FrameLayout): number {
  const at = layout.networkOffset;
  let sum: number;
  let difference: number;
  if (layout.ipVersion === 4) {
    const source = view.getInt32(at + 12);
    const destination = view.getInt32(at + 16);
    sum = source + destination | 0;
    difference = source ^ destination;
  } else if (layout.ipVersion === 6) {
    sum = 0;
    difference = 0;
    for (let i = 0; i < 16; i += 4) {
      const source = view.getInt32(at + 8 + i);
      const destination = view.getInt32(at + 24 + i);
      sum = mix(sum, source + destination | 0);
      difference = mix(difference, source ^ destination);
    }
  } else {
    return -1;
  }
  const { transport } = layout;
  if (!layout.fragment && (transport === IPPROTO_TCP || transport === IPPROTO_UDP)) {
    const source = view.getUint16(layout.transportOffset);
    const destination = view.getUint16(layout.transportOffset + 2);
    sum = mix(sum, source + destination);
    difference = mix(difference, (source ^ destination) + (transport << 16));
  }
  const flow = mix(sum, difference);
  return (flow ^ flow >>> 15) & 0x3fff_ffff;
}

function mix(one: number, other: number): number {
  const product = Math.imul(one ^ Math.imul(other, 0x9e3779b1), 0x85ebca6b);
  return product ^ product >>> 13;
}

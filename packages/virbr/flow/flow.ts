import type { GuestInfo } from "../snapshot.ts";
import type { Guest, IcmpErrorKind } from "../ip/packet.ts";
import type { OutsideProblem } from "../outside/outside.ts";

/** A flow as those see it who look on, or have a say: plain data. */
export interface FlowInfo {
  /** Its protocol. */
  readonly protocol: "tcp" | "udp" | "icmp";
  /** From a guest to the outside, or by a forward to a guest. */
  readonly direction: "out" | "in";
  /** The guest. */
  readonly guest: GuestInfo;
  /** The guest's address and port. */
  readonly guestAddress: string;
  readonly guestPort: number;
  /** Whom it talks to, as the guest sees it: an address of the outside, or the gateway's. Of a forward: who came. */
  readonly address: string;
  readonly port: number;
}

/** A flow that is wanted. */
export type FlowRequest = Omit<FlowInfo, "guest"> & { readonly guest: Guest };

/** Sees each new flow; false refuses it. */
export type FlowHook = (flow: FlowInfo) => boolean;

/** What was counted. */
export interface FlowCounters {
  /** TCP connections that are joined to the outside, or about to be. */
  readonly tcp: number;
  /** UDP flows. */
  readonly udp: number;
  /** All flows there ever were. */
  readonly total: number;
  /** Refused since the guest may not go there. */
  readonly prohibited: number;
  /** Refused by the hook. */
  readonly unwanted: number;
  /** Refused since the guest has too many, or had too many at once. */
  readonly limited: number;
  /** Refused since the host has no more sockets or memory. */
  readonly exhausted: number;
  /** Refused by the outside, or it could not be reached. */
  readonly failed: number;
  /** Datagrams to the outside. */
  readonly datagramsOut: number;
  /** Datagrams from the outside. */
  readonly datagramsIn: number;
  /** Datagrams dropped. */
  readonly datagramsDropped: number;
}

/** The same, while it counts. */
export class FlowCounts {
  tcp = 0;
  udp = 0;
  total = 0;
  prohibited = 0;
  unwanted = 0;
  limited = 0;
  exhausted = 0;
  failed = 0;
  datagramsOut = 0;
  datagramsIn = 0;
  datagramsDropped = 0;
}

/** What of the outside's problems is told by ICMP. That nobody listens is told by each protocol in its own way. */
export const ICMP_KINDS: { readonly [problem in OutsideProblem]?: IcmpErrorKind } = {
  network: "network",
  host: "host",
  prohibited: "prohibited",
};

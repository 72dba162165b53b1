import type { Chain } from "@virtio/vring";
import type { PortState } from "./port_state.ts";
import type { ConsoleStats } from "./stats.ts";

/** What the parts of a console device ask of it. */
export interface ConsoleLink {
  /** The ports that are there, by number. */
  readonly ports: readonly (PortState | null)[];
  /** What the device did. */
  readonly stats: ConsoleStats;
  /** Whether the driver has set the device going. */
  live(): boolean;
  /** The next chain of a receiveq, or null. */
  take(queue: number): Chain | null;
  /** Puts the chain back that was taken last. */
  untake(queue: number, chain: Chain): void;
  /** Uses a chain that was taken. */
  complete(queue: number, chain: Chain): void;
  /** Handles the chains of a transmitq again. */
  resume(queue: number): void;
  /** Whether a chain was not dropped by a reset. */
  isLive(chain: Chain): boolean;
  /** The driver broke a rule of 5.3.6: the device asks for a reset. */
  refuse(what: string): void;
  /** The guest opened or closed a port. */
  setGuestOpen(port: PortState, open: boolean): void;
  /** Calls a back end; what it throws closes its port. */
  tell(port: PortState, call: () => void): void;
  /** A back end failed. */
  failed(port: PortState, error: unknown): void;
}

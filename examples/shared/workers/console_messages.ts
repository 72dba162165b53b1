/** What crosses between a console device in a worker and the back ends of its ports, which are in another thread. */
import type { ConsoleStats } from "@virtio/console";
import type { WireMessage } from "./wire.ts";

/** A port of a console device, without what is behind it. */
export interface PortData {
  /** How the messages call it. */
  readonly key: number;
  readonly name?: string;
}

/** Which device it is. */
export interface ConsoleWorkerData {
  readonly ports: readonly PortData[];
  readonly maxPorts: number;
}

/** What the device counts. */
export type ConsoleWorkerReport = { readonly [name in keyof ConsoleStats]: number };

/** To the worker. */
export type ToConsole =
  | { readonly key: number; readonly wire: WireMessage }
  | { readonly key: number; readonly size: readonly [cols: number, rows: number] }
  /** The host's side. */
  | { readonly key: number; readonly open: boolean }
  | { readonly add: PortData }
  | { readonly remove: number };

/** From the worker. */
export type FromConsole =
  | { readonly key: number; readonly wire: WireMessage }
  /** The guest's side. */
  | { readonly key: number; readonly guestOpen: boolean };

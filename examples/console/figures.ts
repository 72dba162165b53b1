/** What the example counts, and how it shows it. */
import type { ConsoleStats } from "@virtio/console";
import type { QueueCounters } from "@virtio/device";
import { type QueueFigures, queueFigures, table } from "../shared/figures.ts";

/** The figures of a run. */
export interface Figures extends QueueFigures {
  /** Bytes that the guest wrote, to all ports. */
  readonly outputBytes: number;
  /** Bytes that the guest read, from all ports. */
  readonly inputBytes: number;
  /** Control messages, both ways. */
  readonly controlMessages: number;
  /** Control messages of the guest that meant nothing. */
  readonly ignored: number;
  /** Times that the driver's processor left its code for the host: register accesses, kicks among them. */
  readonly exits: number;
}

/** What a console device counts. */
export interface Counted {
  readonly stats: Readonly<ConsoleStats>;
  readonly queueCounters: readonly Readonly<QueueCounters>[];
}

/** Reads a device's counters. */
export function readFigures({ stats, queueCounters }: Counted, exits: number): Figures {
  return {
    outputBytes: stats.outputBytes,
    inputBytes: stats.inputBytes,
    controlMessages: stats.controlReceived + stats.controlSent,
    ignored: stats.controlIgnored,
    ...queueFigures(queueCounters),
    exits,
  };
}

/** The table that the user sees at the end. */
export function figureTable(figures: Figures): string {
  return table([
    ["written by the guest", String(figures.outputBytes)],
    ["read by the guest", String(figures.inputBytes)],
    ["control messages", String(figures.controlMessages)],
    ["kicks", String(figures.kicks)],
    ["interrupts", String(figures.interrupts)],
    ["descriptors", String(figures.descriptors)],
    ["exits to the host", String(figures.exits)],
  ], { "written by the guest": "bytes", "read by the guest": "bytes" });
}

/** What a server shows of what it does. */
import * as blk from "@virtio/blk";
import * as consoles from "@virtio/console";
import * as core from "@virtio/device";
import * as net from "@virtio/net";
import type { VhostUserStatus } from "@virtio/vhost-user";
import { mebibytes } from "../shared/figures.ts";

/** What a device did since it was made. */
export interface Figures {
  /** Requests; for a network card frames, both ways. */
  readonly requests: number;
  /** Bytes that the guest got. */
  readonly bytesRead: number;
  /** Bytes that came from the guest. */
  readonly bytesWritten: number;
  /** Milliseconds that its requests took, all added up; null where that is not measured. */
  readonly time: number | null;
  /** What else it counts. */
  readonly more?: Readonly<Record<string, number>>;
}

/** What happened in a time, per second. */
export interface Rates {
  readonly requests: number;
  readonly bytesRead: number;
  readonly bytesWritten: number;
  /** Microseconds that a request took on average; null if there was none, or it is not measured. */
  readonly latency: number | null;
}

/** Rates between two moments. */
export function ratesBetween(before: Figures, after: Figures, milliseconds: number): Rates {
  const perSecond = (of: (one: Figures) => number): number =>
    (of(after) - of(before)) / (milliseconds / 1000);
  const requests = after.requests - before.requests;
  return {
    requests: perSecond((one) => one.requests),
    bytesRead: perSecond((one) => one.bytesRead),
    bytesWritten: perSecond((one) => one.bytesWritten),
    latency: after.time === null || before.time === null || requests <= 0
      ? null
      : (after.time - before.time) / requests * 1000,
  };
}

const MODULES: Readonly<Record<number, Readonly<Record<string, unknown>>>> = {
  [core.DeviceId.block]: blk,
  [core.DeviceId.net]: net,
  [core.DeviceId.console]: consoles,
};

/** Names of features, as the standard has them but for what they begin with. */
export function featureNames(type: number, features: bigint): string[] {
  const names: string[] = [];
  for (const module of [MODULES[type] ?? {}, core]) {
    for (const [name, bit] of Object.entries(module)) {
      const short = /^VIRTIO_(?:[A-Z]+_)?F_(\w+)$/.exec(name)?.[1];
      if (short !== undefined && typeof bit === "bigint" && (features & bit) !== 0n) {
        names.push(short);
      }
    }
  }
  return names;
}

/** One line for people. */
export function statusLine(type: number, status: VhostUserStatus, rates: Rates): string {
  if (status.state === "waiting") return "waits for a virtual machine";
  const live = status.rings.filter(({ live }) => live).length;
  const names = featureNames(type, status.features);
  const ring = names.includes("RING_PACKED") ? "packed" : "split";
  const latency = rates.latency === null ? "" : `, ${rates.latency.toFixed(1)} us each`;
  const who = status.frontEnd === null
    ? ""
    : ` to ${status.frontEnd.name} (${status.frontEnd.pid})`;
  return `${status.state}${who}: ${live} ${ring} ${live === 1 ? "ring" : "rings"}, ` +
    `${mebibytes(status.memory)} of memory, ${Math.round(rates.requests)} requests/s, ` +
    `${mebibytes(rates.bytesRead)}/s read, ${mebibytes(rates.bytesWritten)}/s written${latency}`;
}

/** What crosses between a server and the workers of its device. All plain data, but for shared memory. */
import type { FeatureRequirement, FeatureSet } from "@virtio/device";
import type { SharedMemory } from "@virtio/memory";
import type { DirtyLogPlace } from "./dirty_log.ts";
import type { QueueStart } from "./device_runner.ts";

/** What a device is. */
export interface WorkerDescription {
  /** Device type. */
  readonly type: number;
  /** Feature bits of the device type. */
  readonly features: FeatureSet;
  /** Pairs of features. */
  readonly requires: readonly FeatureRequirement[];
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** The configuration space. */
  readonly config: Uint8Array;
}

/** What a worker is asked to do; each is answered. */
export type WorkerCall =
  | { readonly what: "accepts"; readonly features: FeatureSet }
  | { readonly what: "start"; readonly memory: SharedMemory; readonly features: FeatureSet }
  | { readonly what: "move"; readonly memory: SharedMemory }
  | { readonly what: "log"; readonly place: DirtyLogPlace | null }
  | { readonly what: "setCall"; readonly index: number; readonly descriptor: number }
  | { readonly what: "startQueue"; readonly index: number; readonly start: QueueStart }
  | { readonly what: "stopQueue"; readonly index: number }
  | { readonly what: "kick"; readonly index: number }
  | {
    readonly what: "writeConfig";
    readonly offset: number;
    readonly size: 1 | 2 | 4;
    readonly value: number;
  }
  | { readonly what: "counters" }
  | { readonly what: "stop" }
  | { readonly what: "close" };

/** Words that both sides see: how many calls were sent, and the number of the worker's thread. */
export const WorkerWord = { sent: 0, thread: 1, count: 2 } as const;

/** To a worker. */
export type ToVhostWorker =
  | {
    readonly vhost: "open";
    readonly data: unknown;
    /** Which worker of the device. */
    readonly index: number;
    /** See `WorkerWord`: it looks at the calls that were sent before it sleeps, and tells which thread it is. */
    readonly words: SharedArrayBuffer;
    /** Event file that ends its sleep. */
    readonly wake: number;
    /** Processors that it may run on; all unless given. */
    readonly pin: readonly number[] | null;
    /** Microseconds that it looks again and again before it sleeps. */
    readonly spin: number;
  }
  | { readonly vhost: "call"; readonly id: number; readonly call: WorkerCall };

/** From a worker. */
export type FromVhostWorker =
  | { readonly vhost: "ready"; readonly device: WorkerDescription }
  | { readonly vhost: "refused"; readonly error: string }
  | { readonly vhost: "answer"; readonly id: number; readonly value: unknown }
  | { readonly vhost: "error"; readonly id: number; readonly error: string }
  | { readonly vhost: "interrupt"; readonly index: number }
  | { readonly vhost: "config"; readonly bytes: Uint8Array }
  | { readonly vhost: "failed"; readonly error: string };

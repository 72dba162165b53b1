/** What crosses by `postMessage`: what holds shared memory, which calls cannot carry, and what comes unasked. */
import type { SharedMemory } from "@virtio/memory";
import type { ConfigRange, FeatureRequirement, SharedMemoryRegion } from "@virtio/device";
import type { QueueState } from "@virtio/vring";
import type { SentError } from "./call.ts";

/** What a device is, as its worker tells it. All plain data, but for shared memory. */
export interface DeviceDescription {
  /** Device type. */
  readonly type: number;
  /** Feature bits of the device type. */
  readonly features: bigint;
  /** Pairs of features. */
  readonly requires: readonly FeatureRequirement[];
  /** Largest size of each queue. */
  readonly queueSizes: readonly number[];
  /** The configuration space. */
  readonly config: Uint8Array;
  /** What of it the driver may write at any time. */
  readonly anytime: ConfigRange | null;
  /** Memory that it shows beside its queues, shared between the sides. */
  readonly sharedMemory: readonly SharedMemoryRegion[];
  /** See `ServeOptions.repeatable`. */
  readonly repeatable: boolean;
}

/** To the worker. */
export type ToWorker =
  /** The first message. */
  | {
    readonly virtio: "open";
    readonly buffer: SharedArrayBuffer;
    /** What it rings. */
    readonly bell: SharedArrayBuffer;
    /** Where queues write down what they publish; null if nobody will want to know. */
    readonly journals: SharedArrayBuffer | null;
    readonly data: unknown;
  }
  /** Guest memory, before it is named in a call. */
  | {
    readonly virtio: "memory";
    readonly id: number;
    readonly memory: SharedMemory;
    /** Where it marks what the device writes; null if nobody wants to know. */
    readonly dirty: SharedArrayBuffer | null;
  };

/** From the worker. */
export type FromWorker =
  /** The device was made. */
  | { readonly virtio: "ready"; readonly device: DeviceDescription }
  /** It could not be made. */
  | { readonly virtio: "refused"; readonly error: SentError }
  /** A queue that was being stopped has drained. */
  | {
    readonly virtio: "drained";
    readonly life: number;
    readonly queue: number;
    readonly state: QueueState | null;
    readonly error: SentError | null;
  }
  /** What a reset left behind has settled. */
  | { readonly virtio: "stopped"; readonly life: number };

/** What a worker has to say, when it is asked after `Word.news` changed. */
export interface News {
  /** The configuration, if the device changed it. */
  readonly config: Uint8Array | null;
  /** The device asks for a reset, in its life number `life`. */
  readonly failure: { readonly life: number; readonly error: SentError } | null;
}

/** One end of a worker's channel: a `Worker`, the global scope of one, a `MessagePort`, or Node's `parentPort`. */
export interface Port {
  /** Sends. */
  postMessage(message: unknown): void;
  /** Listens. Node's ports have `on` instead. */
  addEventListener?(type: string, listener: (event: { data?: unknown }) => void): void;
  /** Listens, in Node. */
  on?(type: string, listener: (data: unknown) => void): unknown;
}

/** Listens to a port of either kind. */
export function listen(port: Port, heard: (message: unknown) => void): void {
  if (port.addEventListener !== undefined) {
    port.addEventListener("message", (event) => heard(event.data));
  } else if (port.on !== undefined) {
    port.on("message", heard);
  } else {
    throw new TypeError("A port must have addEventListener, or on as in Node");
  }
}

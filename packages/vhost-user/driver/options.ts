/** Options of a front end. */
import { checkInteger, DeviceId } from "@virtio/device";
import type { FrontEndMemory } from "./memory.ts";

/** What to do when the back end goes away. */
export interface ReconnectOptions {
  /** Attempts before the device counts as broken; 100 unless given. */
  readonly attempts?: number;
  /** Milliseconds between two; 100 unless given. */
  readonly delay?: number;
  /**
   * Whether the back end is known to use buffers in the order in which they were made available; no unless given. Only matters
   * where it writes down nothing of what is in flight (protocol feature INFLIGHT_SHMFD): split rings with buffers outstanding
   * go on then, from the used index. Wrongly said, requests are lost and others done twice.
   */
  readonly inOrder?: boolean;
}

/** Options of `VhostUserTransport` and `RemoteDevice`. */
export interface FrontEndOptions {
  /** Device type (virtio 1.4, 5): the protocol does not tell it. */
  readonly deviceType: number;
  /** Guest memory. */
  readonly memory: FrontEndMemory;
  /** Queues of the device, where the back end does not tell their number (protocol feature MQ). */
  readonly queueCount?: number;
  /** Largest size of a queue, a power of two: the protocol does not tell it; 256 unless given. */
  readonly queueSize?: number;
  /** Bytes of the configuration space; the most that the back end shows, unless given. */
  readonly configSize?: number;
  /**
   * The configuration space where the back end shows none, as those of network devices mostly do: what is in it is the front
   * end's to say then.
   */
  readonly config?: Uint8Array;
  /** Protocol features that may be agreed on; all that are built unless given. */
  readonly protocolFeatures?: bigint;
  /** Milliseconds that the back end may take for an answer; 10,000 unless given. */
  readonly timeout?: number;
  /**
   * Whether to connect again when the back end goes away, and go on: rings, memory and requests in flight are given to the new
   * one. Not unless given: the device asks for a reset then. Needs a path.
   */
  readonly reconnect?: ReconnectOptions | boolean;
  /** Told what went wrong, also if it could be helped. */
  readonly onError?: (error: Error) => void;
}

/** Options, checked. */
export interface CheckedOptions {
  readonly deviceType: number;
  readonly memory: FrontEndMemory;
  readonly queueCount: number | null;
  readonly queueSize: number;
  readonly configSize: number | undefined;
  readonly config: Uint8Array;
  readonly protocolFeatures: bigint;
  readonly timeout: number;
  readonly reconnect: Required<ReconnectOptions> | null;
  readonly onError: (error: Error) => void;
}

/** Queues that devices have at least. */
const FEWEST_QUEUES: ReadonlyMap<number, number> = new Map([[DeviceId.net, 2], [
  DeviceId.console,
  2,
]]);

/**
 * Checks options.
 *
 * @throws {RangeError} If one is out of range.
 */
export function checkOptions(options: FrontEndOptions): CheckedOptions {
  const { reconnect } = options;
  const again = reconnect === true ? {} : reconnect === false ? undefined : reconnect;
  const queueSize = checkInteger("queueSize", options.queueSize, 1, 32768, 256);
  if ((queueSize & (queueSize - 1)) !== 0) {
    throw new RangeError(`queueSize must be a power of two: it is ${queueSize}`);
  }
  return {
    deviceType: checkInteger("deviceType", options.deviceType, 1, 0xffff_ffff),
    memory: options.memory,
    queueCount: options.queueCount === undefined
      ? null
      : checkInteger("queueCount", options.queueCount, 1, 256),
    queueSize,
    configSize: options.configSize === undefined
      ? undefined
      : checkInteger("configSize", options.configSize, 0, 256),
    config: options.config?.slice() ?? new Uint8Array(0),
    protocolFeatures: options.protocolFeatures ?? ~0n,
    timeout: checkInteger("timeout", options.timeout, 1, 2 ** 31 - 1, 10_000),
    reconnect: again === undefined ? null : {
      attempts: checkInteger("reconnect.attempts", again.attempts, 1, Infinity, 100),
      inOrder: again.inOrder ?? false,
      delay: checkInteger("reconnect.delay", again.delay, 0, 2 ** 31 - 1, 100),
    },
    onError: options.onError ?? (() => {}),
  };
}

/**
 * How many queues a device has: as given, or as the back end says, which for network devices means pairs in one half of the
 * world. One more may be there then.
 */
export function countQueues(options: CheckedOptions, told: number | null): number {
  const fewest = FEWEST_QUEUES.get(options.deviceType) ?? 1;
  if (options.queueCount !== null) return options.queueCount;
  if (told === null) return fewest;
  return options.deviceType === DeviceId.net ? Math.min(256, 2 * told + 1) : Math.max(fewest, told);
}

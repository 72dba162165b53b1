import type { WorkerPort } from "./device_worker.ts";

/** Options of a `WorkerDevice`. */
export interface WorkerDeviceOptions {
  /** For the function that makes the device in the worker; anything that `postMessage` can carry. */
  readonly data?: unknown;
  /**
   * Number of workers; 1 unless given. Each makes a device of its own from the same data, and the queues are dealt out to
   * them: for devices whose queues are independent of each other, such as a block device with several.
   */
  readonly workers?: number;
  /** Milliseconds to wait for a worker's answer before it counts as dead; 10,000 unless given. */
  readonly patience?: number;
  /**
   * What is to happen when a worker dies. "reset", unless given: the device asks its driver for a reset. "replace": a new
   * worker of the same module takes over while the guest runs. What was not yet told to the driver is handled again, and of
   * the device's state the new one has what was saved when the device was started or its configuration written last. So the
   * module must say that its device is `repeatable`; chains are completed in the order in which they came, so that it is
   * known what is to be handled again. Where it cannot be done the device asks for a reset, and the error says why.
   */
  readonly onDeath?: "reset" | "replace";
  /** Microseconds that `wait` looks again and again before it sleeps; adapts, this at most. 50 unless given. */
  readonly spin?: number;
  /** Told when a worker dies, and what a device reports that no driver listens to. */
  readonly onError?: (error: Error) => void;
  /** Makes a worker; the platform's `Worker` unless given. */
  readonly spawn?: (source: URL | string) => WorkerPort;
}

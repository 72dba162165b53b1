/**
 * A device at rest: suspended by its driver (virtio 1.4, 3.4) or paused by its embedder, which the driver does not see. Either
 * way its queues are parked, and a change of its configuration is told when it goes on.
 */
import type { ConfigSpace } from "./config_space.ts";
import type { DeviceQueues } from "./device_queues.ts";

/** What a rest needs of its device. */
export interface RestHost {
  /** Tells the driver that the configuration changed. */
  readonly configChanged: () => void;
  /** Looks at all queues: kicks may have come meanwhile. */
  readonly notifyAll: () => void;
  /** Asks for a reset. */
  readonly fail: (error: unknown) => void;
}

/** Made by `DeviceState`. */
export class Rest {
  /** Whether the embedder paused the device. */
  paused = false;
  /** Whether the device does not take anything more, and is not suspended yet. */
  suspending = false;
  /** Whether the configuration changed and the driver was not told yet. */
  configChanged = false;
  readonly #queues: DeviceQueues;
  readonly #config: ConfigSpace;
  readonly #host: RestHost;

  constructor(queues: DeviceQueues, config: ConfigSpace, host: RestHost) {
    this.#queues = queues;
    this.#config = config;
    this.#host = host;
  }

  /** Whether the device is not to take anything, but for its status. */
  get any(): boolean {
    return this.paused || this.suspending;
  }

  /** 3.4: stop consuming, wait for what is being processed, notify; then `suspended`, and the configuration stays. */
  suspend(suspended: () => void): void {
    this.suspending = true;
    this.#queues.parkAll(() => {
      this.suspending = false;
      suspended();
      this.#config.hold();
    });
  }

  /** The driver ended its suspend. */
  resume(): void {
    if (this.#config.release()) this.configChanged = true;
    if (!this.paused) this.wake();
  }

  /** Pauses a device that is live. */
  pause(): void {
    this.paused = true;
    this.#queues.parkAll(() => {});
  }

  /** The configuration changed. Whoever suspended the device is told when it runs again (3.4.2). */
  configUpdated(suspended: boolean): void {
    if (suspended || this.any) this.configChanged = true;
    else this.#host.configChanged();
  }

  /** Goes on with the queues, and makes up for what was not told meanwhile. */
  wake(): void {
    try {
      this.#queues.unpark();
      if (this.configChanged) {
        this.configChanged = false;
        this.#host.configChanged();
      }
      this.#host.notifyAll();
    } catch (error) {
      this.#host.fail(error);
    }
  }

  /** The device was stopped for good: nobody rests. */
  end(): void {
    this.paused = false;
    this.suspending = false;
  }

  /** The device was reset: what the driver was not told is of no interest any more. */
  forget(): void {
    this.configChanged = false;
    this.#config.release();
  }
}

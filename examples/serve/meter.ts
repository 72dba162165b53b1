/** How long requests take: looks at a device from outside, where it is kicked and where its back end tells that it is done. */
import type { Device, QueueDevice } from "@virtio/device";

/** Counts the time that the requests of a device have spent in it. */
export class Meter {
  readonly #device: QueueDevice;
  /** Milliseconds of all requests together. */
  #time = 0;
  #inFlight = 0;
  #since = performance.now();

  readonly #looked: (time: number) => void;

  /**
   * @param device Kicked through this meter from now on.
   * @param looked Called whenever the device has done something, with `time`.
   */
  constructor(device: QueueDevice, looked: (time: number) => void = () => {}) {
    this.#device = device;
    this.#looked = looked;
    const notify = device.notify.bind(device);
    device.notify = (index) => this.#measure(() => notify(index));
    const whole: Device = device;
    const pollSources = whole.pollSources?.bind(device);
    if (pollSources !== undefined) {
      whole.pollSources = () =>
        pollSources().map((source) => ({
          descriptor: source.descriptor,
          ready: () => this.#measure(() => source.ready()),
        }));
    }
  }

  #measure<T>(action: () => T): T {
    const begin = performance.now();
    this.#time += this.#inFlight * (begin - this.#since);
    const before = this.#chains();
    try {
      return action();
    } finally {
      this.#since = performance.now();
      let inFlight = 0;
      for (const { queue } of this.#device.queueHooks) inFlight += queue?.inFlight ?? 0;
      // What came and went was there for half of the time on average; what stays, or went now, for all of it.
      const passed = Math.max(0, this.#chains() - before - inFlight);
      this.#time += (this.#since - begin) * (passed / 2 + Math.max(inFlight, this.#inFlight));
      this.#inFlight = inFlight;
      this.#looked(this.#time);
    }
  }

  #chains(): number {
    let chains = 0;
    for (const { counters } of this.#device.queueHooks) chains += counters.chains;
    return chains;
  }

  /** Milliseconds that requests spent in the device so far, all of them added up. */
  get time(): number {
    return this.#time;
  }
}

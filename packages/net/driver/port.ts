import type { Frame } from "../frame.ts";
import { pass } from "../pass.ts";
import type { FrameSink, NetBackend } from "../sink.ts";
import type { NetDriver } from "./net_driver.ts";

/** A driver as one end of a cable: the counterpart of a network device's back end. See `NetDriver.port`. */
export class DriverPort implements NetBackend {
  /** Called when the link went up or down. */
  onLinkChange: (() => void) | null = null;
  /** Frames that were delivered while there was no room, or that cannot be sent. */
  dropped = 0;
  readonly #driver: NetDriver;
  #peer: FrameSink | null = null;

  /** Takes the driver's `onFrame` and `onLinkChange`. */
  constructor(driver: NetDriver) {
    this.#driver = driver;
    driver.onFrame = (frame) => {
      if (this.#peer !== null) pass(frame, this.#peer);
    };
    driver.onLinkChange = () => this.onLinkChange?.();
  }

  /** Which unfinished frames the device takes. */
  get offloads(): number {
    return this.#driver.offloads;
  }

  /** Whether the driver's link is up. */
  get linkUp(): boolean {
    return this.#driver.broken === null && this.#driver.linkUp;
  }

  /** Largest MTU that the device carries. */
  get maxMtu(): number {
    return this.#driver.info.mtu ?? 65_535;
  }

  /** Frames that the driver receives go to `peer` from now on. */
  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  /** Sends a frame; drops it if there is no room, or it cannot be sent. */
  deliver(frame: Frame): void {
    let sent = false;
    try {
      sent = this.#driver.send(frame);
    } catch {
      // It is too long, or the device is gone: a cable does not say so.
    }
    if (!sent) this.dropped++;
  }
}

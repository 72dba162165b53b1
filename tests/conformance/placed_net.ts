/** A network device in some place, a driver that sends what a test wants, and what the device's back end does there. */
import type { Device } from "@virtio/device";
import {
  type HeaderFields,
  RawNetDriver,
  type RawNetOptions,
  turns,
} from "../../packages/net/testing.ts";
import type { NetData } from "./placed_devices.ts";
import type { Place, Placed } from "./places.ts";

/** A frame that the driver sent, as the back end has it. */
export interface SentFrame extends Required<HeaderFields> {
  readonly bytes: Uint8Array;
}

/** A network device, and both ends of it. */
export class PlacedNet {
  readonly device: Device;
  /** See `Placed.run`. */
  readonly run: Placed<"net">["run"];
  readonly driver: RawNetDriver;
  readonly #placed: Placed<"net">;

  private constructor(placed: Placed<"net">, driver: RawNetDriver) {
    this.#placed = placed;
    this.device = placed.device;
    this.run = placed.run;
    this.driver = driver;
  }

  static async open(
    place: Place,
    data: NetData = {},
    options: RawNetOptions = {},
  ): Promise<PlacedNet> {
    const placed = await place.open("net", data);
    return new PlacedNet(placed, await RawNetDriver.open(placed.device, options));
  }

  /** The back end gives the driver a frame. */
  give(bytes: Uint8Array, header: HeaderFields = {}): void {
    this.run(({ backend }, bytes, header) => backend.give(bytes, header), bytes, header);
  }

  /** What the driver sent since this was asked last. */
  sent(): SentFrame[] {
    return this.run(({ backend }) =>
      backend.sent.splice(0).map((frame) => ({
        bytes: frame.bytes,
        flags: frame.flags,
        gsoType: frame.gsoType,
        gsoSize: frame.gsoSize,
        hdrLen: frame.headerLength,
        csumStart: frame.csumStart,
        csumOffset: frame.csumOffset,
        numBuffers: 1,
      }))
    );
  }

  /** A turn of the event loop: what the device did is with the driver. */
  async turn(): Promise<void> {
    this.#placed.settle();
    await turns(1);
  }
}

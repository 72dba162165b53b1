/** The bench for a device core, around a device that is in some place. */
import type { Device } from "@virtio/device";
import { Rig, type RigOptions } from "../../packages/device/testing.ts";
import type { TestData } from "./placed_devices.ts";
import type { Place, Placed } from "./places.ts";

/** A `Rig` whose device may be elsewhere. */
export class PlacedRig extends Rig<Device> {
  /** See `Placed.run`. */
  readonly run: Placed<"test">["run"];
  /** See `Placed.settle`. */
  readonly settle: () => void;
  /** See `Placed.turns`. */
  readonly turns: Placed<"test">["turns"];

  constructor(placed: Placed<"test">, options: Omit<RigOptions<Device>, "device"> = {}) {
    super({ ...options, device: placed.device });
    this.run = placed.run;
    this.settle = placed.settle;
    this.turns = placed.turns;
  }

  /** Around a new device there. */
  static async open(
    place: Place,
    data: TestData = {},
    options: Omit<RigOptions<Device>, "device"> = {},
  ): Promise<PlacedRig> {
    return new PlacedRig(await place.open("test", data), options);
  }

  /** See `TestDevice`, as for the following. */
  get handled(): { queue: number; bytes: number[] }[] {
    return this.run(({ device }) => device.handled);
  }

  get starts(): number {
    return this.run(({ device }) => device.starts);
  }

  /** How many chains are held. */
  get held(): number {
    return this.run(({ device }) => device.held.length);
  }

  hold(): void {
    this.run(({ device }) => device.hold());
  }

  /** Uses the held chains, in this order if one is given. */
  release(order?: number[]): void {
    this.run(
      ({ device }, order) => device.release(order === null ? undefined : () => order),
      order ?? null,
    );
  }

  /** Uses one of the held chains. */
  finish(at = 0): void {
    this.run(({ device }, at) => {
      const [{ chain, queue }] = device.held.splice(at, 1) as [typeof device.held[0]];
      device.finish(queue, chain);
    }, at);
  }

  /** Has the device change its configuration. */
  setConfig(offset: number, value: number): void {
    this.run(
      ({ device }, offset, value) => device.config.update((view) => view.setUint8(offset, value)),
      offset,
      value,
    );
  }

  /** The device says that something went wrong. */
  break(message: string): void {
    this.run(({ device }, message) => device.break(new Error(message)), message);
  }
}

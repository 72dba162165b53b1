/** A device in some place, on a split ring that is written by hand. */
import type { QueueConfig } from "@virtio/vring";
import type { RawSplitDriver } from "../../packages/vring/testing/raw_driver.ts";
import { PlacedRig } from "./placed_rig.ts";
import type { Place, Placed } from "./places.ts";

/** Where the buffers of `SplitBench.batch` are. */
export const TO = 0x6_0000;

/** A device on a split ring of 8 that is written by hand. */
export class SplitBench extends PlacedRig {
  readonly raw: RawSplitDriver;
  readonly config: QueueConfig;

  constructor(placed: Placed<"test">, features: bigint, size: number) {
    super(placed);
    this.raw = this.startRaw(features, size) as RawSplitDriver;
    this.config = this.raw.config;
    this.interrupts.length = 0;
  }

  static async make(place: Place, features = 0n, size = 8): Promise<SplitBench> {
    return new SplitBench(await place.open("test", {}), features, size);
  }

  /** used_event, in the driver area. */
  set usedEvent(value: number) {
    this.memory.writeU16(this.config.driverArea + 4 + 2 * this.config.size, value & 0xffff);
  }

  set availFlags(value: number) {
    this.memory.writeU16(this.config.driverArea, value);
  }

  get usedFlags(): number {
    return this.memory.readU16(this.config.deviceArea);
  }

  get usedIdx(): number {
    return this.memory.readU16(this.config.deviceArea + 2);
  }

  /** avail_event, in the device area. */
  get availEvent(): number {
    return this.memory.readU16(this.config.deviceArea + 4 + 8 * this.config.size);
  }

  /** Sends `count` one-byte buffers and kicks. @returns Used buffer notifications that came of it. */
  batch(count: number): number {
    this.interrupts.length = 0;
    for (let i = 0; i < count; i++) this.raw.send([{ address: TO, length: 1, write: true }]);
    this.state.notify(0);
    this.raw.takeUsed();
    return this.interrupts.filter((what) => what === 0).length;
  }
}

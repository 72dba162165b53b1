/** Register interfaces of transports, around a device that is in some place. */
import type { Device } from "@virtio/device";
import { MmioBench, PciBench } from "../../packages/transport/testing/bench.ts";
import type { EchoOptions } from "../../packages/transport/testing/echo_device.ts";
import type { Place, Placed } from "./places.ts";

/** What tests have the device do: see `EchoDevice`. */
class EchoAway {
  /** Turns of the event loop, there and here. */
  readonly turns: Placed<"echo">["turns"];
  readonly #run: Placed<"echo">["run"];

  constructor({ run, turns }: Placed<"echo">) {
    this.#run = run;
    this.turns = turns;
  }

  get handled(): number[] {
    return this.#run(({ device }) => device.handled);
  }

  get configWrites(): [number, number[]][] {
    return this.#run(({ device }) => device.configWrites);
  }

  hold(): void {
    this.#run(({ device }) => void (device.hold = true));
  }

  release(): void {
    this.#run(({ device }) => device.release());
  }

  /** Adds 1 to a byte of its configuration, so many times. */
  change(times = 1, offset = 0): void {
    this.#run(
      ({ device }, times, offset) => {
        for (let i = 0; i < times; i++) {
          device.config.update((view) => view.setUint8(offset, view.getUint8(offset) + 1));
        }
      },
      times,
      offset,
    );
  }

  /** Makes the next reset wait until `finishStop`. */
  delayStop(): void {
    this.#run((inside) => void (inside.finish = inside.device.delayStop()));
  }

  finishStop(): void {
    this.#run((inside) => inside.finish());
  }
}

type MmioOptions = ConstructorParameters<typeof MmioBench<Device>>[0];
type PciOptions = ConstructorParameters<typeof PciBench<Device>>[0];

/** A device in some place behind MMIO. */
export class PlacedMmio extends MmioBench<Device> {
  /** What it does there. */
  readonly echo: EchoAway;

  private constructor(placed: Placed<"echo">, options: MmioOptions) {
    super({ ...options, device: placed.device });
    this.echo = new EchoAway(placed);
  }

  static async open(place: Place, options: EchoOptions & MmioOptions = {}): Promise<PlacedMmio> {
    return new PlacedMmio(await place.open("echo", options), options);
  }
}

/** A device in some place behind PCI. */
export class PlacedPci extends PciBench<Device> {
  /** What it does there. */
  readonly echo: EchoAway;

  private constructor(placed: Placed<"echo">, options: PciOptions) {
    super({ ...options, device: placed.device });
    this.echo = new EchoAway(placed);
  }

  static async open(place: Place, options: EchoOptions & PciOptions = {}): Promise<PlacedPci> {
    return new PlacedPci(await place.open("echo", options), options);
  }
}

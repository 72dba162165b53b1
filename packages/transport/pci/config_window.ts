import { readBytes, type Width, writeBytes } from "../width.ts";
import type { PciConfigSpace } from "./config_space.ts";
import type { PciFunction } from "./function.ts";
import { PciCap } from "./registers.ts";

/**
 * The PCI configuration access capability (virtio 1.4, 4.1.4.9): a window into the BARs, through configuration space. It works
 * whether or not the BARs decode: that is what it is for.
 */
export class ConfigWindow {
  readonly #config: PciConfigSpace;
  readonly #cap: number;
  readonly #data: number;
  readonly #bars: Pick<PciFunction, "barRead" | "barWrite">;

  /** @param cap Offset of the capability. */
  constructor(
    config: PciConfigSpace,
    cap: number,
    bars: Pick<PciFunction, "barRead" | "barWrite">,
  ) {
    this.#config = config;
    this.#cap = cap;
    this.#data = cap + PciCap.pciCfgData;
    this.#bars = bars;
  }

  /** Before a read of configuration space: one that touches the data is one in the BAR. */
  beforeRead(offset: number, size: Width): void {
    const length = this.#touches(offset, size) ? this.#length() : 0;
    if (length === 0) return;
    const value = this.#bars.barRead(this.#bar, this.#offset, length);
    writeBytes(this.#config.bytes, this.#data, length, value);
  }

  /** After a write to configuration space: one that touched the data is one in the BAR. */
  afterWrite(offset: number, size: Width): void {
    const length = this.#touches(offset, size) ? this.#length() : 0;
    if (length === 0) return;
    const value = readBytes(this.#config.bytes, this.#data, length);
    this.#bars.barWrite(this.#bar, this.#offset, length, value);
  }

  get #bar(): number {
    return this.#config.view.getUint8(this.#cap + PciCap.bar);
  }

  get #offset(): number {
    return this.#config.view.getUint32(this.#cap + PciCap.offset, true);
  }

  #touches(offset: number, size: Width): boolean {
    return offset < this.#data + 4 && offset + size > this.#data;
  }

  // cap.length, or 0 if the driver has not set up an access that it may do (4.1.4.9.2).
  #length(): Width | 0 {
    const length = this.#config.view.getUint32(this.#cap + PciCap.length, true);
    if (length !== 1 && length !== 2 && length !== 4) return 0;
    return this.#offset % length === 0 ? length : 0;
  }
}

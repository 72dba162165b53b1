import { ProbeError } from "../probe_error.ts";
import type { Width } from "../width.ts";
import type { PciAccess } from "./function.ts";
import { listCapabilities } from "./probe.ts";
import * as reg from "./registers.ts";

/** A range of a BAR that a virtio structure capability names. */
interface Range {
  readonly bar: number;
  readonly offset: number;
  readonly end: number;
}

/**
 * Reaches the virtio structures through configuration space alone (virtio 1.4, 4.1.4.9), for a driver whose BARs are not
 * mapped yet or cannot be. Slow: each access takes several writes. Not for the MSI-X table, which no virtio capability
 * names, so a driver on it uses INTx.
 */
export class PciConfigWindow implements PciAccess {
  readonly #access: Pick<PciAccess, "configRead" | "configWrite">;
  readonly #cap: number;
  readonly #ranges: readonly Range[];

  /** @throws {ProbeError} If the device has no PCI configuration access capability. */
  constructor(access: Pick<PciAccess, "configRead" | "configWrite">) {
    this.#access = access;
    let window: number | null = null;
    const ranges: Range[] = [];
    for (const { id, offset } of listCapabilities(access)) {
      const size = access.configRead(offset + reg.PciCap.len, 1);
      if (id !== reg.PCI_CAP_ID_VNDR || size < reg.PciCap.size) continue;
      const type = access.configRead(offset + reg.PciCap.cfgType, 1);
      if (type === reg.VIRTIO_PCI_CAP_PCI_CFG) {
        window ??= offset;
      } else if (
        type === reg.VIRTIO_PCI_CAP_COMMON_CFG || type === reg.VIRTIO_PCI_CAP_NOTIFY_CFG ||
        type === reg.VIRTIO_PCI_CAP_ISR_CFG || type === reg.VIRTIO_PCI_CAP_DEVICE_CFG ||
        type === reg.VIRTIO_PCI_CAP_SHARED_MEMORY_CFG
      ) {
        const start = access.configRead(offset + reg.PciCap.offset, 4) >>> 0;
        ranges.push({
          bar: access.configRead(offset + reg.PciCap.bar, 1),
          offset: start,
          end: start + (access.configRead(offset + reg.PciCap.length, 4) >>> 0),
        });
      }
    }
    if (window === null) {
      throw new ProbeError("4.1.4.9", "The function has no PCI configuration access capability");
    }
    this.#cap = window;
    this.#ranges = ranges;
  }

  /** Reads configuration space. */
  configRead(offset: number, size: Width): number {
    return this.#access.configRead(offset, size);
  }

  /** Writes configuration space. */
  configWrite(offset: number, size: Width, value: number): void {
    this.#access.configWrite(offset, size, value);
  }

  /**
   * Reads in a BAR through the window.
   *
   * @throws {RangeError} If the access is not aligned, or not within a virtio structure (4.1.4.9.2).
   */
  barRead(index: number, offset: number, size: Width): number {
    this.#point(index, offset, size);
    return this.#access.configRead(this.#cap + reg.PciCap.pciCfgData, size);
  }

  /**
   * Writes in a BAR through the window.
   *
   * @throws {RangeError} If the access is not aligned, or not within a virtio structure (4.1.4.9.2).
   */
  barWrite(index: number, offset: number, size: Width, value: number): void {
    this.#point(index, offset, size);
    this.#access.configWrite(this.#cap + reg.PciCap.pciCfgData, size, value);
  }

  #point(index: number, offset: number, size: Width): void {
    const inside = this.#ranges.some((range) =>
      range.bar === index && offset >= range.offset && offset + size <= range.end
    );
    if (offset % size !== 0 || !inside) {
      throw new RangeError(
        `Offset ${offset} of BAR ${index} is not an aligned place within a virtio structure (virtio 1.4, 4.1.4.9.2)`,
      );
    }
    this.#access.configWrite(this.#cap + reg.PciCap.bar, 1, index);
    this.#access.configWrite(this.#cap + reg.PciCap.length, 4, size);
    this.#access.configWrite(this.#cap + reg.PciCap.offset, 4, offset);
  }
}

import { readBytes, type Width } from "../width.ts";
import type { PciBar } from "./function.ts";
import type { PciIdentity } from "./identity.ts";
import * as reg from "./registers.ts";

const FIRST_CAPABILITY = 0x40;

/**
 * The registers of a type 0 configuration space: bytes, and for each byte which bits the driver can write. What a write
 * sets off is `PciTransport`'s business.
 */
export class PciConfigSpace {
  /** The registers. */
  readonly bytes: Uint8Array = new Uint8Array(reg.PCI_CONFIG_SIZE);
  /** The same bytes. */
  readonly view: DataView = new DataView(this.bytes.buffer);
  readonly #writable = new Uint8Array(reg.PCI_CONFIG_SIZE);
  readonly #mask = new DataView(this.#writable.buffer);
  readonly #bars: readonly (PciBar | null)[];
  #end = FIRST_CAPABILITY;
  #link: number = reg.PCI_CAPABILITY_LIST;

  /** @param prefetchable Indexes of memory BARs whose reads have no side effects. */
  constructor(
    identity: PciIdentity,
    bars: readonly (PciBar | null)[],
    prefetchable: readonly number[],
  ) {
    this.#bars = bars;
    const view = this.view;
    view.setUint16(reg.PCI_VENDOR_ID, reg.PCI_VENDOR_ID_VIRTIO, true);
    view.setUint16(reg.PCI_DEVICE_ID, identity.deviceId, true);
    view.setUint16(reg.PCI_STATUS, reg.PCI_STATUS_CAP_LIST, true);
    // The class code is 24 bits beside the revision.
    view.setUint32(reg.PCI_REVISION_ID, identity.classCode << 8 | identity.revision, true);
    view.setUint16(reg.PCI_SUBSYSTEM_VENDOR_ID, identity.subsystemVendorId, true);
    view.setUint16(reg.PCI_SUBSYSTEM_ID, identity.subsystemId, true);
    view.setUint8(reg.PCI_INTERRUPT_PIN, 1);
    this.#writable[reg.PCI_INTERRUPT_LINE] = 0xff;
    let command = reg.PCI_COMMAND_MASTER | reg.PCI_COMMAND_INTX_DISABLE;
    bars.forEach((bar, index) => {
      if (bar === null) return;
      command |= bar.kind === "io" ? reg.PCI_COMMAND_IO : reg.PCI_COMMAND_MEMORY;
      const offset = reg.PCI_BASE_ADDRESS_0 + 4 * index;
      view.setUint32(offset, barFlags(bar, prefetchable.includes(index)), true);
      // Address bits below the size cannot be set: that is how the driver finds the size. `>>>` takes it modulo 2^32.
      this.#mask.setUint32(offset, -bar.size >>> 0, true);
      if (bar.is64) {
        this.#mask.setUint32(offset + 4, Math.floor(-bar.size / 0x1_0000_0000) >>> 0, true);
      }
    });
    this.#mask.setUint16(reg.PCI_COMMAND, command, true);
  }

  /**
   * Appends a capability to the list.
   *
   * @param body Its bytes, from the capability ID on; the link is filled in here.
   * @param writable Which bits of it the driver can write; none unless given.
   * @returns Its offset.
   * @throws {RangeError} If the space is full.
   */
  addCapability(body: Uint8Array, writable?: Uint8Array): number {
    const offset = this.#end;
    if (offset + body.length > reg.PCI_CONFIG_SIZE) {
      throw new RangeError(
        "The capabilities do not fit into 256 bytes: give the device fewer shared memory regions or less vendor data",
      );
    }
    this.bytes.set(body, offset);
    if (writable !== undefined) this.#writable.set(writable, offset);
    this.bytes[offset + 1] = 0;
    this.bytes[this.#link] = offset;
    this.#link = offset + 1;
    // Capabilities are aligned to 4 bytes.
    this.#end = (offset + body.length + 3) & ~3;
    return offset;
  }

  /** A read by the driver. Beyond the space there are only ones, as if nobody answered. */
  read(offset: number, size: Width): number {
    if (offset < 0 || offset + size > reg.PCI_CONFIG_SIZE) return 0xffff_ffff >>> (32 - 8 * size);
    return readBytes(this.bytes, offset, size);
  }

  /** A write by the driver, to the writable bits. */
  write(offset: number, size: Width, value: number): void {
    for (let i = 0; i < size; i++) {
      const mask = this.#writable[offset + i];
      if (mask === undefined) return;
      const at = offset + i;
      this.bytes[at] = (this.bytes[at]! & ~mask) | ((value >>> (8 * i)) & mask);
    }
  }

  /** The Command register. */
  get command(): number {
    return this.view.getUint16(reg.PCI_COMMAND, true);
  }

  /** Where a BAR decodes, or null (see `PciFunction`). */
  barAddress(index: number): number | null {
    const bar = this.#bars[index];
    if (bar === null || bar === undefined) return null;
    const enable = bar.kind === "io" ? reg.PCI_COMMAND_IO : reg.PCI_COMMAND_MEMORY;
    if ((this.command & enable) === 0) return null;
    const offset = reg.PCI_BASE_ADDRESS_0 + 4 * index;
    const flags = bar.kind === "io" ? 0x3 : 0xf;
    const low = (this.view.getUint32(offset, true) & ~flags) >>> 0;
    const high = bar.is64 ? this.view.getUint32(offset + 4, true) : 0;
    const last = low + high * 0x1_0000_0000 + (bar.size - 1);
    // 0 is where BARs stand before anyone assigned them. An all-ones address is one that is being sized: drivers do that
    // with decoding on, and it must not cover what lies there.
    if ((low === 0 && high === 0) || last === 0xffff_ffff || !Number.isSafeInteger(last)) {
      return null;
    }
    return last - (bar.size - 1);
  }

  /** The registers that the driver can change, as plain data. */
  save(): number[] {
    return Array.from(this.bytes, (byte, i) => byte & this.#writable[i]!);
  }

  /** Takes what `save` gave; bits that the driver could not have set are dropped. */
  restore(bytes: readonly number[]): void {
    bytes.forEach((byte, i) => this.write(i, 1, byte));
  }

  /** All writable bits to 0, the state after a reset of the bus. */
  reset(): void {
    for (let i = 0; i < this.bytes.length; i++) this.write(i, 1, 0);
  }
}

function barFlags(bar: PciBar, prefetchable: boolean): number {
  if (bar.kind === "io") return reg.PCI_BASE_ADDRESS_SPACE_IO;
  return (bar.is64 ? reg.PCI_BASE_ADDRESS_MEM_TYPE_64 : 0) |
    (prefetchable ? reg.PCI_BASE_ADDRESS_MEM_PREFETCH : 0);
}

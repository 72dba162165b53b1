/** The PCI bus that v86 has, with functions of ours on it. Knows the inside of v86 0.5.462. */
import type { AccessSize, BusHandler } from "./bus.ts";
import * as inside from "./internals.ts";

/** Configuration space of the functions on bus 0. Made by `V86Adapter`. */
export class PciFunctions {
  readonly #cpu: inside.Cpu;
  readonly #handlers = new Map<number, BusHandler>();

  constructor(cpu: inside.Cpu) {
    this.#cpu = cpu;
    this.#hookPorts();
  }

  /**
   * Puts configuration space behind function 0 of a device.
   *
   * @throws {RangeError} If v86 itself has a device there.
   */
  set(slot: number, handler: BusHandler): void {
    const { pci } = this.#cpu.devices;
    const id = slot << 3;
    if (pci.devices[id] !== undefined && !this.#handlers.has(slot)) {
      throw new RangeError(`PCI slot ${slot} is taken by a device of v86 itself: choose another`);
    }
    // v86 keeps a device of its own there, so that it knows that the slot is taken; nothing reads its contents.
    pci.register_device({ pci_id: id, pci_space: new Array(64).fill(0), pci_bars: [], name: "" });
    this.#handlers.set(slot, handler);
  }

  /** Takes a device off the bus, v86's own ones too. */
  remove(slot: number): void {
    const { pci } = this.#cpu.devices;
    this.#handlers.delete(slot);
    pci.devices[slot << 3] = undefined;
    pci.device_spaces[slot << 3] = undefined;
  }

  /** The ISA interrupt to which a BIOS routed a PIRQ line (0 to 3), or null. */
  route(line: number): number | null {
    const route = this.#cpu.devices.pci.isa_bridge_space8[inside.PIRQ_ROUTES + line]!;
    return route > 0 && route < 16 ? route : null;
  }

  /** Configuration mechanism 1: v86 reads its register ahead when the address is written, ours when the data is. */
  #hookPorts(): void {
    const { ports } = this.#cpu.io;
    const { pci_addr } = this.#cpu.devices.pci;
    const addressed = (): BusHandler | undefined =>
      (pci_addr[3]! & 0x80) !== 0 && pci_addr[2] === 0 && (pci_addr[1]! & 7) === 0
        ? this.#handlers.get(pci_addr[1]! >> 3)
        : undefined;
    for (let lane = 0; lane < 4; lane++) {
      const port = inside.PCI_CONFIG_DATA + lane;
      const before = ports[port]!;
      const register = (): number => (pci_addr[0]! & 0xfc) + lane;
      const { device } = before;
      const read = (size: AccessSize, fallback: inside.PortRead): inside.PortRead => (port) => {
        const handler = addressed();
        if (handler === undefined) return fallback.call(device, port);
        return handler.read(register(), size) | 0;
      };
      const write = (size: AccessSize, fallback: inside.PortWrite): inside.PortWrite => (value) => {
        const handler = addressed();
        if (handler === undefined) fallback.call(device, value);
        else handler.write(register(), size, value >>> 0);
      };
      ports[port] = {
        read8: read(1, before.read8),
        read16: lane % 2 === 0 ? read(2, before.read16) : before.read16,
        read32: lane === 0 ? read(4, before.read32) : before.read32,
        write8: write(1, before.write8),
        write16: lane % 2 === 0 ? write(2, before.write16) : before.write16,
        write32: lane === 0 ? write(4, before.write32) : before.write32,
        device,
      };
    }
  }
}

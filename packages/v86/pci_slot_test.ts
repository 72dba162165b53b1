import { assertEquals } from "@std/assert";
import type { PciBar, PciFunction } from "@virtio/transport/pci";
import type { BusHandler } from "./bus.ts";
import { ExitCounters } from "./counters.ts";
import { PciSlot, type PciSlotPorts } from "./pci_slot.ts";

/** A function with a 64-bit memory BAR 0 and an I/O BAR 2. */
class TestFunction implements PciFunction {
  readonly bars: readonly (PciBar | null)[] = [
    { kind: "memory", size: 0x1000, is64: true },
    null,
    { kind: "io", size: 0x40, is64: false },
    null,
    null,
    null,
  ];
  readonly config = new DataView(new ArrayBuffer(256));

  constructor() {
    this.config.setUint8(0x3d, 1);
  }

  configRead(offset: number, size: 1 | 2 | 4): number {
    if (size === 1) return this.config.getUint8(offset);
    return size === 2 ? this.config.getUint16(offset, true) : this.config.getUint32(offset, true);
  }

  configWrite(offset: number, size: 1 | 2 | 4, value: number): void {
    const mask = offset === 0x10 ? ~0xfff : offset === 0x18 ? ~0x3f : -1;
    if (size === 1) this.config.setUint8(offset, value);
    else if (size === 2) this.config.setUint16(offset, value, true);
    else this.config.setUint32(offset, value & mask, true);
  }

  barAddress(index: number): number | null {
    const command = this.config.getUint8(4);
    if (index === 2) return command & 1 ? this.config.getUint32(0x18, true) : null;
    if (!(command & 2)) return null;
    return this.config.getUint32(0x10, true) + this.config.getUint32(0x14, true) * 2 ** 32;
  }

  barRead(index: number, offset: number): number {
    return index * 0x100 + offset;
  }

  barWrite(): void {}
}

function bus(): PciSlotPorts & { memory: Map<BusHandler, number>; ports: Map<BusHandler, number> } {
  const memory = new Map<BusHandler, number>();
  const ports = new Map<BusHandler, number>();
  return {
    memory,
    ports,
    mapMemory: (first, _size, handler) => memory.set(handler, first),
    unmapMemory: (handler) => memory.delete(handler),
    mapPorts: (first, _size, handler) => ports.set(handler, first),
    unmapPorts: (handler) => ports.delete(handler),
  };
}

Deno.test("BARs follow the guest: off, on, moved, out of reach", () => {
  const wires = bus();
  const counters = new ExitCounters();
  const slot = new PciSlot(new TestFunction(), wires, counters, 0x800_0000);
  const memory = (): number[] => [...wires.memory.values()];
  const ports = (): number[] => [...wires.ports.values()];
  assertEquals(slot.pin, 0);
  slot.write(0x10, 4, 0xc000_0000);
  slot.write(0x18, 4, 0x1000);
  assertEquals([memory(), ports()], [[], []]);
  slot.write(4, 2, 3);
  assertEquals([memory(), ports()], [[0xc000_0000], [0x1000]]);
  const [handler] = wires.ports.keys();
  assertEquals(handler!.read(4, 2), 0x204);
  slot.write(0x10, 4, 0xc800_0000);
  assertEquals(memory(), [0xc800_0000]);
  slot.write(0x10, 4, 0xffff_ffff); // sizing while decoding
  assertEquals(memory(), [0xffff_f000]);
  slot.write(0x14, 4, 1); // above 4 GiB
  assertEquals(memory(), []);
  slot.write(0x14, 4, 0);
  slot.write(0x10, 4, 0x10_0000); // where memory is
  assertEquals(memory(), []);
  slot.write(0x18, 4, 0xffff_ffc0); // beyond the last port
  assertEquals(ports(), []);
  slot.write(0x10, 4, 0xc000_0000);
  slot.unmap();
  assertEquals([memory(), ports()], [[], []]);
  assertEquals(counters.configWrites, 10);
  assertEquals(counters.portReads, 1);
});

Deno.test("a fresh function is set up as the guest remembers it", () => {
  const first = new PciSlot(new TestFunction(), bus(), new ExitCounters(), 0x800_0000);
  first.write(0x10, 4, 0xc000_0000);
  first.write(0x18, 4, 0x2000);
  first.write(0x3c, 1, 11);
  first.write(4, 2, 7);
  const wires = bus();
  const fn = new TestFunction();
  const second = new PciSlot(fn, wires, new ExitCounters(), 0x800_0000);
  second.restore(structuredClone(first.save()));
  assertEquals([...wires.memory.values()], [0xc000_0000]);
  assertEquals([...wires.ports.values()], [0x2000]);
  assertEquals(second.read(0x3c, 1), 11);
  assertEquals(second.read(4, 2), 7);
});

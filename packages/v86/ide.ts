/** v86's own IDE disk, for comparison with virtio: how often a guest leaves to it. Knows the inside of v86 0.5.462. */
import { IdeCounters } from "./counters.ts";
import * as inside from "./internals.ts";

/** Makes v86's IDE controller work without a BIOS, and counts how often a guest leaves to it. */
export function keepIde(cpu: inside.Cpu): IdeCounters {
  const space = cpu.devices.pci.device_spaces[inside.IDE_SLOT << 3]!;
  space[inside.IDE_TIMING >> 2] = inside.IDE_DECODE_ENABLE;
  return countAccesses(cpu.io.ports);
}

/**
 * Counts accesses to the registers of the primary IDE channel: command block, control, bus master. v86 answers each of them
 * outside of the processor, as it does an access to a register of ours.
 */
function countAccesses(ports: inside.PortEntry[]): IdeCounters {
  const counters = new IdeCounters();
  const read = (before: inside.PortRead): inside.PortRead =>
    function (this: unknown, port) {
      counters.reads++;
      return before.call(this, port);
    };
  const write = (before: inside.PortWrite): inside.PortWrite =>
    function (this: unknown, value) {
      counters.writes++;
      before.call(this, value);
    };
  for (const [first, size] of inside.IDE_PRIMARY_PORTS) {
    for (let port = first; port < first + size; port++) {
      const entry = ports[port]!;
      entry.read8 = read(entry.read8);
      entry.read16 = read(entry.read16);
      entry.read32 = read(entry.read32);
      entry.write8 = write(entry.write8);
      entry.write16 = write(entry.write16);
      entry.write32 = write(entry.write32);
    }
  }
  return counters;
}

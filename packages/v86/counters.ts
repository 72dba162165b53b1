/** How often the guest left to the host, by kind of access. */
export class ExitCounters {
  /** Reads of PCI configuration space of attached functions. */
  configReads = 0;
  /** Writes of PCI configuration space of attached functions. */
  configWrites = 0;
  /** Reads of memory BARs and virtio-mmio registers. */
  memoryReads = 0;
  /** Writes of memory BARs and virtio-mmio registers. */
  memoryWrites = 0;
  /** Reads of I/O BARs. */
  portReads = 0;
  /** Writes of I/O BARs. */
  portWrites = 0;

  /** All of them. */
  get total(): number {
    return this.configReads + this.configWrites + this.memoryReads + this.memoryWrites +
      this.portReads + this.portWrites;
  }
}

/** How often the guest left the processor for v86's own IDE controller, primary channel. */
export class IdeCounters {
  /** Reads of its registers. */
  reads = 0;
  /** Writes of its registers. */
  writes = 0;

  /** All of them. */
  get total(): number {
    return this.reads + this.writes;
  }
}

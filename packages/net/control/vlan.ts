/** VLAN ids that there are. */
const VLANS = 4096;

/** The VLAN filter table (virtio 1.4, 5.1.9.5.3): a bit for every id. */
export class VlanTable {
  readonly #bits: Uint32Array = new Uint32Array(VLANS / 32);

  /** Empties it. */
  clear(): void {
    this.#bits.fill(0);
  }

  /** Adds or removes an id. @returns False if there is no such id, and nothing changes. */
  set(id: number, present: boolean): boolean {
    if (id >= VLANS) return false;
    const bit = 1 << (id & 31);
    if (present) this.#bits[id >> 5]! |= bit;
    else this.#bits[id >> 5]! &= ~bit;
    return true;
  }

  /** Whether an id, 0 to 4095, is in it. */
  has(id: number): boolean {
    return (this.#bits[id >> 5]! >>> (id & 31) & 1) !== 0;
  }

  /** All ids in it, the lowest first. */
  *ids(): Generator<number> {
    for (let id = 0; id < VLANS; id++) {
      if (this.has(id)) yield id;
    }
  }
}

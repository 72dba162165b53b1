/** The regions of guest memory that a back end has. */
import {
  encodeMemoryTable,
  encodeRegion,
  FrontEndRequest as Request,
  ProtocolFeature as P,
} from "../protocol/mod.ts";
import { BackEndError, type Connection } from "./connection.ts";
import { type FileRegion, tableRegion } from "./memory.ts";

/** What one connection was told of memory. */
export class MemoryTable {
  readonly #connection: Connection;
  readonly #slots: number;
  readonly #given: Set<FileRegion> = new Set();

  /** @param slots Regions that the back end takes. */
  constructor(connection: Connection, slots: number) {
    this.#connection = connection;
    this.#slots = slots;
  }

  /**
   * Has the back end know these regions and no others.
   *
   * @returns Resolves when it does.
   * @throws {BackEndError} If they are more than it takes, or it refuses.
   */
  async give(regions: readonly FileRegion[]): Promise<void> {
    if (regions.length > this.#slots) {
      throw new BackEndError(
        `The back end takes ${this.#slots} regions of memory: there are ${regions.length}`,
      );
    }
    const connection = this.#connection;
    const removed = [...this.#given].filter((region) => !regions.includes(region));
    const added = regions.filter((region) => !this.#given.has(region));
    if (removed.length === 0 && added.length === 0) return;
    for (const region of removed) this.#given.delete(region);
    for (const region of added) this.#given.add(region);
    const told: Promise<void>[] = [];
    if (connection.has(P.CONFIGURE_MEM_SLOTS)) {
      for (const region of removed) {
        told.push(connection.tell(Request.REM_MEM_REG, encodeRegion(tableRegion(region))));
      }
      for (const region of added) {
        const payload = encodeRegion(tableRegion(region));
        told.push(connection.tell(Request.ADD_MEM_REG, payload, [region.descriptor]));
      }
    } else {
      const payload = encodeMemoryTable(regions.map(tableRegion));
      const descriptors = regions.map(({ descriptor }) => descriptor);
      told.push(connection.tell(Request.SET_MEM_TABLE, payload, descriptors));
    }
    await Promise.all(told);
  }
}

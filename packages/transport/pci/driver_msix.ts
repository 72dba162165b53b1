import { ProbeError } from "../probe_error.ts";
import type { PciAccess } from "./function.ts";
import * as reg from "./registers.ts";

/** A message signalled interrupt as the platform wants it: what the device writes, and where to. */
export interface Message {
  /** Lower half of the address; a multiple of 4. */
  readonly addressLow: number;
  /** Upper half of the address. */
  readonly addressHigh: number;
  /** What is written there. */
  readonly data: number;
}

/** The platform's interrupt controller, as seen by a driver that wants messages. */
export interface MessageAllocator {
  /** A message for a vector of the device, or null if there are no more. Vectors are asked for from 0 on. */
  allocate(vector: number): Message | null;
}

/** The driver's side of an MSI-X table (PCI Local Bus Specification 3.0, 6.8.2). */
export class DriverMsix {
  /** Vectors that can be used: those that have a message. */
  readonly count: number;
  readonly #access: PciAccess;
  readonly #cap: number;
  readonly #bar: number;
  readonly #table: number;

  /**
   * Fills the table and enables messages; INTx is off from then on.
   *
   * @param cap Offset of the MSI-X capability.
   * @param wanted Vectors that the driver has a use for.
   * @throws {ProbeError} If the table is in a reserved BAR.
   */
  constructor(access: PciAccess, cap: number, wanted: number, messages: MessageAllocator) {
    this.#access = access;
    this.#cap = cap;
    const place = access.configRead(cap + 4, 4) >>> 0;
    this.#bar = place & 7;
    this.#table = (place & ~7) >>> 0;
    if (this.#bar > 5) {
      throw new ProbeError(
        "4.1.5.1.2",
        `The MSI-X table is in BAR ${this.#bar}, which is reserved`,
      );
    }
    const size = (access.configRead(cap + 2, 2) & 0x7ff) + 1;
    // Nothing may go out while the table is half written.
    this.#control(reg.PCI_MSIX_FLAGS_ENABLE | reg.PCI_MSIX_FLAGS_MASKALL);
    let count = 0;
    for (let vector = 0; vector < size; vector++) {
      const message = vector < wanted ? messages.allocate(vector) : null;
      if (message !== null && count === vector) {
        this.#write(vector, 0, message.addressLow);
        this.#write(vector, 1, message.addressHigh);
        this.#write(vector, 2, message.data);
        count++;
      }
      this.#write(vector, 3, count > vector ? 0 : 1);
    }
    this.count = count;
    this.#control(count === 0 ? 0 : reg.PCI_MSIX_FLAGS_ENABLE);
  }

  /** Masks or unmasks one vector. */
  mask(vector: number, masked: boolean): void {
    if (vector < this.count) this.#write(vector, 3, masked ? 1 : 0);
  }

  /** Goes back to INTx. */
  disable(): void {
    this.#control(0);
  }

  #control(flags: number): void {
    const own = reg.PCI_MSIX_FLAGS_ENABLE | reg.PCI_MSIX_FLAGS_MASKALL;
    const control = this.#access.configRead(this.#cap + 2, 2) & ~own;
    this.#access.configWrite(this.#cap + 2, 2, control | flags);
  }

  #write(vector: number, field: number, value: number): void {
    const offset = this.#table + reg.PCI_MSIX_ENTRY_SIZE * vector + 4 * field;
    this.#access.barWrite(this.#bar, offset, 4, value);
  }
}

/** Guest memory as a front end shares it: files, which of their bytes are which guest-physical addresses, and their own addresses. */
import { MemoryFile, Seal, SharedMapping } from "@virtio/linux";
import { GuestMemory, type SharedRegion } from "@virtio/memory";
import { ProtocolError } from "../protocol/errors.ts";
import type { MemoryTableRegion } from "../protocol/payloads.ts";

/** Regions that a front end may have at most, by ADD_MEM_REG. */
export const MAX_SLOTS = 64;

/** Bytes of one region at most: what a processor can address is far less. */
const MOST_BYTES = 2 ** 46;
const PAGE = 4096;

/** One region, mapped. */
interface Mapped {
  readonly guest: number;
  readonly user: number;
  readonly size: number;
  readonly mapping: SharedMapping;
}

/** How memory is accepted. */
export interface MemoryTableOptions {
  /**
   * Whether every file must be sealed against shrinking, or let itself be sealed so. A file that becomes shorter ends this
   * process when the missing part is touched; no check can prevent that for files that are no memory files, as User Mode
   * Linux's: a look at the size is out of date at once, a lease is refused while others have the file open, userfaultfd comes
   * after the file's end, and a handler of SIGBUS would have to be machine code. A process for each guest contains it.
   */
  readonly requireSeals: boolean;
}

/** The memory of one front end. Immutable but for `unmap`: changes make a new table, which shares mappings that stay. */
export class MemoryTable {
  /** The guest's memory; null as long as there is none. */
  readonly memory: GuestMemory | null;
  readonly #regions: readonly Mapped[];

  private constructor(regions: readonly Mapped[]) {
    this.#regions = regions;
    this.memory = regions.length === 0 ? null : GuestMemory.from({
      regions: regions.map(({ guest, size, mapping }): SharedRegion => ({
        base: guest,
        size,
        byteOffset: mapping.byteOffset,
        buffer: mapping.buffer,
        address: mapping.address,
        memory: mapping.memory,
      })),
    });
  }

  /** No memory. */
  static readonly empty: MemoryTable = new MemoryTable([]);

  /** How many regions there are. */
  get length(): number {
    return this.#regions.length;
  }

  /** Bytes of all regions. */
  get size(): number {
    return this.#regions.reduce((sum, { size }) => sum + size, 0);
  }

  /**
   * A table of other regions instead. The descriptors stay the caller's.
   *
   * @throws {ProtocolError} If a region cannot be, overlaps another, or is not in its file; nothing stays mapped then.
   */
  static of(
    regions: readonly MemoryTableRegion[],
    descriptors: readonly number[],
    options: MemoryTableOptions,
  ): MemoryTable {
    return MemoryTable.#join([], regions, descriptors, options);
  }

  /** This table with one region more. @throws {ProtocolError} As `of`. */
  add(region: MemoryTableRegion, descriptor: number, options: MemoryTableOptions): MemoryTable {
    if (this.#regions.length >= MAX_SLOTS) {
      throw new ProtocolError(`There can be ${MAX_SLOTS} regions of memory, and no more`);
    }
    return MemoryTable.#join(this.#regions, [region], [descriptor], options);
  }

  static #join(
    present: readonly Mapped[],
    regions: readonly MemoryTableRegion[],
    descriptors: readonly number[],
    options: MemoryTableOptions,
  ): MemoryTable {
    const checked = regions.map(checkRegion);
    const all: Place[] = [...present, ...checked];
    checkOverlap(all, "guest");
    checkOverlap(all, "user");
    const mapped: Mapped[] = [];
    try {
      checked.forEach((place, i) => mapped.push(map(place, descriptors[i]!, options)));
      return new MemoryTable([...present, ...mapped]);
    } catch (error) {
      for (const { mapping } of mapped) mapping.unmap();
      throw error;
    }
  }

  /** This table without a region. @throws {ProtocolError} If there is no such region. */
  remove(region: MemoryTableRegion): MemoryTable {
    const at = this.#regions.findIndex(({ guest, user, size }) =>
      BigInt(guest) === region.guestAddress && BigInt(user) === region.userAddress &&
      BigInt(size) === region.size
    );
    if (at < 0) {
      throw new ProtocolError(
        `There is no region of memory at 0x${region.guestAddress.toString(16)} to remove`,
      );
    }
    return new MemoryTable(this.#regions.filter((_, i) => i !== at));
  }

  /** The guest-physical address for one of the front end; -1 if it is in no region. */
  translate(address: bigint): number {
    const user = Number(address);
    for (const region of this.#regions) {
      // Rounding of what is beyond 2^53 does not bring it into a region, which is below.
      const offset = user - region.user;
      if (offset >= 0 && offset < region.size) return region.guest + offset;
    }
    return -1;
  }

  /** Takes away what another table does not have any more. Nobody may work with this one. */
  unmap(successor: MemoryTable = MemoryTable.empty): void {
    for (const region of this.#regions) {
      if (!successor.#regions.includes(region)) region.mapping.unmap();
    }
  }
}

/** A region that could be. */
interface Place {
  readonly guest: number;
  readonly user: number;
  readonly size: number;
}

function checkRegion(region: MemoryTableRegion): Place & { readonly offset: number } {
  const guest = Number(region.guestAddress);
  const user = Number(region.userAddress);
  const size = Number(region.size);
  const offset = Number(region.offset);
  const what = `The region of memory at 0x${region.guestAddress.toString(16)}`;
  if (!(size > 0 && size <= MOST_BYTES)) {
    throw new ProtocolError(`${what} has ${region.size} bytes`);
  }
  for (const [name, at] of [["guest", guest], ["user", user], ["file", offset]] as const) {
    if (!Number.isSafeInteger(at + size)) {
      throw new ProtocolError(`${what} ends beyond all ${name} addresses`);
    }
  }
  if (guest % PAGE !== 0 || size % 8 !== 0 || offset % PAGE !== 0) {
    throw new ProtocolError(`${what}, ${size} bytes from offset ${offset} on, is not aligned`);
  }
  return { guest, user, size, offset };
}

function checkOverlap(places: readonly Place[], by: "guest" | "user"): void {
  const sorted = [...places].sort((a, b) => a[by] - b[by]);
  for (let i = 1; i < sorted.length; i++) {
    const before = sorted[i - 1]!;
    if (before[by] + before.size > sorted[i]![by]) {
      throw new ProtocolError(
        `Two regions of memory overlap at ${by} address 0x${sorted[i]![by].toString(16)}`,
      );
    }
  }
}

function map(
  place: Place & { readonly offset: number },
  descriptor: number,
  { requireSeals }: MemoryTableOptions,
): Mapped {
  const file = new MemoryFile(descriptor);
  // Sealed first: then what the size says stays true.
  if (!sealed(file) && requireSeals) {
    throw new ProtocolError("A file of guest memory is not sealed against shrinking");
  }
  const { offset, size } = place;
  if (!(file.size >= offset + size)) {
    throw new ProtocolError(
      `A file of guest memory has ${file.size} bytes: ${size} from ${offset} on are missing`,
    );
  }
  try {
    return { ...place, mapping: new SharedMapping(descriptor, offset, size) };
  } catch (error) {
    throw new ProtocolError(`Guest memory cannot be mapped: ${(error as Error).message}`);
  }
}

/** Whether a file cannot shrink any more. */
function sealed(file: MemoryFile): boolean {
  if ((file.seals & Seal.shrink) !== 0) return true;
  try {
    file.addSeals(Seal.shrink);
  } catch {
    return false;
  }
  return true;
}

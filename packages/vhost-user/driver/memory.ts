/** Guest memory as a front end has it: regions in memory files, whose descriptors back ends get. */
import {
  closeDescriptor,
  duplicateDescriptor,
  MemoryFile,
  Seal,
  SharedMapping,
} from "@virtio/linux";
import { GuestMemory, type SharedRegion } from "@virtio/memory";
import type { MemoryTableRegion } from "../protocol/mod.ts";

/** A range of guest-physical addresses, and where in a file its bytes are. */
export interface FileRegion {
  /** Guest-physical address of the first byte, a multiple of 4096. */
  readonly base: number;
  /** Bytes, a multiple of 4096. */
  readonly size: number;
  /** Of the file. It stays the caller's. */
  readonly descriptor: number;
  /** Where in the file, a multiple of 4096; 0 unless given. */
  readonly offset?: number;
}

/** Who has to be told of memory that comes and goes. */
export interface MemoryUser {
  /** `regions` are others now; when the promise resolves, nobody uses those that are gone. */
  memoryChanged(): Promise<void>;
}

/**
 * Where guest addresses begin in the address space in which a front end names its rings. It needs no address of this process:
 * back ends only compare. Nothing lies at 0 so, which some of them take for nothing at all.
 */
const USER_BASE = 0x1000_0000_0000;

const PAGE = 4096;

/** The address by which a back end is told of a place in guest memory. */
export function userAddress(address: number): bigint {
  return BigInt(address + USER_BASE);
}

/** A region as the messages have it. */
export function tableRegion(region: FileRegion): MemoryTableRegion {
  return {
    guestAddress: BigInt(region.base),
    size: BigInt(region.size),
    userAddress: userAddress(region.base),
    offset: BigInt(region.offset ?? 0),
  };
}

interface Mapped {
  readonly region: FileRegion;
  readonly mapping: SharedMapping;
}

/**
 * Guest memory that back ends see too. Every region is a `SharedArrayBuffer` here, and a file for others. One object may serve
 * several front ends.
 *
 * @example
 * ```ts
 * import { FrontEndMemory } from "@virtio/vhost-user/driver";
 * import { assertEquals } from "@std/assert";
 *
 * const memory = FrontEndMemory.allocate(2 ** 20);
 * await memory.add({ base: 2 ** 32, size: 2 ** 16 });
 * memory.guest.writeU32(2 ** 32 + 8, 77);
 * assertEquals(memory.regions.map(({ size }) => size), [2 ** 20, 2 ** 16]);
 * memory.close();
 * ```
 */
export class FrontEndMemory {
  #regions: Mapped[] = [];
  #guest: GuestMemory;
  readonly #users: Set<MemoryUser> = new Set();

  /**
   * Maps regions of files that the caller has; the descriptors are duplicated.
   *
   * @throws {RangeError} If there is none, two overlap, or one is not made of pages.
   * @throws {SystemError} If the system refuses.
   */
  constructor(regions: readonly FileRegion[]) {
    try {
      for (const region of regions) this.#regions.push(mapRegion(region));
      this.#guest = this.#make(this.#regions);
    } catch (error) {
      this.close();
      throw error;
    }
  }

  /**
   * New memory, zeroed, in a file that cannot become shorter.
   *
   * @param size Bytes, a multiple of 4096.
   * @param base Guest-physical address of the first byte.
   */
  static allocate(size: number, base = 0): FrontEndMemory {
    const file = newFile(size);
    try {
      return new FrontEndMemory([{ base, size, descriptor: file.descriptor }]);
    } finally {
      file.close();
    }
  }

  /** Guest memory as it is now: another object after `add` and `remove`. */
  get guest(): GuestMemory {
    return this.#guest;
  }

  /** The regions, by their bases. */
  get regions(): readonly FileRegion[] {
    return this.#regions.map(({ region }) => region);
  }

  /** First address behind all regions. */
  get end(): number {
    return Math.max(...this.#regions.map(({ region }) => region.base + region.size));
  }

  /**
   * Adds a region while devices run.
   *
   * @param region Without a descriptor, a new file is made.
   * @throws {RangeError} If it overlaps another, or is not made of pages.
   */
  async add(
    region: Omit<FileRegion, "descriptor"> & { readonly descriptor?: number },
  ): Promise<void> {
    const file = region.descriptor === undefined ? newFile(region.size) : null;
    let mapped: Mapped;
    try {
      mapped = mapRegion({ ...region, descriptor: region.descriptor ?? file!.descriptor });
    } finally {
      file?.close();
    }
    const regions = [...this.#regions, mapped];
    try {
      this.#guest = this.#make(regions);
    } catch (error) {
      unmapRegion(mapped);
      throw error;
    }
    this.#regions = regions;
    await Promise.all([...this.#users].map((user) => user.memoryChanged()));
  }

  /**
   * Takes a region away while devices run. No ring and no buffer must be in it.
   *
   * @throws {RangeError} If there is no such region, or it is the last.
   */
  async remove(base: number): Promise<void> {
    const mapped = this.#regions.find(({ region }) => region.base === base);
    if (mapped === undefined) {
      throw new RangeError(`No region of guest memory begins at 0x${base.toString(16)}`);
    }
    const regions = this.#regions.filter((each) => each !== mapped);
    this.#guest = this.#make(regions);
    this.#regions = regions;
    await Promise.all([...this.#users].map((user) => user.memoryChanged()));
    unmapRegion(mapped);
  }

  /** Has somebody told of changes, until `detach`. */
  attach(user: MemoryUser): void {
    this.#users.add(user);
  }

  /** Ends that. */
  detach(user: MemoryUser): void {
    this.#users.delete(user);
  }

  /** Gives files and mappings back. Front ends should be closed before; who is late finds zeroes. */
  close(): void {
    for (const mapped of this.#regions) unmapRegion(mapped);
    this.#regions = [];
  }

  #make(regions: Mapped[]): GuestMemory {
    regions.sort((a, b) => a.region.base - b.region.base);
    const shared = regions.map(({ region, mapping }): SharedRegion => ({
      base: region.base,
      size: region.size,
      byteOffset: 0,
      buffer: mapping.buffer,
      address: null,
      memory: mapping.memory,
    }));
    return GuestMemory.from({ regions: shared });
  }
}

function newFile(size: number): MemoryFile {
  checkPages("size", size);
  const file = MemoryFile.create(size, "virtio-front-end");
  file.addSeals(Seal.shrink);
  return file;
}

function checkPages(name: string, value: number): void {
  if (!(Number.isSafeInteger(value) && value >= 0 && value % PAGE === 0)) {
    throw new RangeError(`The ${name} of a region must be a multiple of ${PAGE}: it is ${value}`);
  }
}

function mapRegion(given: FileRegion): Mapped {
  checkPages("base", given.base);
  checkPages("size", given.size);
  checkPages("offset", given.offset ?? 0);
  if (given.base + given.size > USER_BASE) {
    throw new RangeError(`A region must end below 2^44: it begins at ${given.base}`);
  }
  const descriptor = duplicateDescriptor(given.descriptor);
  try {
    const mapping = new SharedMapping(descriptor, given.offset ?? 0, given.size);
    return { region: { ...given, descriptor }, mapping };
  } catch (error) {
    closeDescriptor(descriptor);
    throw error;
  }
}

function unmapRegion({ region, mapping }: Mapped): void {
  mapping.unmap();
  closeDescriptor(region.descriptor);
}

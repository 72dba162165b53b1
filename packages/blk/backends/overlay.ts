/**
 * Copy on write: a disk whose writes stay in memory, over one that is only read.
 *
 * This module is browser compatible.
 *
 * @module
 */
import { type BackendResult, type BlkBackend, checkCapacity, checkRange } from "../backend.ts";
import { SECTOR_SIZE } from "../constants.ts";

/** Sectors are kept in pages of 32, so that one 32-bit number says which of them the page has. */
const PAGE_SIZE = 32 * SECTOR_SIZE;
/** What a page of zeroes counts against `maxBytes`, which bounds the table of pages too. */
const ZERO_PAGE_COST = 128;

/** Options of an `OverlayBackend`. */
export interface OverlayOptions {
  /** Memory that changes may take, in bytes; a write beyond that fails. 1 GiB unless given. */
  readonly maxBytes?: number;
}

/** What was changed of 32 sectors. */
interface Page {
  /** Null: all zeroes. */
  bytes: Uint8Array | null;
  /** Bit n: sector n of the page was changed. */
  present: number;
  /** Counts changes, so that `commit` sees those that came while it wrote. */
  version: number;
}

/** More was changed than the overlay may hold. */
export class OverlayFullError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "OverlayFullError";

  /** Names the limit. */
  constructor(maxBytes: number) {
    super(`The overlay is full: it may hold changes of ${maxBytes} bytes; commit or discard them`);
  }
}

/**
 * A copy-on-write layer over any other back end. Reads see the changes; the base is written only by `commit()`. Before that
 * nothing is durable: `flush` has nothing to do.
 *
 * The overlay owns the base while it is in use: nobody else may write to it.
 *
 * ```ts
 * import { MemoryBackend } from "@virtio/blk/memory";
 * import { OverlayBackend } from "@virtio/blk/overlay";
 * import { assertEquals } from "@std/assert";
 *
 * const base = new MemoryBackend(1024 * 1024);
 * const disk = new OverlayBackend(base);
 * await disk.write(0, new Uint8Array(512).fill(7), 0, 512);
 *
 * const sector = new Uint8Array(512);
 * base.read(0, sector, 0, 512);
 * assertEquals(sector[0], 0);
 * await disk.commit();
 * base.read(0, sector, 0, 512);
 * assertEquals(sector[0], 7);
 * ```
 */
export class OverlayBackend implements BlkBackend {
  /** Writes go to memory. */
  readonly readonly = false;
  /** As the base. */
  readonly asynchronous: boolean;
  /** Told when the size of the base changed. */
  onChange: (() => void) | null = null;
  readonly #base: BlkBackend;
  readonly #maxBytes: number;
  readonly #pages: Map<number, Page> = new Map();
  readonly #sector: Uint8Array = new Uint8Array(SECTOR_SIZE);
  #bytes = 0;
  #committing: Promise<void> | null = null;

  /**
   * Puts a layer over a back end.
   *
   * @param base What is below. Its `onChange` is taken.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(base: BlkBackend, options: OverlayOptions = {}) {
    const maxBytes = options.maxBytes ?? 2 ** 30;
    if (!(maxBytes >= PAGE_SIZE)) {
      throw new RangeError(`maxBytes must be at least ${PAGE_SIZE}: it is ${maxBytes}`);
    }
    this.#base = base;
    this.#maxBytes = maxBytes;
    this.asynchronous = base.asynchronous;
    base.onChange = () => {
      this.#trim();
      this.onChange?.();
    };
  }

  /** Size in bytes; that of the base. */
  get capacity(): number {
    return this.#base.capacity;
  }

  /** Bytes of memory that the changes take. */
  get changedBytes(): number {
    return this.#bytes;
  }

  /** A page of zeroes takes no memory. */
  get writeZeroesMayUnmap(): boolean {
    return true;
  }

  /** Reads: changed sectors from memory, the others from the base. @throws {BackendRangeError} If the range is not within the disk. */
  read(position: number, bytes: Uint8Array, offset: number, length: number): BackendResult {
    checkRange(position, length, this.capacity);
    // Changed sectors are copied now, and the base is asked for the others only: had it been asked for all, a commit that
    // ends meanwhile could leave old data in the buffer.
    let later: Promise<void>[] | null = null;
    let at = position;
    const end = position + length;
    while (at < end) {
      const next = this.#runEnd(at, end);
      const count = next - at;
      const to = offset + at - position;
      if (this.#has(at)) {
        this.#copyOut(at, bytes, to, count);
      } else {
        const result = this.#base.read(at, bytes, to, count);
        if (result !== undefined) (later ??= []).push(result);
      }
      at = next;
    }
    if (later !== null) return later.length === 1 ? later[0] : Promise.all(later).then(() => {});
  }

  /**
   * Writes to memory.
   *
   * @throws {BackendRangeError} If the range is not within the disk.
   * @throws {OverlayFullError} If the changes would take more than `maxBytes`.
   * @throws {RangeError} If the base is asynchronous and the range is not one of whole sectors.
   */
  write(position: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#checkWrite(position, length);
    let at = position;
    const end = position + length;
    while (at < end) {
      const within = at % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - within, end - at);
      const page = this.#dataPage((at - within) / PAGE_SIZE);
      this.#fillEdges(page, at, at + count);
      const from = offset + at - position;
      page.bytes!.set(bytes.subarray(from, from + count), within);
      page.present |= sectorMask(within, within + count);
      page.version++;
      at += count;
    }
  }

  /** Nothing to do: what is in memory is not durable before `commit`. */
  flush(): void {}

  /** Gives the memory of whole pages back. They read as zeroes. @throws {BackendRangeError} If the range is not within the disk. */
  discard(position: number, length: number): void {
    checkRange(position, length, this.capacity);
    const first = Math.ceil(position / PAGE_SIZE);
    const last = Math.floor((position + length) / PAGE_SIZE);
    for (let index = first; index < last; index++) {
      // Where there is no room to remember the discard, the sectors keep what they have, which a discard may.
      if (!this.#pages.has(index) && this.#bytes + ZERO_PAGE_COST > this.#maxBytes) continue;
      this.#zeroPage(index);
    }
  }

  /** Makes the range read as zeroes. @throws As `write`. */
  writeZeroes(position: number, length: number, _unmap: boolean): void {
    this.#checkWrite(position, length);
    let at = position;
    const end = position + length;
    while (at < end) {
      const within = at % PAGE_SIZE;
      const count = Math.min(PAGE_SIZE - within, end - at);
      const index = (at - within) / PAGE_SIZE;
      if (count === PAGE_SIZE) {
        this.#zeroPage(index);
      } else {
        const page = this.#dataPage(index);
        this.#fillEdges(page, at, at + count);
        page.bytes!.fill(0, within, within + count);
        page.present |= sectorMask(within, within + count);
        page.version++;
      }
      at += count;
    }
  }

  /**
   * Resizes the base. Changes beyond a new end are dropped.
   *
   * @throws {TypeError} If the base cannot be resized.
   * @throws {RangeError} If `capacity` is no multiple of 512.
   */
  resize(capacity: number): BackendResult {
    checkCapacity(capacity);
    if (this.#base.resize === undefined) {
      throw new TypeError("The back end below the overlay cannot be resized");
    }
    return this.#base.resize(capacity);
  }

  /**
   * Writes all changes to the base, flushes it and forgets them. Writes that come meanwhile stay in the overlay unless they
   * came in time. If it fails, nothing is forgotten that did not reach the base.
   *
   * @throws {TypeError} If the base is read-only.
   */
  commit(): Promise<void> {
    if (this.#base.readonly) {
      return Promise.reject(
        new TypeError("The back end below the overlay is read-only: changes cannot be committed"),
      );
    }
    // Two at a time would write the same pages.
    return this.#committing ??= this.#commit().finally(() => this.#committing = null);
  }

  /** Forgets all changes: the disk is as the base again. Not for a disk in use: its guest would see old data. */
  discardChanges(): void {
    for (const [index, page] of this.#pages) this.#drop(index, page);
  }

  /** Closes the base; what was not committed is lost. */
  close(): BackendResult {
    this.discardChanges();
    return this.#base.close?.();
  }

  /** Drops changes beyond the end of the base. */
  #trim(): void {
    const { capacity } = this;
    for (const [index, page] of this.#pages) {
      const start = index * PAGE_SIZE;
      if (start >= capacity) {
        this.#drop(index, page);
      } else if (start + PAGE_SIZE > capacity) {
        page.present &= sectorMask(0, capacity - start);
        page.version++;
      }
    }
  }

  async #commit(): Promise<void> {
    const written: [number, Page, number][] = [];
    for (const [index, page] of [...this.#pages]) {
      const version = page.version;
      await this.#commitPage(index, page);
      written.push([index, page, version]);
    }
    await this.#base.flush();
    // Only what is durable below is forgotten, and only if it was not changed again.
    for (const [index, page, version] of written) {
      if (page.version === version && this.#pages.get(index) === page) this.#drop(index, page);
    }
  }

  async #commitPage(index: number, page: Page): Promise<void> {
    // A copy: the guest may write to the page while the base reads from it.
    const bytes = page.bytes === null ? new Uint8Array(PAGE_SIZE) : page.bytes.slice();
    const { present } = page;
    const start = index * PAGE_SIZE;
    const sectors = Math.min(32, (this.capacity - start) / SECTOR_SIZE);
    for (let sector = 0; sector < sectors;) {
      let end = sector;
      while (end < sectors && (present >>> end & 1) === 1) end++;
      if (end > sector) {
        const at = sector * SECTOR_SIZE;
        await this.#base.write(start + at, bytes, at, (end - sector) * SECTOR_SIZE);
      }
      sector = end + 1;
    }
  }

  #checkWrite(position: number, length: number): void {
    checkRange(position, length, this.capacity);
    if (this.asynchronous && (position % SECTOR_SIZE !== 0 || length % SECTOR_SIZE !== 0)) {
      throw new RangeError("Over an asynchronous back end only whole sectors can be written");
    }
  }

  #has(at: number): boolean {
    const within = at % PAGE_SIZE;
    const page = this.#pages.get((at - within) / PAGE_SIZE);
    return page !== undefined && (page.present >>> (within / SECTOR_SIZE) & 1) === 1;
  }

  /** Where the run of sectors that starts at `at` and is all changed, or all not, ends; `end` at most. */
  #runEnd(at: number, end: number): number {
    const changed = this.#has(at);
    // A run of changed sectors ends with its page, which is copied from one place.
    const limit = changed ? Math.min(end, at - at % PAGE_SIZE + PAGE_SIZE) : end;
    let next = at - at % SECTOR_SIZE + SECTOR_SIZE;
    while (next < limit) {
      if (!changed && next % PAGE_SIZE === 0 && !this.#pages.has(next / PAGE_SIZE)) {
        next += PAGE_SIZE;
        continue;
      }
      if (this.#has(next) !== changed) break;
      next += SECTOR_SIZE;
    }
    return Math.min(next, limit);
  }

  #copyOut(at: number, bytes: Uint8Array, to: number, count: number): void {
    const within = at % PAGE_SIZE;
    const page = this.#pages.get((at - within) / PAGE_SIZE)!;
    if (page.bytes === null) bytes.fill(0, to, to + count);
    else bytes.set(page.bytes.subarray(within, within + count), to);
  }

  /** A range may begin and end within a sector; the rest of that sector comes from the base first. */
  #fillEdges(page: Page, start: number, end: number): void {
    if (start % SECTOR_SIZE !== 0) this.#fillSector(page, start - start % SECTOR_SIZE);
    if (end % SECTOR_SIZE !== 0) this.#fillSector(page, end - end % SECTOR_SIZE);
  }

  #fillSector(page: Page, at: number): void {
    const within = at % PAGE_SIZE;
    const bit = 1 << (within / SECTOR_SIZE);
    if ((page.present & bit) !== 0) return;
    // Only a synchronous base gets here, see #checkWrite.
    void this.#base.read(at, this.#sector, 0, SECTOR_SIZE);
    page.bytes!.set(this.#sector, within);
    page.present |= bit;
  }

  #dataPage(index: number): Page {
    let page = this.#pages.get(index);
    if (page !== undefined && page.bytes !== null) return page;
    const cost = page === undefined ? PAGE_SIZE : PAGE_SIZE - ZERO_PAGE_COST;
    if (this.#bytes + cost > this.#maxBytes) throw new OverlayFullError(this.#maxBytes);
    this.#bytes += cost;
    const bytes = new Uint8Array(PAGE_SIZE);
    if (page === undefined) {
      page = { bytes, present: 0, version: 0 };
      this.#pages.set(index, page);
    } else {
      page.bytes = bytes;
    }
    return page;
  }

  #zeroPage(index: number): void {
    const page = this.#pages.get(index);
    if (page === undefined) {
      if (this.#bytes + ZERO_PAGE_COST > this.#maxBytes) throw new OverlayFullError(this.#maxBytes);
      this.#bytes += ZERO_PAGE_COST;
      this.#pages.set(index, { bytes: null, present: -1, version: 0 });
      return;
    }
    if (page.bytes !== null) this.#bytes -= PAGE_SIZE - ZERO_PAGE_COST;
    page.bytes = null;
    page.present = -1;
    page.version++;
  }

  #drop(index: number, page: Page): void {
    if (!this.#pages.delete(index)) return;
    this.#bytes -= page.bytes === null ? ZERO_PAGE_COST : PAGE_SIZE;
  }
}

/** Bits of the sectors that bytes `start` to `end` of a page touch. */
function sectorMask(start: number, end: number): number {
  const first = Math.floor(start / SECTOR_SIZE);
  const last = Math.ceil(end / SECTOR_SIZE);
  const upTo = last >= 32 ? -1 : (1 << last) - 1;
  return first === 0 ? upTo : upTo & ~((1 << first) - 1);
}

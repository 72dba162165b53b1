/** The dirty log: what the back end wrote to guest memory, a bit for each page, in memory that both see. */
import { MemoryFile, Seal, SharedMapping } from "@virtio/linux";
import { DIRTY_PAGE_SIZE, DirtyBitmap } from "@virtio/memory";
import { encodeLog, FrontEndRequest as Request } from "../protocol/mod.ts";
import type { Connection } from "./connection.ts";

const PAGE = 4096;

/** The bits, and where they are. */
class LogFile {
  readonly bitmap: DirtyBitmap;
  readonly file: MemoryFile;
  readonly mapping: SharedMapping;
  readonly size: number;

  constructor(end: number) {
    const bytes = Math.ceil(Math.ceil(end / DIRTY_PAGE_SIZE) / 8);
    this.size = Math.ceil(bytes / PAGE) * PAGE;
    this.file = MemoryFile.create(this.size, "virtio-dirty-log");
    try {
      this.file.addSeals(Seal.shrink);
      this.mapping = new SharedMapping(this.file.descriptor, 0, this.size);
    } catch (error) {
      this.file.close();
      throw error;
    }
    this.bitmap = new DirtyBitmap(this.mapping.buffer);
  }

  close(): void {
    this.mapping.unmap();
    this.file.close();
  }
}

/** A log for guest memory from address 0 on. */
export class DirtyLog {
  #log: LogFile;

  /** @param end First address behind guest memory. */
  constructor(end: number) {
    this.#log = new LogFile(end);
  }

  /** The bits; others when memory grew. `drain` gives what was written since it was called last. */
  get bitmap(): DirtyBitmap {
    return this.#log.bitmap;
  }

  /** Gives it to a back end. */
  give(connection: Connection): Promise<void> {
    const { size, file } = this.#log;
    return connection.ask(
      Request.SET_LOG_BASE,
      encodeLog({ size: BigInt(size), offset: 0n }),
      () => {},
      [file.descriptor],
    );
  }

  /** Makes it long enough for memory that is to come, and gives it to the back end again if it has to be longer. */
  async grow(end: number, connection: Connection): Promise<void> {
    const old = this.#log;
    if (end <= old.size * 8 * DIRTY_PAGE_SIZE) return;
    this.#log = new LogFile(end);
    try {
      await this.give(connection);
    } finally {
      // What was written there until the back end had the new one.
      old.bitmap.drain((address, length) => this.bitmap.mark(address, length));
      old.close();
    }
  }

  /** Gives it back. */
  close(): void {
    this.#log.close();
  }
}

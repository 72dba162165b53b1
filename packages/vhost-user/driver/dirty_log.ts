/** The dirty log: what the back end wrote to guest memory, a bit for each page, in memory that both see. */
import { MemoryFile, Seal, SharedMapping } from "@virtio/linux";
import { DIRTY_PAGE_SIZE, DirtyBitmap } from "@virtio/memory";
import { encodeLog, FrontEndRequest as Request } from "../protocol/mod.ts";
import type { Connection } from "./connection.ts";

const PAGE = 4096;

/** A log for guest memory from address 0 on. */
export class DirtyLog {
  /** The bits. */
  readonly bitmap: DirtyBitmap;
  readonly #file: MemoryFile;
  readonly #mapping: SharedMapping;
  readonly #size: number;

  /** @param end First address behind guest memory. */
  constructor(end: number) {
    const bytes = Math.ceil(Math.ceil(end / DIRTY_PAGE_SIZE) / 8);
    this.#size = Math.ceil(bytes / PAGE) * PAGE;
    this.#file = MemoryFile.create(this.#size, "virtio-dirty-log");
    try {
      this.#file.addSeals(Seal.shrink);
      this.#mapping = new SharedMapping(this.#file.descriptor, 0, this.#size);
    } catch (error) {
      this.#file.close();
      throw error;
    }
    this.bitmap = new DirtyBitmap(this.#mapping.buffer);
  }

  /** Gives it to a back end. */
  give(connection: Connection): Promise<void> {
    return connection.ask(
      Request.SET_LOG_BASE,
      encodeLog({ size: BigInt(this.#size), offset: 0n }),
      () => {},
      [this.#file.descriptor],
    );
  }

  /** Gives it back. */
  close(): void {
    this.#mapping.unmap();
    this.#file.close();
  }
}

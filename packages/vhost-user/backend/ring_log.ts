/** The dirty log of one front end, and which rings count as another place in it. */
import type { SharedMapping } from "@virtio/linux";
import { isQueueSize, ringLayout } from "@virtio/vring";
import type { Message } from "../protocol/channel.ts";
import { ProtocolError } from "../protocol/errors.ts";
import { decodeLog, VHOST_VRING_F_LOG } from "../protocol/payloads.ts";
import { type DirtyLogPlace, type LogShift, mapLog } from "./dirty_log.ts";
import type { MemoryTable } from "./memory_table.ts";
import type { Vring } from "./vring.ts";

/** Used by `Rings`. */
export class RingLog {
  /** Whether what the device writes is logged (VHOST_F_LOG_ALL). */
  enabled = false;
  #log: SharedMapping | null = null;

  /**
   * SET_LOG_BASE.
   *
   * @returns The log before, to be unmapped once nobody writes there.
   * @throws {ProtocolError} If it cannot be.
   */
  replace(message: Message): SharedMapping | null {
    const descriptor = message.descriptorCount === 0 ? -1 : message.descriptor(0);
    if (descriptor < 0) throw new ProtocolError("A log came without its memory");
    const log = mapLog(decodeLog(message.payload), descriptor);
    const before = this.#log;
    this.#log = log;
    return before;
  }

  /** What the device is to be told; null if nothing is logged. */
  place(rings: readonly Vring[], table: MemoryTable, packed: boolean): DirtyLogPlace | null {
    const log = this.#log;
    if (log === null || !this.enabled) return null;
    const shifts: LogShift[] = [];
    const format = packed ? "packed" : "split";
    for (const { address, size } of rings) {
      if (address === null || (address.flags & VHOST_VRING_F_LOG) === 0) continue;
      const from = table.translate(address.used);
      const to = Number(address.log);
      if (from < 0 || from === to || !Number.isSafeInteger(to)) continue;
      if (!isQueueSize(format, size)) continue;
      shifts.push({ from, length: ringLayout(format, size).deviceArea.size, to });
    }
    return { buffer: log.buffer, size: log.length, shifts };
  }

  /** Forgets it. Nobody writes there any more. */
  close(): void {
    this.#log?.unmap();
    this.#log = null;
  }
}

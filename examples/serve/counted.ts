/** What serve:blk and its workers have in common. */
import type { LinuxBackendOptions } from "@virtio/blk/linux";

/** Which disk it is. */
export interface BlkWorkerData {
  readonly path: string;
  readonly id: string;
  readonly queues: number;
  readonly options: Pick<LinuxBackendOptions, "readonly" | "engine" | "direct">;
  /** What workers count: `COUNTED` numbers for each. */
  readonly counted: SharedArrayBuffer;
}

/** Numbers that a worker counts: requests, bytes read, bytes written, milliseconds, flushes, discards, errors. */
export const COUNTED = 7;

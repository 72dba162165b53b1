/** The disk of the block device's tests, whichever way its back end answers. Not published. */
import type { BlkBackend } from "./backend.ts";
import { EngineBackend } from "./backends/engine_testing.ts";
import { LaterBackend } from "./backends/later_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";

/** Statuses, in short. */
export const {
  VIRTIO_BLK_S_IOERR: IOERR,
  VIRTIO_BLK_S_OK: OK,
  VIRTIO_BLK_S_UNSUPP: UNSUPP,
} = blk;

/** In bytes. */
export const SIZE = 1024 * 1024;
/** The same in sectors. */
export const SECTORS = SIZE / 512;

/** The same disk, answering at once, with small pieces taken together or not, or later. */
export const kinds: [string, (bytes: Uint8Array) => BlkBackend][] = [
  ["at once", (bytes) => new MemoryBackend(bytes)],
  [
    "at once, pieces together",
    (bytes) => Object.assign(new MemoryBackend(bytes), { gather: true }),
  ],
  ["later", (bytes) => new LaterBackend(new MemoryBackend(bytes))],
  ["by an engine at once", (bytes) => new EngineBackend(new MemoryBackend(bytes))],
  [
    "by an engine, later and bit by bit",
    (bytes) => new EngineBackend(new MemoryBackend(bytes), { later: true, most: 1536 }),
  ],
];

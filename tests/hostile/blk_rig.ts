/** A block device for drivers that break rules: requests in raw descriptors, at fixed addresses. */
import { assertEquals } from "@std/assert";
import {
  BlkDevice,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_FLUSH,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_T_IN,
} from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import type { RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, type Bus, Machine, turns } from "./machine.ts";

/** Sectors of its disk. */
const SECTORS = 128;
/** What its drivers accept, beside the ring's format. */
export const BLK_FEATURES = VIRTIO_BLK_F_FLUSH | VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES |
  VIRTIO_F_INDIRECT_DESC;
/** Where requests lie. */
export const HEADER = BUFFERS;
export const DATA = BUFFERS + 0x1000;
export const STATUS = BUFFERS + 0x8000;
/** What the status byte reads before it is written. */
export const UNTOUCHED = 0xee;

/** A block device whose disk holds its sector numbers, and a machine around it. */
export function setup(bus: Bus, later = false) {
  const bytes = new Uint8Array(SECTORS * 512);
  for (let sector = 0; sector < SECTORS; sector++) {
    bytes.fill(sector + 1, sector * 512, (sector + 1) * 512);
  }
  const memory = new MemoryBackend(bytes);
  const backend = later ? new LaterBackend(memory) : memory;
  const device = new BlkDevice({ backend, queueSize: 64, id: "hostile" });
  const machine = new Machine(device, bus);
  return { machine, bytes, device, backend };
}

/** What `setup` makes. */
export type Rig = ReturnType<typeof setup>;

/** Writes the header of a request. */
export function putHeader(rig: Rig, type: number, sector: bigint, at = HEADER): void {
  rig.machine.memory.writeU32(at, type);
  rig.machine.memory.writeU32(at + 4, 0);
  rig.machine.memory.writeU32(at + 8, Number(sector & 0xffff_ffffn));
  rig.machine.memory.writeU32(at + 12, Number(sector >> 32n));
}

/** Sends a chain, and gives what was used of it and the status byte. */
export async function send(
  rig: Rig,
  chain: readonly RawDescriptor[],
): Promise<{ used: number[]; status: number }> {
  const { machine } = rig;
  machine.memory.writeU8(STATUS, UNTOUCHED);
  machine.rings[0]!.send(chain);
  machine.kick();
  await turns(2);
  return {
    used: machine.rings[0]!.takeUsed().map(({ length }) => length),
    status: machine.memory.readU8(STATUS),
  };
}

/** The descriptors of a request. */
export const header = { address: HEADER, length: 16 };
export const status = { address: STATUS, length: 1, write: true };
export const data = (length: number, write: boolean) => ({ address: DATA, length, write });

/** A read of sector 3 works. */
export async function works(rig: Rig): Promise<void> {
  putHeader(rig, VIRTIO_BLK_T_IN, 3n);
  rig.machine.memory.fill(DATA, 512);
  assertEquals(await send(rig, [header, data(512, true), status]), {
    used: [513],
    status: VIRTIO_BLK_S_OK,
  });
  assertEquals(rig.machine.memory.readU8(DATA + 511), 4);
}

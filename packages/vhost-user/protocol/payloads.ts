/**
 * Payloads of vhost-user messages: fields to bytes and back. All numbers are in the byte order of the machine, which is little
 * endian wherever this runs. What is read is what the other side wrote; only what the bytes themselves say is checked.
 */
import { ProtocolError } from "./errors.ts";
import { MAX_CONFIG_SIZE, MAX_TABLE_REGIONS } from "./messages.ts";

const view = (bytes: Uint8Array): DataView =>
  new DataView(bytes.buffer, bytes.byteOffset, bytes.length);

/** A number of a vring: its size, its base, whether it is enabled. */
export interface VringState {
  /** Which vring. */
  readonly index: number;
  /** The number. */
  readonly value: number;
}

/** Where a vring is. */
export interface VringAddress {
  /** Which vring. */
  readonly index: number;
  /** 1 (VHOST_VRING_F_LOG): what the device writes into the used ring is logged, from `log` on. */
  readonly flags: number;
  /** Descriptor table, in the address space of the front end, as the next two. */
  readonly descriptors: bigint;
  /** Used ring; packed: the event structure that the device writes. */
  readonly used: bigint;
  /** Available ring; packed: the event structure that the driver writes. */
  readonly available: bigint;
  /** Guest address that the first byte of the used ring counts as in the dirty log. */
  readonly log: bigint;
}

/** VHOST_VRING_F_LOG of `VringAddress.flags`. */
export const VHOST_VRING_F_LOG = 1;

/** A piece of guest memory, in a file whose descriptor comes with the message. */
export interface MemoryTableRegion {
  /** Guest-physical address of the first byte. */
  readonly guestAddress: bigint;
  /** Bytes. */
  readonly size: bigint;
  /** Address of the first byte in the front end. */
  readonly userAddress: bigint;
  /** Offset of the first byte in the file. */
  readonly offset: bigint;
}

/** Where the dirty log is in its file. */
export interface LogArea {
  /** Bytes. */
  readonly size: bigint;
  /** Offset in the file. */
  readonly offset: bigint;
}

/** A part of the configuration space. */
export interface ConfigArea {
  /** First byte. */
  readonly offset: number;
  /** 1: written by a migration, which read-only fields take too; 0: written by the driver. */
  readonly flags: number;
  /** The bytes. */
  readonly bytes: Uint8Array;
}

/** The memory in which requests in flight are written down. */
export interface InflightArea {
  /** Bytes. */
  readonly size: bigint;
  /** Offset in its file. */
  readonly offset: bigint;
  /** Queues that it is for. */
  readonly queues: number;
  /** Entries of each queue. */
  readonly queueSize: number;
}

/** What SET_VRING_KICK, SET_VRING_CALL and SET_VRING_ERR carry. */
export interface VringDescriptor {
  /** Which vring. */
  readonly index: number;
  /** Whether no descriptor comes with it. */
  readonly none: boolean;
}

/** Writes a u64. */
export function encodeU64(value: bigint): Uint8Array {
  const bytes = new Uint8Array(8);
  view(bytes).setBigUint64(0, value, true);
  return bytes;
}

/** Reads a u64. */
export function decodeU64(bytes: Uint8Array): bigint {
  return view(bytes).getBigUint64(0, true);
}

/** Writes the u64 of a message that may bring a vring's descriptor. */
export function encodeVringDescriptor({ index, none }: VringDescriptor): Uint8Array {
  return encodeU64(BigInt(index & 0xff) | (none ? 0x100n : 0n));
}

/** Reads it. @throws {ProtocolError} If it has other bits than it may. */
export function decodeVringDescriptor(bytes: Uint8Array): VringDescriptor {
  const value = decodeU64(bytes);
  if (value >= 0x200n) {
    throw new ProtocolError(`No vring and descriptor is 0x${value.toString(16)}`);
  }
  return { index: Number(value & 0xffn), none: (value & 0x100n) !== 0n };
}

/** Writes a vring's number. */
export function encodeVringState({ index, value }: VringState): Uint8Array {
  const bytes = new Uint8Array(8);
  view(bytes).setUint32(0, index, true);
  view(bytes).setUint32(4, value, true);
  return bytes;
}

/** Reads it. */
export function decodeVringState(bytes: Uint8Array): VringState {
  return { index: view(bytes).getUint32(0, true), value: view(bytes).getUint32(4, true) };
}

/** Writes a vring's addresses. */
export function encodeVringAddress(address: VringAddress): Uint8Array {
  const bytes = new Uint8Array(40);
  const fields = view(bytes);
  fields.setUint32(0, address.index, true);
  fields.setUint32(4, address.flags, true);
  fields.setBigUint64(8, address.descriptors, true);
  fields.setBigUint64(16, address.used, true);
  fields.setBigUint64(24, address.available, true);
  fields.setBigUint64(32, address.log, true);
  return bytes;
}

/** Reads them. */
export function decodeVringAddress(bytes: Uint8Array): VringAddress {
  const fields = view(bytes);
  return {
    index: fields.getUint32(0, true),
    flags: fields.getUint32(4, true),
    descriptors: fields.getBigUint64(8, true),
    used: fields.getBigUint64(16, true),
    available: fields.getBigUint64(24, true),
    log: fields.getBigUint64(32, true),
  };
}

function writeRegion(fields: DataView, at: number, region: MemoryTableRegion): void {
  fields.setBigUint64(at, region.guestAddress, true);
  fields.setBigUint64(at + 8, region.size, true);
  fields.setBigUint64(at + 16, region.userAddress, true);
  fields.setBigUint64(at + 24, region.offset, true);
}

function readRegion(fields: DataView, at: number): MemoryTableRegion {
  return {
    guestAddress: fields.getBigUint64(at, true),
    size: fields.getBigUint64(at + 8, true),
    userAddress: fields.getBigUint64(at + 16, true),
    offset: fields.getBigUint64(at + 24, true),
  };
}

/** Writes a memory table. @throws {RangeError} If it has more regions than fit. */
export function encodeMemoryTable(regions: readonly MemoryTableRegion[]): Uint8Array {
  if (regions.length > MAX_TABLE_REGIONS) {
    throw new RangeError(
      `A memory table has ${MAX_TABLE_REGIONS} regions at most: there are ${regions.length}`,
    );
  }
  const bytes = new Uint8Array(8 + 32 * regions.length);
  view(bytes).setUint32(0, regions.length, true);
  regions.forEach((region, i) => writeRegion(view(bytes), 8 + 32 * i, region));
  return bytes;
}

/** Reads it. @throws {ProtocolError} If it says more regions than it has. */
export function decodeMemoryTable(bytes: Uint8Array): MemoryTableRegion[] {
  const count = view(bytes).getUint32(0, true);
  if (count > MAX_TABLE_REGIONS || 8 + 32 * count > bytes.length) {
    throw new ProtocolError(`A memory table of ${bytes.length} bytes has no ${count} regions`);
  }
  return Array.from({ length: count }, (_, i) => readRegion(view(bytes), 8 + 32 * i));
}

/** Writes a single region. */
export function encodeRegion(region: MemoryTableRegion): Uint8Array {
  const bytes = new Uint8Array(40);
  writeRegion(view(bytes), 8, region);
  return bytes;
}

/** Reads it. */
export function decodeRegion(bytes: Uint8Array): MemoryTableRegion {
  return readRegion(view(bytes), 8);
}

/** Writes where the dirty log is. */
export function encodeLog({ size, offset }: LogArea): Uint8Array {
  const bytes = new Uint8Array(16);
  view(bytes).setBigUint64(0, size, true);
  view(bytes).setBigUint64(8, offset, true);
  return bytes;
}

/** Reads it. @throws {ProtocolError} If it is too short. */
export function decodeLog(bytes: Uint8Array): LogArea {
  if (bytes.length !== 16) {
    throw new ProtocolError(`Where a log is takes 16 bytes: ${bytes.length} came`);
  }
  return { size: view(bytes).getBigUint64(0, true), offset: view(bytes).getBigUint64(8, true) };
}

/** Writes a part of the configuration space. @throws {RangeError} If it is too long. */
export function encodeConfig({ offset, flags, bytes }: ConfigArea): Uint8Array {
  if (bytes.length > MAX_CONFIG_SIZE) {
    throw new RangeError(
      `A message takes ${MAX_CONFIG_SIZE} bytes of configuration: there are ${bytes.length}`,
    );
  }
  const message = new Uint8Array(12 + bytes.length);
  view(message).setUint32(0, offset, true);
  view(message).setUint32(4, bytes.length, true);
  view(message).setUint32(8, flags, true);
  message.set(bytes, 12);
  return message;
}

/** Reads it. @throws {ProtocolError} If it has other bytes than it says. */
export function decodeConfig(bytes: Uint8Array): ConfigArea {
  const size = view(bytes).getUint32(4, true);
  if (size > MAX_CONFIG_SIZE || 12 + size !== bytes.length) {
    throw new ProtocolError(
      `A message of ${bytes.length} bytes has no ${size} bytes of configuration`,
    );
  }
  return {
    offset: view(bytes).getUint32(0, true),
    flags: view(bytes).getUint32(8, true),
    bytes: bytes.slice(12),
  };
}

/** Writes the description of the memory for requests in flight. */
export function encodeInflight(area: InflightArea, length: 20 | 24 = 24): Uint8Array {
  const bytes = new Uint8Array(length);
  view(bytes).setBigUint64(0, area.size, true);
  view(bytes).setBigUint64(8, area.offset, true);
  view(bytes).setUint16(16, area.queues, true);
  view(bytes).setUint16(18, area.queueSize, true);
  return bytes;
}

/** Reads it. */
export function decodeInflight(bytes: Uint8Array): InflightArea {
  return {
    size: view(bytes).getBigUint64(0, true),
    offset: view(bytes).getBigUint64(8, true),
    queues: view(bytes).getUint16(16, true),
    queueSize: view(bytes).getUint16(18, true),
  };
}

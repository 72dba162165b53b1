/** Bytes of one register access. Wider accesses of a bus are split by the embedder. */
export type Width = 1 | 2 | 4;

/** The part of an aligned 32-bit value that an access of `size` bytes at `offset` sees; 0 if the access is not aligned. */
export function partOf(value: number, offset: number, size: Width): number {
  if ((offset & (size - 1)) !== 0) return 0;
  const part = value >>> ((offset & 3) * 8);
  return size === 4 ? part >>> 0 : part & (size === 2 ? 0xffff : 0xff);
}

/** Reads little-endian bytes; those beyond the end are 0. */
export function readBytes(bytes: Uint8Array, offset: number, size: Width): number {
  let value = 0;
  for (let i = 0; i < size; i++) value |= (bytes[offset + i] ?? 0) << (8 * i);
  return value >>> 0;
}

/** Writes little-endian bytes; those beyond the end are dropped. */
export function writeBytes(bytes: Uint8Array, offset: number, size: Width, value: number): void {
  for (let i = 0; i < size; i++) {
    if (offset + i < bytes.length) bytes[offset + i] = value >>> (8 * i);
  }
}

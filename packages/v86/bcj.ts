/**
 * The x86 branch filter of .xz: the packer made the targets of CALL and JMP absolute so that they repeat; this makes them
 * relative again.
 */

/** The most significant byte of a plausible 32-bit displacement: near code, forwards or backwards. */
function isSignByte(byte: number): boolean {
  return byte === 0x00 || byte === 0xff;
}

/**
 * Undoes the filter in place over one whole block.
 *
 * An opcode byte (E8, E9) may itself be part of the operand of one up to three bytes before it that was not converted.
 * `recent` remembers those as bits (bit 0: one byte before … bit 2: three bytes before), since the packer's decision
 * depended on them.
 */
export function unfilterX86(bytes: Uint8Array): void {
  const end = bytes.length - 4;
  let recent = 0;
  let last = -8;
  let i = 0;
  while (i < end) {
    if ((bytes[i]! & 0xfe) !== 0xe8) {
      i++;
      continue;
    }
    const distance = i - last;
    recent = distance > 3 ? 0 : recent << distance - 1 & 7;
    last = i;
    // The packer skipped an opcode if two or more earlier ones overlap it, or if the operand byte at which the nearest
    // overlapping one ends looks like a sign byte.
    const overlap = recent === 0 ? 0 : recent === 1 ? 1 : recent < 4 ? 2 : 3;
    const skipped = recent === 3 || recent > 4 ||
      (recent !== 0 && isSignByte(bytes[i + 4 - overlap]!));
    if (skipped || !isSignByte(bytes[i + 4]!)) {
      recent = recent << 1 & 7 | 1;
      i++;
      continue;
    }
    let value = bytes[i + 1]! | bytes[i + 2]! << 8 | bytes[i + 3]! << 16 | bytes[i + 4]! << 24;
    let target: number;
    for (;;) {
      target = value - (i + 5) | 0;
      if (overlap === 0 || !isSignByte(target >>> 24 - overlap * 8 & 0xff)) break;
      value = target ^ (2 ** (32 - overlap * 8) - 1);
    }
    bytes[i + 1] = target;
    bytes[i + 2] = target >>> 8;
    bytes[i + 3] = target >>> 16;
    bytes[i + 4] = target & 0x100_0000 ? 0xff : 0x00;
    i += 5;
    // A converted instruction leaves no trace: whatever follows starts afresh.
  }
}

/**
 * The few ACPI Machine Language terms and resource descriptors that a DSDT of a virtual machine needs. Every function
 * returns the encoded bytes of one term; terms nest by passing bytes on. Section numbers are those of ACPI 6.4.
 */

/** Encoded AML. */
export type Aml = readonly number[];

function u16(value: number): number[] {
  return [value & 0xff, value >>> 8 & 0xff];
}

function u32(value: number): number[] {
  return [...u16(value & 0xffff), ...u16(value >>> 16)];
}

/** PkgLength (20.2.4) of a body, followed by the body. The length counts itself. */
function packaged(body: Aml): number[] {
  const { length } = body;
  if (length + 1 <= 0x3f) return [length + 1, ...body];
  for (let extra = 1; extra <= 3; extra++) {
    const total = length + 1 + extra;
    if (total < 2 ** (4 + 8 * extra)) {
      const bytes = [extra << 6 | total & 0x0f];
      for (let i = 0; i < extra; i++) bytes.push(Math.floor(total / 2 ** (4 + 8 * i)) & 0xff);
      return [...bytes, ...body];
    }
  }
  throw new RangeError(`AML package of ${length} bytes is too long: 2^28 - 5 is the limit`);
}

/**
 * A name of up to four characters per segment, as `\_SB` or `PCI0`; short segments are padded with underscores (20.2.2).
 *
 * @throws {RangeError} If a segment is not a valid ACPI name. Only one segment is supported, which is all that is needed.
 */
export function nameString(name: string): Aml {
  const root = name.startsWith("\\");
  const segment = root ? name.slice(1) : name;
  if (!/^[A-Z_][A-Z0-9_]{0,3}$/.test(segment)) {
    throw new RangeError(`Not an ACPI name of one segment: ${JSON.stringify(name)}`);
  }
  const bytes = [...segment.padEnd(4, "_")].map((letter) => letter.charCodeAt(0));
  return root ? [0x5c, ...bytes] : bytes;
}

/** An integer of up to 32 bits in its shortest form (20.2.3). */
export function integer(value: number): Aml {
  if (!Number.isInteger(value) || value < 0 || value > 0xffff_ffff) {
    throw new RangeError(`AML integer must be within 32 bits: it is ${value}`);
  }
  if (value <= 1) return [value];
  if (value <= 0xff) return [0x0a, value];
  if (value <= 0xffff) return [0x0b, ...u16(value)];
  return [0x0c, ...u32(value)];
}

/** A string of ASCII characters (20.2.3). */
export function string(text: string): Aml {
  if (!/^[ -~]*$/.test(text)) throw new RangeError("AML strings are printable ASCII");
  return [0x0d, ...[...text].map((letter) => letter.charCodeAt(0)), 0];
}

/** A compressed EISA identifier such as `PNP0A03` (19.3.4). */
export function eisaId(id: string): Aml {
  if (!/^[A-Z]{3}[0-9A-F]{4}$/.test(id)) throw new RangeError(`Not an EISA identifier: ${id}`);
  const letter = (index: number): number => id.charCodeAt(index) - 0x40;
  const vendor = letter(0) << 10 | letter(1) << 5 | letter(2);
  const product = parseInt(id.slice(3), 16);
  return [0x0c, vendor >>> 8, vendor & 0xff, product >>> 8, product & 0xff];
}

/** `Name (name, value)` (20.2.5.1). */
export function name(path: string, value: Aml): Aml {
  return [0x08, ...nameString(path), ...value];
}

/** `Package () { … }` (20.2.5.4). */
export function packageOf(elements: readonly Aml[]): Aml {
  if (elements.length > 255) throw new RangeError("An AML Package holds at most 255 elements");
  return [0x12, ...packaged([elements.length, ...elements.flat()])];
}

/** `Buffer () { … }` (20.2.5.4). */
export function buffer(bytes: Aml): Aml {
  return [0x11, ...packaged([...integer(bytes.length), ...bytes])];
}

/** `Scope (path) { … }` (20.2.5.1). */
export function scope(path: string, terms: readonly Aml[]): Aml {
  return [0x10, ...packaged([...nameString(path), ...terms.flat()])];
}

/** `Device (path) { … }` (20.2.5.2). */
export function device(path: string, terms: readonly Aml[]): Aml {
  return [0x5b, 0x82, ...packaged([...nameString(path), ...terms.flat()])];
}

/** `ResourceTemplate () { … }`: descriptors, the end tag, and its unused checksum (6.4.2.8). */
export function resources(descriptors: readonly Aml[]): Aml {
  return buffer([...descriptors.flat(), 0x79, 0x00]);
}

/** Fixed 32-bit memory range, writable (6.4.3.4). */
export function memory32Fixed(base: number, length: number): Aml {
  return [0x86, ...u16(9), 0x01, ...u32(base), ...u32(length)];
}

/** Extended interrupt descriptor: consumer, level, active high, shared (6.4.3.6). */
export function levelInterrupt(gsi: number): Aml {
  return [0x89, ...u16(6), 0x09, 1, ...u32(gsi)];
}

/** I/O port range that is decoded with 16 bits and does not move (6.4.2.5). */
export function ioPorts(first: number, length: number): Aml {
  return [0x47, 0x01, ...u16(first), ...u16(first), 0x01, length];
}

/** Flags of an address space that a bridge produces, with fixed minimum and maximum (6.4.3.5). */
const PRODUCER_FIXED = 0x0c;

/** Word address space of a bus number range (6.4.3.5.3). */
export function busNumbers(first: number, last: number): Aml {
  return wordSpace(2, 0, first, last);
}

/** Word address space of an I/O window, entire range (6.4.3.5.3). */
export function ioWindow(first: number, last: number): Aml {
  return wordSpace(1, 0x03, first, last);
}

/** DWord address space of a memory window: writable, not cacheable (6.4.3.5.2). */
export function memoryWindow(first: number, last: number): Aml {
  return [
    0x87,
    ...u16(0x17),
    0x00,
    PRODUCER_FIXED,
    0x01,
    ...u32(0),
    ...u32(first),
    ...u32(last),
    ...u32(0),
    ...u32(last - first + 1),
  ];
}

function wordSpace(type: number, typeFlags: number, first: number, last: number): Aml {
  return [
    0x88,
    ...u16(0x0d),
    type,
    PRODUCER_FIXED,
    typeFlags,
    ...u16(0),
    ...u16(first),
    ...u16(last),
    ...u16(0),
    ...u16(last - first + 1),
  ];
}

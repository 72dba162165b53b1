/** Small guest programs for tests: 32-bit x86 by hand, as a kernel that `bootLinux` takes. */

/** Where a program is loaded and entered. */
export const PROGRAM_ADDRESS = 0x20_0000;

const SERIAL = 0x3f8;
const PM1_CONTROL = 0xb004;

/** Width of an access in bytes. */
type Width = 1 | 2 | 4;

/** Collects instructions. Values go through EAX, ports through EDX. */
export class Program {
  readonly #bytes: number[] = [];

  /** Address of the next instruction. */
  get here(): number {
    return PROGRAM_ADDRESS + this.#bytes.length;
  }

  /** Instructions as they are. */
  raw(...bytes: number[]): this {
    this.#bytes.push(...bytes);
    return this;
  }

  /** `mov eax, value` */
  value(value: number): this {
    return this.raw(0xb8, ...word(value));
  }

  /** Writes a value to a port. */
  out(port: number, width: Width, value: number): this {
    this.value(value).raw(0xba, ...word(port));
    return this.raw(...(width === 1 ? [0xee] : width === 2 ? [0x66, 0xef] : [0xef]));
  }

  /** Reads a port into EAX. */
  in(port: number, width: Width): this {
    this.value(0).raw(0xba, ...word(port));
    return this.raw(...(width === 1 ? [0xec] : width === 2 ? [0x66, 0xed] : [0xed]));
  }

  /** Writes a value to memory. */
  store(address: number, width: Width, value: number): this {
    this.value(value);
    return this.raw(
      ...(width === 1 ? [0xa2] : width === 2 ? [0x66, 0xa3] : [0xa3]),
      ...word(address),
    );
  }

  /** Reads memory into EAX. */
  load(address: number, width: Width): this {
    this.value(0);
    return this.raw(
      ...(width === 1 ? [0xa0] : width === 2 ? [0x66, 0xa1] : [0xa1]),
      ...word(address),
    );
  }

  /** Sends EAX to the serial port, lowest byte first. */
  report(): this {
    this.raw(0xba, ...word(SERIAL));
    for (let i = 0; i < 4; i++) this.raw(0xee, 0xc1, 0xe8, 0x08); // out dx, al; shr eax, 8
    return this;
  }

  /** Writes a register of PCI configuration space. */
  configWrite(slot: number, register: number, width: Width, value: number): this {
    this.out(0xcf8, 4, (0x8000_0000 | slot << 11 | register & 0xfc) >>> 0);
    return this.out(0xcfc + (register & 3), width, value);
  }

  /** Reads a register of PCI configuration space into EAX. */
  configRead(slot: number, register: number, width: Width): this {
    this.out(0xcf8, 4, (0x8000_0000 | slot << 11 | register & 0xfc) >>> 0);
    return this.in(0xcfc + (register & 3), width);
  }

  /** Switches the machine off. */
  powerOff(): this {
    return this.out(PM1_CONTROL, 2, 1 << 13).raw(0xeb, 0xfe);
  }

  /** The program as an ELF kernel. */
  kernel(): Uint8Array {
    const bytes = new Uint8Array(0x1000 + this.#bytes.length);
    const view = new DataView(bytes.buffer);
    view.setUint32(0, 0x464c457f, true);
    bytes.set([1, 1, 1], 4);
    view.setUint16(18, 3, true);
    view.setUint32(24, PROGRAM_ADDRESS, true);
    view.setUint32(28, 52, true);
    view.setUint16(42, 32, true);
    view.setUint16(44, 1, true);
    const { length } = this.#bytes;
    [1, 0x1000, PROGRAM_ADDRESS, PROGRAM_ADDRESS, length, length].forEach((field, i) =>
      view.setUint32(52 + 4 * i, field, true)
    );
    bytes.set(this.#bytes, 0x1000);
    return bytes;
  }
}

function word(value: number): number[] {
  return [0, 8, 16, 24].map((shift) => value >>> shift & 0xff);
}

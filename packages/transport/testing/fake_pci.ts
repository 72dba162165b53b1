import type { PciAccess, PciBar, PciFunction } from "../pci/function.ts";
import type { Width } from "../width.ts";

/** One access of a driver. */
export interface Access {
  readonly write: boolean;
  /** BAR, or null for configuration space. */
  readonly bar: number | null;
  readonly offset: number;
  readonly size: Width;
  readonly value: number;
}

/** Passes accesses on and writes them down; the answers of reads can be changed. */
export class RecordingPci implements PciFunction {
  readonly log: Access[] = [];
  /** Changes what a read gives. */
  onRead: (access: Access) => number = (access) => access.value;
  readonly bars: readonly (PciBar | null)[];
  readonly #inner: PciFunction;

  constructor(inner: PciFunction) {
    this.bars = inner.bars;
    this.#inner = inner;
  }

  barAddress(index: number): number | null {
    return this.#inner.barAddress(index);
  }

  configRead(offset: number, size: Width): number {
    return this.#read(null, offset, size, this.#inner.configRead(offset, size));
  }

  configWrite(offset: number, size: Width, value: number): void {
    this.log.push({ write: true, bar: null, offset, size, value });
    this.#inner.configWrite(offset, size, value);
  }

  barRead(bar: number, offset: number, size: Width): number {
    return this.#read(bar, offset, size, this.#inner.barRead(bar, offset, size));
  }

  barWrite(bar: number, offset: number, size: Width, value: number): void {
    this.log.push({ write: true, bar, offset, size, value });
    this.#inner.barWrite(bar, offset, size, value);
  }

  #read(bar: number | null, offset: number, size: Width, value: number): number {
    const access = { write: false, bar, offset, size, value };
    this.log.push(access);
    return this.onRead(access);
  }
}

/** A configuration space with capabilities of one's choice, for probing; its BARs read 0 and record nothing. */
export class FakePci implements PciAccess {
  readonly bytes = new Uint8Array(256);
  readonly #view = new DataView(this.bytes.buffer);
  #next = 0x40;
  #link = 0x34;

  constructor(vendorId = 0x1af4, deviceId = 0x1044) {
    this.#view.setUint16(0, vendorId, true);
    this.#view.setUint16(2, deviceId, true);
    this.#view.setUint16(6, 0x10, true);
  }

  /** Appends a capability; `length` bytes of space, whatever it says of itself. */
  cap(bytes: readonly number[], length = bytes.length): number {
    const at = this.#next;
    this.bytes.set(bytes, at);
    this.bytes[this.#link] = at;
    this.bytes[at + 1] = 0;
    this.#link = at + 1;
    this.#next += (length + 3) & ~3;
    return at;
  }

  /** Appends a structure capability; `extra` are 32-bit words after it. */
  structure(
    cfgType: number,
    bar: number,
    offset: number,
    length: number,
    extra: readonly number[] = [],
    size = 16 + 4 * extra.length,
  ): number {
    const words = new Uint32Array([offset, length, ...extra]);
    const at = this.cap([9, 0, size, cfgType, bar, 0, 0, 0, ...new Uint8Array(words.buffer)]);
    return at;
  }

  /** The structures that a device has to have, in BAR 4. */
  usual(): this {
    this.structure(1, 4, 0, 0x40);
    this.structure(3, 4, 0x1000, 1);
    this.structure(2, 4, 0x3000, 0x1000, [4]);
    return this;
  }

  configRead(offset: number, size: Width): number {
    let value = 0;
    for (let i = 0; i < size; i++) value |= (this.bytes[offset + i] ?? 0xff) << (8 * i);
    return value >>> 0;
  }

  configWrite(_offset: number, _size: Width, _value: number): void {}

  barRead(_bar: number, _offset: number, _size: Width): number {
    return 0;
  }

  barWrite(_bar: number, _offset: number, _size: Width, _value: number): void {}
}

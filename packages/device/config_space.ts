/** A range of a configuration space. */
export interface ConfigRange {
  /** First byte. */
  readonly offset: number;
  /** Bytes. */
  readonly length: number;
}

/**
 * The device-specific configuration space (virtio 1.4, 2.5): little-endian bytes, a generation that changes with them, and
 * the one place that knows what an access of some width at some offset means.
 */
export class ConfigSpace {
  /** A space of no bytes, for devices without configuration. */
  static readonly empty: ConfigSpace = new ConfigSpace(0);

  /** The bytes as the driver reads them. */
  readonly bytes: Uint8Array;
  /** The same bytes. */
  readonly view: DataView;
  /** What the driver may write at any time; null if nothing. */
  readonly anytime: ConfigRange | null;
  readonly #onWrite: ((offset: number, bytes: Uint8Array) => boolean) | null;
  #generation = 0;
  #listener: (() => void) | null = null;
  /** While held: the bytes as they will be. */
  #next: DataView | null = null;
  #pending = false;

  /**
   * @param size Bytes.
   * @param onWrite Asked about each write of the driver, with the offset and the bytes that it wants there; true takes them.
   * Without it the space is read-only to the driver.
   * @param anytime What the driver may write at any time: before FEATURES_OK, and while suspended (5.3.5.1); nothing unless
   * given.
   */
  constructor(
    size: number,
    onWrite?: (offset: number, bytes: Uint8Array) => boolean,
    anytime?: ConfigRange,
  ) {
    this.bytes = new Uint8Array(size);
    this.view = new DataView(this.bytes.buffer);
    this.#onWrite = onWrite ?? null;
    this.anytime = anytime ?? null;
  }

  /** Whether the driver may write there even if the device is not set up. Called by `DeviceState`. */
  writableAnytime(offset: number, size: number): boolean {
    const range = this.anytime;
    return range !== null && offset >= range.offset &&
      offset + size <= range.offset + range.length;
  }

  /** Changes whenever the device changes the bytes (2.5, 4.1.4.3.1, 4.2.2.1). 32 bits; transports may show fewer. */
  get generation(): number {
    return this.#generation;
  }

  /**
   * Changes fields on the device's behalf: bumps the generation and has the driver told (a configuration change
   * notification, 3.2.1). While the device is suspended both wait until it runs again (3.4.2).
   *
   * @param change Writes to the view that it is given.
   */
  update(change: (view: DataView) => void): void {
    if (this.#next !== null) {
      change(this.#next);
      this.#pending = true;
      return;
    }
    change(this.view);
    this.#generation = (this.#generation + 1) >>> 0;
    this.#listener?.();
  }

  /** Whether updates wait for `release`. */
  get pending(): boolean {
    return this.#pending;
  }

  /** Keeps the bytes as they are, whatever is updated, until `release`. Called by `DeviceState`. */
  hold(): void {
    this.#next ??= new DataView(this.bytes.slice().buffer);
  }

  /**
   * Makes the updates that waited. The caller tells the driver.
   *
   * @returns Whether there were any.
   */
  release(): boolean {
    const next = this.#next;
    this.#next = null;
    if (next === null || !this.#pending) return false;
    this.#pending = false;
    this.bytes.set(new Uint8Array(next.buffer));
    this.#generation = (this.#generation + 1) >>> 0;
    return true;
  }

  /** Who is told of updates: `DeviceState`. There is one. */
  set listener(listener: (() => void) | null) {
    this.#listener = listener;
  }

  /**
   * A read by the driver. Bytes beyond the end are 0: the space may be shorter than a driver of a later version expects.
   *
   * @param offset Driver-controlled.
   * @param size 1, 2 or 4.
   */
  read(offset: number, size: 1 | 2 | 4): number {
    let value = 0;
    for (let i = 0; i < size; i++) {
      value |= (this.bytes[offset + i] ?? 0) << (8 * i);
    }
    return value >>> 0;
  }

  /**
   * A write by the driver. Ignored unless the device takes it. The generation stays: the driver knows what it wrote.
   *
   * @param offset Driver-controlled.
   * @param size 1, 2 or 4.
   */
  write(offset: number, size: 1 | 2 | 4, value: number): void {
    if (this.#onWrite === null || offset < 0 || offset + size > this.bytes.length) return;
    const bytes = new Uint8Array(size);
    for (let i = 0; i < size; i++) bytes[i] = value >>> (8 * i);
    if (this.#onWrite(offset, bytes)) this.bytes.set(bytes, offset);
  }
}

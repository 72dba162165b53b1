import type { QueueConfig, QueuePosition } from "@virtio/vring";

/** One queue's registers as plain data. */
export interface SavedQueue {
  /** Entries. */
  readonly size: number;
  /** Addresses of the descriptor, driver and device area: all 64 bits that the driver wrote. */
  readonly addresses: readonly [bigint, bigint, bigint];
  /** Whether the driver enabled it. */
  readonly enabled: boolean;
  /** How far it is; null if it was not live. */
  readonly position: QueuePosition | null;
}

/** Which area of a queue: 0 descriptor area, 1 driver area, 2 device area. */
export type QueueArea = 0 | 1 | 2;

/**
 * What the driver is still writing about a queue through registers. Nothing here is checked, because nothing uses it: when
 * the queue goes live, `openQueue` checks all of it and makes a `Queue`, which has no setters. While a queue is enabled
 * writes are ignored, so that a ring cannot be moved under a live device.
 */
export class QueueSetup {
  /** Largest size that the device takes; the size after a reset. */
  readonly maxSize: number;
  /** Whether the driver enabled the queue. Written by `DeviceState` only. */
  enabled = false;
  /** Whether a queue reset is not complete yet. Written by `DeviceState` only. */
  resetting = false;
  #size: number;
  /** Low and high halves of the three addresses. */
  readonly #halves: Uint32Array = new Uint32Array(6);

  /** @param maxSize Largest number of entries. */
  constructor(maxSize: number) {
    this.maxSize = maxSize;
    this.#size = maxSize;
  }

  /** Entries that the driver chose. Driver-controlled. */
  get size(): number {
    return this.#size;
  }

  /** The driver chooses the size. Ignored while the queue is enabled. */
  setSize(value: number): void {
    // What does not fit is too large, and stays so: cut to 16 bits it might look right.
    if (!this.enabled) this.#size = value > 0xffff ? 0xffff : value;
  }

  /** Guest-physical address of an area. Driver-controlled. */
  address(area: QueueArea): number {
    return this.#halves[2 * area]! + this.#halves[2 * area + 1]! * 0x1_0000_0000;
  }

  /** Half of an address: 0 low, 1 high. */
  readAddress(area: QueueArea, half: 0 | 1): number {
    return this.#halves[2 * area + half]!;
  }

  /** The driver writes half of an address. Ignored while the queue is enabled. */
  writeAddress(area: QueueArea, half: 0 | 1, value: number): void {
    if (!this.enabled) this.#halves[2 * area + half] = value;
  }

  /** What `openQueue` takes. */
  config(position?: QueuePosition): QueueConfig {
    return {
      size: this.#size,
      descriptorArea: this.address(0),
      driverArea: this.address(1),
      deviceArea: this.address(2),
      ...(position === undefined ? {} : { position }),
    };
  }

  /** The state after a reset. */
  reset(): void {
    this.enabled = false;
    this.resetting = false;
    this.#size = this.maxSize;
    this.#halves.fill(0);
  }

  /** As plain data. */
  save(position: QueuePosition | null): SavedQueue {
    return {
      size: this.#size,
      addresses: [this.#bits(0), this.#bits(1), this.#bits(2)],
      enabled: this.enabled,
      position,
    };
  }

  #bits(area: QueueArea): bigint {
    return BigInt(this.#halves[2 * area]!) | (BigInt(this.#halves[2 * area + 1]!) << 32n);
  }

  /** @throws {TypeError} If a field has the wrong shape; nothing is taken over then. */
  restore(saved: SavedQueue): void {
    if (
      typeof saved !== "object" || saved === null || typeof saved.enabled !== "boolean" ||
      !Number.isInteger(saved.size) || saved.size < 0 || saved.size > 0xffff ||
      typeof saved.position !== "object" || !Array.isArray(saved.addresses) ||
      saved.addresses.length !== 3 || !saved.addresses.every(isAddress)
    ) {
      throw new TypeError("Cannot restore a queue: its saved state is malformed");
    }
    this.#size = saved.size;
    saved.addresses.forEach((address, area) => {
      this.#halves[2 * area] = Number(address & 0xffff_ffffn);
      this.#halves[2 * area + 1] = Number(address >> 32n);
    });
    this.enabled = saved.enabled;
    this.resetting = false;
  }
}

function isAddress(value: unknown): boolean {
  return typeof value === "bigint" && value >= 0n && value < 1n << 64n;
}

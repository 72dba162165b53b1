import { type AccessSize, type BusHandler, readAligned, writeAligned } from "./bus.ts";

/** A range of memory addresses with something behind it. */
export interface Window {
  /** First address. */
  readonly first: number;
  /** First address after it. */
  readonly end: number;
  /** What is behind it. */
  readonly handler: BusHandler;
}

/** Ranges of memory addresses. They are few, and the same one is used again and again. */
export class MemoryWindows {
  #windows: Window[] = [];
  #last: Window | null = null;

  /** Adds a range. The first of overlapping ranges wins. */
  map(first: number, size: number, handler: BusHandler): void {
    this.#windows.push({ first, end: first + size, handler });
    this.#last = null;
  }

  /** Takes all ranges of a handler away. */
  unmap(handler: BusHandler): void {
    this.#windows = this.#windows.filter((window) => window.handler !== handler);
    this.#last = null;
  }

  /** The range that has an address. */
  find(address: number): Window | null {
    const last = this.#last;
    if (last !== null && address >= last.first && address < last.end) return last;
    for (const window of this.#windows) {
      if (address >= window.first && address < window.end) return this.#last = window;
    }
    return null;
  }

  /** Reads at an address inside of a range. */
  read(window: Window, address: number, size: AccessSize): number {
    return readAligned(window.handler, address - window.first, size, window.end - window.first);
  }

  /** Writes at an address inside of a range. */
  write(window: Window, address: number, size: AccessSize, value: number): void {
    const { first, end, handler } = window;
    writeAligned(handler, address - first, size, end - first, value);
  }
}

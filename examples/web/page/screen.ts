/** The host's end of the guest's console: the page's terminal, some messages away. */
import type { ConsoleBackend, ConsolePort } from "@virtio/console";

/** Bytes on their way to the screen. More waits in the guest's own queue: a terminal is slower than a guest. */
const ON_THE_WAY = 128 * 1024;

/** Passes output on as fast as the screen shows it, and keys as fast as the guest takes them. */
export class Screen implements ConsoleBackend {
  readonly #show: (bytes: Uint8Array) => void;
  #port: ConsolePort | null = null;
  #unshown = 0;
  #full = false;
  #keys: Uint8Array[] = [];

  /** @param show Takes a copy of output. */
  constructor(show: (bytes: Uint8Array) => void) {
    this.#show = show;
  }

  attached(port: ConsolePort): void {
    this.#port = port;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    const count = Math.min(length, ON_THE_WAY - this.#unshown);
    if (count > 0) {
      this.#unshown += count;
      this.#show(bytes.slice(offset, offset + count));
    }
    this.#full = count < length;
    return count;
  }

  /** So many bytes are on the screen. */
  shown(bytes: number): void {
    this.#unshown -= bytes;
    if (!this.#full) return;
    this.#full = false;
    this.#port?.resume();
  }

  /** Keys of the user's. None is lost, however slowly the guest reads. */
  type(bytes: Uint8Array): void {
    this.#keys.push(bytes);
    this.inputDrained();
  }

  inputDrained(): void {
    while (this.#keys.length > 0) {
      const bytes = this.#keys[0]!;
      const count = this.#port?.write(bytes) ?? 0;
      if (count < bytes.length) {
        this.#keys[0] = bytes.subarray(count);
        return;
      }
      this.#keys.shift();
    }
  }
}

/** Finds the escape key in what is typed. */
export class EscapeKey {
  readonly #key: number;
  readonly #pressed: (command: number) => void;
  #escaped = false;

  /**
   * @param key The byte that begins a command, as Ctrl-A is 1.
   * @param pressed Told of the byte after it, unless that is the key once more or `a`, which sends the key itself.
   */
  constructor(key: number, pressed: (command: number) => void) {
    this.#key = key;
    this.#pressed = pressed;
  }

  /** Takes what was typed. @returns What of it is for the guest. */
  filter(bytes: Uint8Array): Uint8Array {
    if (!this.#escaped && !bytes.includes(this.#key)) return bytes;
    const kept = new Uint8Array(bytes.length + 1);
    let count = 0;
    for (const byte of bytes) {
      if (!this.#escaped) {
        if (byte === this.#key) this.#escaped = true;
        else kept[count++] = byte;
        continue;
      }
      this.#escaped = false;
      if (byte === this.#key || byte === 0x61) kept[count++] = this.#key;
      else this.#pressed(byte);
    }
    return kept.subarray(0, count);
  }
}

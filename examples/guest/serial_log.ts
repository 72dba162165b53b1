/** The host's end of the guest's serial line: keeps what came, and waits for something in it. */
import type { StopReason } from "@virtio/v86";

/** Thrown when the guest stopped, or did not answer in time. The message ends with the last lines of its console. */
export class GuestError extends Error {
  override readonly name: string = "GuestError";
}

/** Console output that is kept for messages, in bytes. */
const TRANSCRIPT_LIMIT = 64 * 1024;
interface Waiting {
  /** Looks at the bytes since it was set up; true when it has what it waits for. */
  check: () => boolean;
  fail: (error: GuestError) => void;
}

/**
 * Passes on what comes between two marks. The second begins a line: only the beginning of a line is held back, while it may yet
 * turn out to be the mark, so that whoever looks on sees a line end when it does.
 */
export function betweenMarkers(
  begin: string,
  end: string,
  output: (text: string) => void,
): (text: string) => void {
  let seen = "";
  let begun = false;
  let done = false;
  /** The last character that was passed on; at first what stands before a line. */
  let last = "\n";
  return (text) => {
    if (done) return;
    seen += text;
    if (!begun) {
      const at = seen.indexOf(begin);
      const line = at < 0 ? -1 : seen.indexOf("\n", at);
      if (line < 0) return;
      begun = true;
      seen = seen.slice(line + 1);
    }
    const whole = last + seen;
    let stop = whole.indexOf(`\n${end}`);
    if (stop >= 0) {
      done = true;
    } else {
      stop = seen.length;
      const line = seen.slice(whole.lastIndexOf("\n"));
      if (whole.includes("\n") && line !== "" && end.startsWith(line)) stop -= line.length;
    }
    if (stop > 0) output(seen.slice(0, stop));
    last = whole[stop]!;
    seen = seen.slice(stop);
  };
}

/** What came out of the serial line, and who waits for something in it. */
export class SerialLog {
  #bytes = new Uint8Array(TRANSCRIPT_LIMIT);
  #length = 0;
  #start = 0;
  #waiting: Waiting | null = null;
  #onStop: (() => void) | null = null;
  #stop: { reason: StopReason; error: unknown } | null = null;
  #scheduled = false;
  #unseen = 0;
  /** Also told of all output, while a shell has the line. */
  tap: ((text: string) => void) | null = null;
  readonly #console: ((text: string) => void) | undefined;
  readonly #decoder = new TextDecoder();

  constructor(console: ((text: string) => void) | undefined) {
    this.#console = console;
  }

  push(byte: number): void {
    if (this.#length === this.#bytes.length) this.#makeRoom();
    this.#bytes[this.#length++] = byte;
    if (this.#scheduled) return;
    this.#scheduled = true;
    // Output comes a byte at a time; look at it once per turn of the emulator.
    queueMicrotask(() => {
      this.#scheduled = false;
      this.#look();
    });
  }

  /** Forgets what nobody waits for; keeps a whole answer however long it is. */
  #makeRoom(): void {
    const keep = this.#waiting === null ? this.#length - TRANSCRIPT_LIMIT / 2 : this.#start;
    const from = Math.min(keep, this.#length - TRANSCRIPT_LIMIT / 4, this.#unseen);
    const rest = this.#bytes.subarray(Math.max(0, from), this.#length);
    const bytes = new Uint8Array(Math.max(TRANSCRIPT_LIMIT, rest.length * 2));
    bytes.set(rest);
    this.#bytes = bytes;
    this.#length = rest.length;
    this.#start = Math.max(0, this.#start - Math.max(0, from));
    this.#unseen -= Math.max(0, from);
  }

  #look(): void {
    if ((this.#console !== undefined || this.tap !== null) && this.#unseen < this.#length) {
      const fresh = this.#bytes.subarray(this.#unseen, this.#length);
      const text = this.#decoder.decode(fresh, { stream: true });
      this.#console?.(text);
      this.tap?.(text);
    }
    this.#unseen = this.#length;
    if (this.#waiting?.check()) this.#waiting = null;
  }

  /** What is waited for next comes after this point. */
  mark(): void {
    this.#start = this.#length;
  }

  stop(reason: StopReason, error: unknown): void {
    this.#stop = { reason, error };
    this.#onStop?.();
    // The last output is still on its way to `#look`.
    queueMicrotask(() => this.#fail(`stopped (${reason})`));
  }

  #fail(what: string): void {
    const waiting = this.#waiting;
    this.#waiting = null;
    const detail = this.#stop?.error === undefined ? "" : ` with ${this.#stop.error}`;
    waiting?.fail(
      new GuestError(`The guest ${what}${detail}. Its console ended:\n${this.transcript}`),
    );
  }

  /** Waits until `find` makes something of the output since `mark()`. */
  wait<T extends object | true>(
    what: string,
    timeout: number,
    find: (text: string) => T | null,
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      let timer: ReturnType<typeof setTimeout> | undefined;
      let lastLength = -1;
      this.#waiting = {
        check: () => {
          // A whole answer ends with a newline: do not decode all of it for every piece.
          if (this.#length === lastLength || this.#bytes[this.#length - 1] !== 10) return false;
          lastLength = this.#length;
          const text = new TextDecoder().decode(this.#bytes.subarray(this.#start, this.#length));
          const found = find(text.replaceAll("\r\n", "\n"));
          if (found === null) return false;
          clearTimeout(timer);
          resolve(found);
          return true;
        },
        fail: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      if (this.#stop !== null) return this.#fail(`has stopped (${this.#stop.reason})`);
      if (timeout !== Infinity) {
        timer = setTimeout(
          () => this.#fail(`took longer than ${timeout / 1000} s ${what}`),
          timeout,
        );
      }
    });
  }

  /** Waits until the guest has stopped. */
  stopped(timeout: number): Promise<void> {
    if (this.#stop !== null) return Promise.resolve();
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        const error = new GuestError(
          `The guest took longer than ${
            timeout / 1000
          } s to power off. Its console ended:\n${this.transcript}`,
        );
        reject(error);
      }, timeout);
      this.#onStop = () => {
        clearTimeout(timer);
        resolve();
      };
    });
  }

  get transcript(): string {
    const from = Math.max(0, this.#length - 2000);
    return new TextDecoder().decode(this.#bytes.subarray(from, this.#length));
  }
}

/** Keeps the picture of a network below the progress of a program. */
import type { Virbr } from "@virtio/virbr";
import type { Progress } from "../shared/run.ts";
import { Picture } from "./picture.ts";

/** Milliseconds between two pictures: on a terminal, and where each stays. */
const INTERVAL = 500;
const PAGE_INTERVAL = 2000;

/**
 * Progress with a picture below it. On a terminal the picture replaces itself; elsewhere it is printed when something has
 * happened, and not often.
 */
export class Live implements Progress, Disposable {
  readonly #progress: Progress;
  readonly #picture: Picture;
  readonly #terminal = Deno.stdout.isTerminal();
  readonly #timer: ReturnType<typeof setInterval>;
  #shown = 0;
  #state = "";
  #ended = false;

  /** @param progress Of the program; steps go there. */
  constructor(net: Virbr, progress: Progress) {
    this.#progress = progress;
    this.#picture = new Picture(net);
    this.#state = this.#picture.state;
    this.#timer = setInterval(() => this.#tick(), this.#terminal ? INTERVAL : PAGE_INTERVAL);
  }

  step(line: string): void {
    this.#clear();
    this.#progress.step(line);
    this.#tick();
  }

  detail(line: string): void {
    if (!this.#terminal) this.#progress.detail(line);
  }

  /** Leaves the last picture where it is. */
  [Symbol.dispose](): void {
    if (this.#ended) return;
    this.#ended = true;
    clearInterval(this.#timer);
    if (this.#terminal) this.#clear();
    this.#state = "";
    this.#tick();
  }

  #tick(): void {
    if (!this.#terminal) {
      const { state } = this.#picture;
      if (state === this.#state) return;
      this.#state = state;
    }
    const width = this.#terminal ? Deno.consoleSize().columns - 1 : Infinity;
    const lines = this.#picture.lines().map((line) => `          ${line}`.slice(0, width));
    this.#clear();
    this.#write(`${lines.join("\n")}\n`);
    this.#shown = lines.length;
  }

  #clear(): void {
    if (this.#terminal && this.#shown > 0) this.#write(`\x1b[${this.#shown}A\x1b[J`);
    this.#shown = 0;
  }

  #write(text: string): void {
    const bytes = new TextEncoder().encode(text);
    for (let at = 0; at < bytes.length;) at += Deno.stdout.writeSync(bytes.subarray(at));
  }
}

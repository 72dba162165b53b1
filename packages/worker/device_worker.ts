import { errorFrom, makeCall, WorkerError } from "./call.ts";
import {
  type DeviceDescription,
  type FromWorker,
  listen,
  type News,
  type Port,
} from "./messages.ts";
import { allocateJournals } from "./journal.ts";
import { Link, Word } from "./words.ts";

/** Milliseconds after which a thread that was ended cannot run any more. */
const GRACE = 2500;

/** A worker as an embedder may bring it: the platform's `Worker`, or Node's. */
export interface WorkerPort extends Port {
  /** Ends it at once. */
  terminate(): unknown;
}

/** What a `DeviceWorker` tells. */
export interface WorkerListener {
  /** It sent something unasked. */
  message(message: FromWorker): void;
  /** It is dead: an uncaught error, or it does not answer. Told once. */
  died(error: Error): void;
}

/** One thread in which a device runs, from the outside. */
export class DeviceWorker {
  /** Shared memory between the sides. */
  readonly link: Link = new Link();
  /** What `Word.news` was when it was asked last. */
  #heard = 0;
  /** Resolves when the device was made. @throws {Error} If it could not be. */
  readonly ready: Promise<DeviceDescription>;
  /** Where its queues write down what they publish; null unless wanted. */
  readonly journals: SharedArrayBuffer | null;
  readonly #port: WorkerPort;
  readonly #patience: number;
  readonly #listener: WorkerListener;
  #dead = false;
  #gone: void | Promise<void> = undefined;

  /**
   * @param port The worker; nothing was sent to it yet.
   * @param data For the function that makes the device.
   * @param patience Milliseconds to wait for an answer.
   * @param bell What it rings.
   * @param journaled Whether its queues keep journals.
   */
  constructor(
    port: WorkerPort,
    data: unknown,
    patience: number,
    listener: WorkerListener,
    bell: SharedArrayBuffer,
    journaled: boolean,
  ) {
    this.journals = journaled ? allocateJournals() : null;
    this.#port = port;
    this.#patience = patience;
    this.#listener = listener;
    let resolve: (description: DeviceDescription) => void = () => {};
    let reject: (error: Error) => void = () => {};
    this.ready = new Promise((...settle) => [resolve, reject] = settle);
    // Whoever does not wait for it hears of it by `died`.
    this.ready.catch(() => {});
    listen(port, (message) => {
      const sent = message as FromWorker | null;
      if (sent?.virtio === "ready") resolve(sent.device);
      else if (sent?.virtio === "refused") this.#died(errorFrom(sent.error), reject);
      else if (sent?.virtio !== undefined && !this.#dead) this.#listener.message(sent);
    });
    const failed = (event: unknown): void => {
      // Deno ends the whole program for an uncaught error in a worker unless told otherwise.
      (event as { preventDefault?: () => void }).preventDefault?.();
      const reason = (event as { message?: string }).message ?? String(event);
      this.#died(new WorkerError(`The device's worker died: ${reason}`), reject);
    };
    port.addEventListener?.("error", failed);
    port.on?.("error", failed);
    port.on?.("exit", (code) => failed(new Error(`exit with code ${String(code)}`)));
    this.post({
      virtio: "open",
      buffer: this.link.buffer,
      bell,
      journals: this.journals,
      data,
    });
  }

  /** Whether it is gone. */
  get dead(): boolean {
    return this.#dead;
  }

  /** Sends a message. */
  post(message: unknown): void {
    this.#port.postMessage(message);
  }

  /**
   * Calls it, and waits for the answer. A worker that does not answer is ended: what it would do later cannot be trusted.
   *
   * @throws {WorkerError} If it does not answer, or is dead.
   * @throws {TypeError} As the device threw. @throws {RangeError} Likewise.
   */
  call(what: string, data?: unknown): unknown {
    if (this.#dead) throw new WorkerError(`Cannot "${what}": the device's worker is dead`);
    try {
      return makeCall(this.link, { what, with: data }, this.#patience);
    } catch (error) {
      if (error instanceof WorkerError && error.message.includes("did not answer")) {
        this.#died(error);
      }
      throw error;
    }
  }

  /** What it has to say since this was asked last; null if nothing. @throws {WorkerError} As `call`. */
  news(): News | null {
    const news = Atomics.load(this.link.words, Word.news);
    if (news === this.#heard || this.#dead) return null;
    this.#heard = news;
    return this.call("news") as News;
  }

  /** Of one that was ended: nothing if it touches guest memory no more, else a promise of that. */
  get gone(): void | Promise<void> {
    return this.#gone;
  }

  /** Ends the thread. It may touch guest memory until it is `gone`. */
  end(): void {
    if (this.#dead) return;
    this.#dead = true;
    this.#gone = this.link.revoke(GRACE);
    this.#gone?.then(() => this.#gone = undefined);
    this.#port.terminate();
  }

  #died(error: Error, reject?: (error: Error) => void): void {
    if (this.#dead) return;
    this.end();
    reject?.(error);
    this.#listener.died(error);
  }
}

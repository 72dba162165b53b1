/** One worker of a device, from its first message until its thread is gone. */
import { EventFd, threadExists } from "@virtio/linux";
import {
  type FromVhostWorker,
  type ToVhostWorker,
  type WorkerCall,
  type WorkerDescription,
  WorkerWord,
} from "./worker_messages.ts";

/** What all workers of a device are made with. */
export interface WorkerOptions {
  /** Makes a worker. */
  readonly worker: () => Worker;
  /** For the function of the module that makes the device. */
  readonly data?: unknown;
  /** Processors that each worker may run on. */
  readonly pin?: readonly (readonly number[])[];
}

/** Why nobody answers: the worker is dead. */
export class WorkerDeath extends Error {}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** Milliseconds between looks whether the thread is still there: nothing tells that it was ended from outside. */
const WATCH = 500;
/** Milliseconds that a thread may take to end. */
const PATIENCE = 10_000;
/** Milliseconds that a worker may take to begin. */
const BEGIN_PATIENCE = 60_000;

/** See `WorkerSeat`. */
export class OneWorker {
  /** What its device is. @throws {WorkerDeath} If it died before. @throws {Error} If the device could not be made. */
  readonly ready: Promise<WorkerDescription>;
  readonly #worker: Worker;
  readonly #wake: EventFd = EventFd.create();
  readonly #words: Int32Array;
  readonly #waiting: Map<number, Waiting> = new Map();
  readonly #heard: (message: FromVhostWorker) => void;
  readonly #ended: (error: WorkerDeath) => void;
  readonly #watch: ReturnType<typeof setInterval>;
  #settle: Waiting | null = null;
  #gone: Promise<boolean> | null = null;
  #next = 1;
  #dead: WorkerDeath | null = null;

  /**
   * @param index Which worker of the device.
   * @param spin Microseconds that it looks for buffers before it sleeps.
   * @param heard Told what it says by itself.
   * @param died Told once of its death; nothing is told afterwards.
   */
  constructor(
    options: WorkerOptions,
    index: number,
    spin: number,
    heard: (message: FromVhostWorker) => void,
    died: (error: WorkerDeath) => void,
  ) {
    this.#heard = heard;
    this.#ended = died;
    const buffer = new SharedArrayBuffer(4 * WorkerWord.count);
    this.#words = new Int32Array(buffer);
    this.#worker = options.worker();
    this.#worker.addEventListener("message", ({ data }) => this.#message(data as FromVhostWorker));
    this.#worker.addEventListener("error", (event) => {
      // Deno ends the whole program for an uncaught error in a worker unless told otherwise.
      event.preventDefault();
      this.#died(`The device's worker died: ${event.message}`);
    });
    this.ready = new Promise((resolve, reject) => {
      this.#settle = { resolve: resolve as (value: unknown) => void, reject };
    });
    this.ready.catch(() => {});
    this.#post({
      vhost: "open",
      data: options.data,
      index,
      words: buffer,
      wake: this.#wake.descriptor,
      pin: options.pin?.[index] ?? null,
      spin,
    });
    const late = performance.now() + BEGIN_PATIENCE;
    let opening = true;
    let gone = false;
    this.ready.finally(() => opening = false).catch(() => {});
    this.#watch = setInterval(() => {
      if (this.#thread !== 0 && !threadExists(this.#thread)) {
        // The error that ended it, if one did, is told once more has happened in this thread.
        if (gone) this.#died("The device's worker was ended");
        gone = true;
      } else if (opening && performance.now() > late) {
        this.#died("The device's worker does not begin");
      }
    }, WATCH);
    Deno.unrefTimer(this.#watch as unknown as number);
  }

  /** Why it is dead; null if it is not. */
  get death(): WorkerDeath | null {
    return this.#dead;
  }

  /** The system's number of its thread; 0 as long as nothing of its module ran. */
  get #thread(): number {
    return Atomics.load(this.#words, WorkerWord.thread);
  }

  #post(message: ToVhostWorker): void {
    this.#worker.postMessage(message);
    Atomics.add(this.#words, WorkerWord.sent, 1);
    this.#wake.signal();
  }

  #message(message: FromVhostWorker): void {
    if (this.#dead !== null) return;
    switch (message.vhost) {
      case "ready":
        return this.#settle?.resolve(message.device);
      case "refused":
        this.#settle?.reject(new Error(message.error));
        return;
      case "answer":
      case "error": {
        const waiting = this.#waiting.get(message.id);
        this.#waiting.delete(message.id);
        if (message.vhost === "answer") waiting?.resolve(message.value);
        else waiting?.reject(new Error(message.error));
        return;
      }
    }
    this.#heard(message);
  }

  #died(reason: string): void {
    if (this.#dead !== null) return;
    const error = this.#dead = new WorkerDeath(reason);
    clearInterval(this.#watch);
    this.#worker.terminate();
    // Where its event loop turned, a call of its own may still wait for this.
    this.#wake.signal();
    // First whoever is told, so that those whose calls fail find out what becomes of them.
    this.#ended(error);
    this.#settle?.reject(error);
    for (const { reject } of this.#waiting.values()) reject(error);
    this.#waiting.clear();
  }

  /** Calls it. @throws {WorkerDeath} If it is dead, or dies meanwhile. @throws {Error} What the device threw. */
  call(call: WorkerCall): Promise<unknown> {
    if (this.#dead !== null) return Promise.reject(this.#dead);
    const id = this.#next++;
    return new Promise((resolve, reject) => {
      this.#waiting.set(id, { resolve, reject });
      this.#post({ vhost: "call", id, call });
    });
  }

  /**
   * Waits until the thread of a dead worker is gone, which touches guest memory no more then, nor does what it began.
   *
   * @returns Whether it is: not if it hangs in the system.
   */
  gone(): Promise<boolean> {
    return this.#gone ??= this.#awaitGone();
  }

  async #awaitGone(): Promise<boolean> {
    const late = performance.now() + PATIENCE;
    while (this.#thread !== 0 && threadExists(this.#thread)) {
      if (performance.now() > late) return false;
      await new Promise((again) => setTimeout(again, 1));
    }
    this.#wake.close();
    return true;
  }

  /** Ends it in good order. */
  async close(): Promise<void> {
    // One that is dead sleeps nowhere; another must not be ended while it does, or the program would not end either.
    if (this.#dead === null) await this.call({ what: "close" }).catch(() => {});
    if (this.#dead !== null) {
      await this.gone();
      return;
    }
    this.#dead = new WorkerDeath("The device's worker is closed");
    clearInterval(this.#watch);
    this.#worker.terminate();
    this.#wake.close();
  }
}

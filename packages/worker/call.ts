/**
 * Calls from the transport's side to the worker, through shared memory: the caller waits for the answer, because a status
 * register has to answer at once, and because when `stop` returns, nothing may touch guest memory any more.
 */
import { decodePlain, encodePlain } from "./plain.ts";
import { CallState, type Link, Word } from "./words.ts";

/** What went wrong in a device's worker, or with it. */
export class WorkerError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "WorkerError";
}

/** One request. */
export interface Call {
  /** Name of the operation. */
  readonly what: string;
  /** Plain data. */
  readonly with?: unknown;
}

/**
 * Waits while a word has a value.
 *
 * Browsers refuse to let their main thread sleep; there it looks again and again, which only calls do, and they are rare.
 */
export function waitWhile(words: Int32Array, word: number, value: number, until: number): boolean {
  while (Atomics.load(words, word) === value) {
    const left = until - performance.now();
    if (left <= 0) return false;
    if (maySleep) {
      try {
        Atomics.wait(words, word, value, left);
      } catch {
        maySleep = false;
      }
    }
  }
  return true;
}

let maySleep = true;

/**
 * Makes a call and waits for the answer.
 *
 * @param patience Milliseconds.
 * @throws {WorkerError} If the worker does not answer, or answers with an error.
 */
export function makeCall(link: Link, call: Call, patience: number): unknown {
  const { words, area } = link;
  const until = performance.now() + patience;
  const lost = () =>
    new WorkerError(`The device's worker did not answer "${call.what}" within ${patience} ms`);
  const request = encodePlain(call);
  for (let at = 0; at < request.length; at += area.length) {
    const part = request.subarray(at, at + area.length);
    area.set(part);
    words[Word.length] = part.length;
    const last = at + area.length >= request.length;
    const state = last ? CallState.request : CallState.requestPart;
    Atomics.store(words, Word.call, state);
    Atomics.notify(words, Word.call);
    link.wakeWorker();
    if (!waitWhile(words, Word.call, state, until)) throw lost();
  }
  const parts: Uint8Array[] = [];
  for (;;) {
    // The worker thinks; `taken` is also what it answers to the last part of a request.
    if (!waitWhile(words, Word.call, CallState.taken, until)) throw lost();
    const state = Atomics.load(words, Word.call);
    parts.push(area.slice(0, words[Word.length]));
    if (state === CallState.answerPart) {
      Atomics.store(words, Word.call, CallState.taken);
      Atomics.notify(words, Word.call);
      continue;
    }
    Atomics.store(words, Word.call, CallState.idle);
    const answer = decodePlain(concatenate(parts));
    if (state === CallState.error) throw errorFrom(answer as SentError);
    return answer;
  }
}

/** An error as it crosses. */
export interface SentError {
  /** Its name. */
  readonly name: string;
  /** Its message. */
  readonly message: string;
}

/** Describes an error for the other side. */
export function describeError(error: unknown): SentError {
  return error instanceof Error
    ? { name: error.name, message: error.message }
    : { name: "Error", message: String(error) };
}

/** An error of the same kind on this side, where the kind matters: embedders tell wrong use by it. */
export function errorFrom({ name, message }: SentError): Error {
  if (name === "TypeError") return new TypeError(message);
  if (name === "RangeError") return new RangeError(message);
  const error = new WorkerError(message);
  return error;
}

/** The worker's half: gathers a request's parts, and hands out an answer's. */
export class CallTaker {
  readonly #link: Link;
  #parts: Uint8Array[] = [];

  /** @param link The worker's. */
  constructor(link: Link) {
    this.#link = link;
  }

  /** The request that is there now, whole; null if there is none. Answer it with `answer` or `refuse`. */
  take(): Call | null {
    const { words, area } = this.#link;
    // Whoever writes it wakes the worker afterwards.
    if (words[Word.call] === CallState.idle) return null;
    for (;;) {
      const state = Atomics.load(words, Word.call);
      if (state !== CallState.request && state !== CallState.requestPart) return null;
      this.#parts.push(area.slice(0, words[Word.length]));
      Atomics.store(words, Word.call, CallState.taken);
      Atomics.notify(words, Word.call);
      if (state === CallState.request) {
        const call = decodePlain(concatenate(this.#parts)) as Call;
        this.#parts = [];
        return call;
      }
      // The caller is awake and writes the next part.
      if (!waitWhile(words, Word.call, CallState.taken, performance.now() + 10_000)) return null;
    }
  }

  /** Answers. */
  answer(value: unknown): void {
    this.#send(encodePlain(value ?? null), CallState.answer);
  }

  /** Answers with an error. */
  refuse(error: unknown): void {
    this.#send(encodePlain(describeError(error)), CallState.error);
  }

  #send(bytes: Uint8Array, lastState: number): void {
    const { words, area } = this.#link;
    for (let at = 0; at < bytes.length; at += area.length) {
      const part = bytes.subarray(at, at + area.length);
      area.set(part);
      words[Word.length] = part.length;
      const last = at + area.length >= bytes.length;
      const state = last ? lastState : CallState.answerPart;
      Atomics.store(words, Word.call, state);
      Atomics.notify(words, Word.call);
      if (!last && !waitWhile(words, Word.call, state, performance.now() + 10_000)) return;
    }
  }
}

function concatenate(parts: readonly Uint8Array[]): Uint8Array {
  if (parts.length === 1) return parts[0]!;
  const whole = new Uint8Array(parts.reduce((sum, part) => sum + part.length, 0));
  let at = 0;
  for (const part of parts) {
    whole.set(part, at);
    at += part.length;
  }
  return whole;
}

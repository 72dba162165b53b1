/** A guest of our own in a worker, seen from the main thread, which only waits. */
import type { Outcome, Progress } from "../run.ts";

/** What comes from the worker. */
export type FromGuest<Figures = unknown> =
  | { readonly step: string }
  | { readonly detail: string }
  | { readonly outcome: Outcome<Figures> }
  | { readonly error: string };

/**
 * Has a worker run a guest.
 *
 * @param data Sent to it.
 * @throws {Error} As the run there.
 */
export function guestInWorker<Figures>(
  module: URL,
  data: unknown,
  progress: Progress,
): Promise<Outcome<Figures>> {
  const worker = new Worker(module, { type: "module" });
  return new Promise<Outcome<Figures>>((resolve, reject) => {
    worker.onmessage = ({ data: said }: MessageEvent<FromGuest<Figures>>) => {
      if ("step" in said) progress.step(said.step);
      else if ("detail" in said) progress.detail(said.detail);
      else if ("outcome" in said) resolve(said.outcome);
      else reject(new Error(said.error));
    };
    worker.onerror = (event) => {
      event.preventDefault();
      reject(new Error(event.message));
    };
    worker.postMessage(data);
  }).finally(() => worker.terminate());
}

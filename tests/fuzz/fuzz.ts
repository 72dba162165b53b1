/** Runs fuzz targets, each in a thread of its own that is watched. */
import { TARGETS } from "./targets.ts";

/** What a worker is told. */
export interface FuzzJob {
  readonly target: string;
  readonly seconds: number;
  readonly seed: number;
  /** A case to run once, or null. */
  readonly replay: unknown;
  /** A mistake to plant, or null. */
  readonly plant: string | null;
  /** A count of cases, the length of the current one, and the current one as JSON. */
  readonly shared: SharedArrayBuffer;
}

/** What a worker tells. */
export interface FuzzReport {
  readonly cases: number;
  readonly failure: { readonly case: unknown; readonly reason: string } | null;
}

/** What became of fuzzing a target. */
export interface FuzzResult extends FuzzReport {
  readonly target: string;
  readonly seed: number;
  readonly seconds: number;
}

/** Options of `fuzz`. */
export interface FuzzOptions {
  readonly target: string;
  /** How long to look for a failure; shrinking one comes on top. */
  readonly seconds: number;
  /** Any integer; the same seed makes the same cases. */
  readonly seed: number;
  /** A case to run instead. */
  readonly replay?: unknown;
  /** Seconds after which a case hangs; 10 unless given. */
  readonly patience?: number;
  /** Plants a mistake: for tests of fuzzing itself. */
  readonly plant?: string;
}

/** A failing case as it is kept in a file. */
export interface FuzzFile {
  readonly target: string;
  readonly seed: number;
  readonly reason: string;
  readonly case: unknown;
}

const CASE_BYTES = 1 << 20;

/** Names of all targets. */
export const TARGET_NAMES: readonly string[] = TARGETS.map(({ name }) => name);

/** Fuzzes one target. */
export function fuzz(options: FuzzOptions): Promise<FuzzResult> {
  const { target, seconds, seed } = options;
  const shared = new SharedArrayBuffer(8 + CASE_BYTES);
  const counter = new Int32Array(shared, 0, 2);
  const worker = new Worker(new URL("./worker.ts", import.meta.url), { type: "module" });
  const start = performance.now();
  return new Promise((resolve) => {
    let last = -1;
    let since = performance.now();
    const finish = (report: FuzzReport): void => {
      clearInterval(watchdog);
      worker.terminate();
      resolve({ ...report, target, seed, seconds: (performance.now() - start) / 1000 });
    };
    const patience = 1000 * (options.patience ?? 10);
    const watchdog = setInterval(() => {
      const count = Atomics.load(counter, 0);
      if (count !== last || count === 0) {
        last = count;
        since = performance.now();
      } else if (performance.now() - since > patience) {
        const bytes = new Uint8Array(shared, 8, Atomics.load(counter, 1)).slice();
        finish({
          cases: count,
          failure: {
            case: JSON.parse(new TextDecoder().decode(bytes)),
            reason: `The case does not end within ${patience / 1000} s`,
          },
        });
      }
    }, 200);
    worker.onmessage = ({ data }: MessageEvent<FuzzReport>) => finish(data);
    worker.onerror = (event) => {
      event.preventDefault();
      finish({ cases: last, failure: { case: null, reason: event.message } });
    };
    const job: FuzzJob = {
      target,
      seconds,
      seed,
      replay: options.replay ?? null,
      plant: options.plant ?? null,
      shared,
    };
    worker.postMessage(job);
  });
}

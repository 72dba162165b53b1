/** How many bytes of the heap something takes. */

/** Requests in a batch. */
export const BATCH = 64;
/** Batches in a window. */
const WINDOW = 500;
/** Seconds until a window must be clean: where other tests take the processors, code is compiled late. */
const PATIENCE = 20;
/** Less than any object, by far: a window that is clean has only what the measurement itself allocates. */
export const CLEAN = 0.5;

/** Bytes a request: those of the cleanest window, of 20 at least, until one is clean. */
export function bytesPerRequest(rig: { batch(): void }, patience: number = PATIENCE): number {
  let least = Infinity;
  const end = performance.now() + 1000 * patience;
  for (let window = 0; least > CLEAN && (window < 20 || performance.now() < end); window++) {
    let grown = 0;
    let before = Deno.memoryUsage().heapUsed;
    for (let part = 0; part < 5; part++) {
      for (let i = 0; i < WINDOW / 5; i++) rig.batch();
      const after = Deno.memoryUsage().heapUsed;
      // Something was collected, so something was allocated, though nobody can say how much.
      grown += after < before ? Infinity : after - before;
      before = after;
    }
    least = Math.min(least, grown / (WINDOW * BATCH));
  }
  return least;
}

/**
 * As `bytesPerRequest`, for batches that end in a later turn: beyond what the turns take.
 *
 * @param begin Begins a batch.
 * @param end Ends it, a turn of the microtasks later.
 * @param clean Few enough: what a batch takes beside its requests.
 */
export async function bytesPerLaterRequest(
  begin: () => void,
  end: () => void,
  clean: number,
): Promise<number> {
  let least = Infinity;
  const nothing = (): void => {};
  const last = performance.now() + 1000 * PATIENCE;
  for (let window = 0; least > clean && (window < 20 || performance.now() < last); window++) {
    const turns = await grown(nothing, nothing);
    const all = await grown(begin, end);
    if (turns === Infinity) continue;
    least = Math.min(least, Math.max(0, all - turns) / (WINDOW * BATCH));
  }
  return least;
}

async function grown(begin: () => void, end: () => void): Promise<number> {
  const before = Deno.memoryUsage().heapUsed;
  for (let i = 0; i < WINDOW; i++) {
    begin();
    await undefined;
    end();
  }
  const after = Deno.memoryUsage().heapUsed;
  return after < before ? Infinity : after - before;
}

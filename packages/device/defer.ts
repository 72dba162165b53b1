const { setImmediate } = globalThis as unknown as { setImmediate?: (run: () => void) => void };

/** Functions that were put off and did not run yet. */
let waiting = 0;

/**
 * Runs a function in a later turn of the event loop, so that a busy queue cannot keep the loop to itself. `setTimeout` is
 * the last resort: it waits for milliseconds where nested.
 */
export function defer(run: () => void): void {
  waiting++;
  const later = (): void => {
    waiting--;
    run();
  };
  if (typeof setImmediate === "function") setImmediate(later);
  else setTimeout(later, 0);
}

/** Whether anything that was put off by `defer` did not run yet: a thread that sleeps now would keep it from running. */
export function deferring(): boolean {
  return waiting > 0;
}

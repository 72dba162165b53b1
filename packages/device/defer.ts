/**
 * Runs a function in a later turn of the event loop, so that a busy queue cannot keep the loop to itself. `setTimeout` is
 * the last resort: it waits for milliseconds where nested.
 */
export const defer: (run: () => void) => void =
  typeof (globalThis as { setImmediate?: unknown }).setImmediate === "function"
    ? (globalThis as unknown as { setImmediate: (run: () => void) => void }).setImmediate
    : (run) => {
      setTimeout(run, 0);
    };

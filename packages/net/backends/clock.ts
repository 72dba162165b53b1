/** Where time comes from: milliseconds, never backwards, from any beginning. */
export type Clock = () => number;

/** Reads of the coarse clock that go by before it looks at the real one, which may make an object of the number. */
const READS = 64;

let now = 0;
let left = 0;
/** Whether somebody tells when the turn is over. */
let told = false;

function passed(): void {
  left = 0;
  told = false;
}

/**
 * A clock that is cheap enough to be read for each frame: the real one costs as much as forwarding a frame. It stands still
 * for some reads within one turn of the event loop, and is right at the first of each turn.
 */
export function coarseClock(): number {
  if (left === 0) {
    now = performance.now();
    left = READS;
    if (!told) queueMicrotask(passed);
    told = true;
  }
  left--;
  return now;
}

/**
 * When completed chains are published. During a kick: at its end, with all that the kick brought about in other queues and
 * devices, so that the answer to what a guest sends is there when it goes on, not when the emulator gives the event loop its
 * turn. Otherwise at the end of the turn.
 */

/** Publications of one kick; those beyond wait for the end of the turn, as two drivers may answer each other for ever. */
const MOST = 64;

/** Kicks on the stack. */
let depth = 0;
/** What is due at the end of the outermost; never shortened, so that nothing is allocated. */
const due: (() => void)[] = [];
let count = 0;

/** A kick begins. */
export function enterKick(): void {
  depth++;
}

/** It ends; to be called whatever happens. */
export function leaveKick(): void {
  if (depth > 1 || count === 0) {
    depth--;
    return;
  }
  let at = 0;
  try {
    // A driver that is told may kick at once: that only makes the list longer.
    while (at < count && at < MOST) due[at++]!();
  } finally {
    depth--;
    for (; at < count; at++) queueMicrotask(due[at]!);
    count = 0;
  }
}

/** Has completed chains published, by a function that was not given already. */
export function publishSoon(publish: () => void): void {
  if (depth > 0) due[count++] = publish;
  else queueMicrotask(publish);
}

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
/** Of those, how many were called already. */
let done = 0;
/** Whether the list is being gone through. */
let publishing = false;

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
  publishing = true;
  try {
    // A driver that is told may kick at once: that only makes the list longer.
    while (done < count && done < MOST) due[done++]!();
  } finally {
    depth--;
    publishing = false;
    for (; done < count; done++) queueMicrotask(due[done]!);
    count = done = 0;
  }
}

/** Has what is due at the end of the kick published now, where a driver beside the device can go on with it meanwhile. */
export function publishDue(): void {
  const outermost = !publishing;
  publishing = true;
  try {
    // What this brings about is due later.
    for (const end = count; done < end;) due[done++]!();
  } finally {
    if (outermost) {
      publishing = false;
      // A long kick has many parts, and is no quarrel of two drivers for that.
      if (done === count) count = done = 0;
    }
  }
}

/** Has completed chains published, by a function that was not given already. */
export function publishSoon(publish: () => void): void {
  if (depth > 0) due[count++] = publish;
  else queueMicrotask(publish);
}

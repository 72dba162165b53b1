/**
 * Whether moving a ring index by `added` entries to `now` passed `event`, so that the other side wants to be notified. The
 * only such decision in the project: both formats and both sides use it.
 *
 * Keep the count of what was added, never the old index: a batch that fills the whole ring moves the index by a multiple
 * of what it counts in, and a remembered index would look as if nothing had happened.
 *
 * Split: `event` is used_event or avail_event (2.7.7, 2.7.10). Packed: `event` is the offset of the event suppression
 * structure, less the queue size where its wrap bit differs from the wrap counter of `now`; `added` counts slots (2.8.10).
 *
 * @param event The index or offset that the other side asked for.
 * @param now The next index to be written.
 * @param added How many were written since the last decision.
 */
export function needEvent(event: number, now: number, added: number): boolean {
  return ((now - event - 1) & 0xffff) < added;
}

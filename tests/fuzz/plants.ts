/** Mistakes to plant into the packages, to see that fuzzing finds them. */
import { PackedQueue, SplitQueue } from "@virtio/vring";

type Push = SplitQueue["push"];
type Pop = SplitQueue["pop"];

/** By name. */
export const PLANTS: Record<string, () => void> = {
  /** A chain into which little was written is used with a byte more. */
  "used length": () => {
    for (const { prototype } of [SplitQueue, PackedQueue]) {
      const push: Push = prototype.push;
      prototype.push = function (this: SplitQueue, chain, written = chain.written) {
        push.call(this, chain, written < 4 ? Math.min(chain.writable, written + 1) : written);
      } as Push;
    }
  },
  /** The hundredth pop never returns. */
  "hang": () => {
    for (const { prototype } of [SplitQueue, PackedQueue]) {
      const pop: Pop = prototype.pop;
      let count = 0;
      prototype.pop = function (this: SplitQueue) {
        // deno-lint-ignore no-empty
        if (++count === 100) { for (;;) {} }
        return pop.call(this);
      } as Pop;
    }
  },
  /** An exception outside of everybody's reach. */
  "escape": () => {
    for (const { prototype } of [SplitQueue, PackedQueue]) {
      const pop: Pop = prototype.pop;
      let count = 0;
      prototype.pop = function (this: SplitQueue) {
        if (++count === 100) void Promise.reject(new Error("nobody caught this"));
        return pop.call(this);
      } as Pop;
    }
  },
};

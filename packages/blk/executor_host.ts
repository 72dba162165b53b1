import type { Chain } from "@virtio/vring";

/** What the executor needs of its device. */
export interface ExecutorHost {
  /** Whether the chain was not dropped by a reset; the views of guest memory are fresh if so. */
  ready(chain: Chain): boolean;
  /** Uses a chain. */
  complete(queue: number, chain: Chain): void;
  /** Counts an operation that a reset has to wait for. */
  waitFor(work: Promise<unknown>): void;
  /** Something that cannot be answered: asks for a reset. */
  fail(error: unknown): void;
  /** Calls a function at the end of the kick or the turn. */
  soon(action: () => void): void;
}

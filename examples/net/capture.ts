/** Captures of the example's network in a file. */
import type { FrameTap } from "@virtio/net";
import { RunError } from "../shared/run.ts";

/** A capture file that is being written. */
export class Capture {
  private constructor() {}

  /** Makes the file. @throws {RunError} If that is not possible. */
  static open(path: string): Capture {
    throw new RunError(`${path}: not yet`);
  }

  /** Captures a card. */
  tap(_name: string): FrameTap {
    return () => {};
  }

  /** Writes the rest. */
  close(): void {}
}

import { defer } from "@virtio/device";
import { pass } from "../pass.ts";
import type { Frame } from "../frame.ts";
import type { FrameSink } from "../sink.ts";
import type { ReceiveQueue } from "./receive_queue.ts";

/** After so many frames the event loop has its turn, so that a fast sender, or two that answer each other, leave it to others. */
const FRAMES_PER_TURN = 1024;

/** Takes received frames. `frame` is valid during the call; `queue` knows where it came, and its hash. */
export type FrameHandler = (frame: Frame, queue: ReceiveQueue) => void;

/** Takes frames out of receive queues, hands them on, and gives buffers back in batches. */
export class ReceivePump {
  /** Takes the frames. While there is none, they are dropped. */
  onFrame: FrameHandler | null = null;
  readonly #queues: readonly ReceiveQueue[];
  readonly #finished: boolean;
  readonly #giveUp: (reason: Error) => void;
  readonly #collecting: Uint8Array;
  /** Queues that are being reset: nothing is put into them. */
  readonly #resetting: ReadonlySet<number>;
  /** Frames taken since the event loop had its turn, as far as we know. */
  #frames = 0;
  /** Whether it is going to have it. */
  #waiting = false;
  #stopped = false;
  #current: ReceiveQueue | null = null;
  readonly #finishedSink: FrameSink = {
    offloads: 0,
    deliver: (frame) => this.onFrame?.(frame, this.#current!),
  };

  /**
   * @param queues By pair.
   * @param finished See `NetDriverOptions`.
   * @param resetting Indexes of virtqueues that are being reset.
   * @param giveUp Called if the device broke a rule.
   */
  constructor(
    queues: readonly ReceiveQueue[],
    finished: boolean,
    resetting: ReadonlySet<number>,
    giveUp: (reason: Error) => void,
  ) {
    this.#queues = queues;
    this.#finished = finished;
    this.#resetting = resetting;
    this.#giveUp = giveUp;
    this.#collecting = new Uint8Array(queues.length);
  }

  /** Takes everything that is there, within bounds, and asks for an interrupt at the next frame. */
  collect(pair: number): void {
    // A device of the same thread may interrupt while a frame is being handled.
    if (this.#stopped || this.#collecting[pair] === 1) return;
    const queue = this.#queues[pair]!;
    this.#collecting[pair] = 1;
    let done = false;
    try {
      queue.disableInterrupts();
      while (this.#frames < FRAMES_PER_TURN) {
        const found = this.#next(queue);
        if (found > 0) this.#hand(queue);
        if (this.#stopped) return;
        if (found >= 0) {
          this.#frames++;
          continue;
        }
        done = this.#resetting.has(queue.index);
        if (done) return;
        queue.fill();
        if (this.#stopped) return;
        done = !queue.enableInterrupts();
        if (done) return;
        queue.disableInterrupts();
      }
    } finally {
      this.#collecting[pair] = 0;
      // The others' turn; or a handler has thrown, which is no reason to stop listening.
      if (!done) this.#later();
    }
  }

  /** Takes no more. */
  stop(): void {
    this.#stopped = true;
  }

  /** Goes on in the next turn of the event loop. */
  #later(): void {
    if (this.#waiting || this.#stopped) return;
    this.#waiting = true;
    defer(() => {
      this.#waiting = false;
      this.#frames = 0;
      for (let pair = 0; pair < this.#queues.length; pair++) this.collect(pair);
    });
  }

  /** As `ReceiveQueue.next`; gives the device up if it broke a rule. */
  #next(queue: ReceiveQueue): number {
    try {
      const found = queue.next();
      if (found >= 0 && queue.hungry && !this.#resetting.has(queue.index)) queue.fill();
      return found;
    } catch (error) {
      this.#giveUp(error as Error);
      return 0;
    }
  }

  #hand(queue: ReceiveQueue): void {
    if (this.onFrame === null) return;
    if (!this.#finished || queue.frame.needs === 0) {
      this.onFrame(queue.frame, queue);
      return;
    }
    this.#current = queue;
    pass(queue.frame, this.#finishedSink);
  }
}

/**
 * A cable whose other end is plugged into the same device: what the driver sends, it receives.
 *
 * This module is browser compatible.
 *
 * @module
 */
import type { Frame } from "../frame.ts";
import { pass } from "../pass.ts";
import { type FrameSink, type NetBackend, Offload } from "../sink.ts";
import { Turn } from "./turn.ts";

/**
 * Gives back each frame to the device that sent it, unsegmented and with partial checksum where the driver takes that. It
 * comes at once, before `deliver` returns; but what is sent in answer to a frame waits until that one was handed over.
 *
 * A driver's filters hold here too: only frames to its own address, or to a group that it listens to, are received.
 *
 * @example
 * ```ts
 * import { Frame } from "@virtio/net";
 * import { LoopbackBackend } from "@virtio/net/loopback";
 * import { assertEquals } from "@std/assert";
 *
 * const loopback = new LoopbackBackend();
 * const lengths: number[] = [];
 * loopback.connect({ offloads: 0, deliver: (frame) => lengths.push(frame.length) });
 * loopback.deliver(new Frame().fromBytes(new Uint8Array(60)));
 * assertEquals(lengths, [60]);
 * ```
 */
export class LoopbackBackend implements NetBackend {
  /** Takes every frame: the receiver's abilities count. */
  readonly offloads: number = Offload.all;
  /** Frames that came back. */
  frames = 0;
  /** Frames dropped because nobody was connected, or what their header says was wrong. */
  dropped = 0;
  #peer: FrameSink | null = null;
  readonly #turn: Turn = new Turn((frame) => {
    const peer = this.#peer;
    if (peer !== null && pass(frame, peer)) this.frames++;
    else this.dropped++;
  });

  /** Frames dropped because too many were sent in answer to others. */
  get overruns(): number {
    return this.#turn.dropped;
  }

  /** Plugs the cable in, or out. */
  connect(peer: FrameSink | null): void {
    this.#peer = peer;
    if (peer === null) this.#turn.clear();
  }

  /** Gives a frame back. */
  deliver(frame: Frame): void {
    this.#turn.take(frame, 0);
  }
}

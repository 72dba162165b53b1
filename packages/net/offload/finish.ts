/** What a receiver cannot do with a frame, done in software on the way to it. */
import { VIRTIO_NET_HDR_GSO_NONE } from "../constants.ts";
import { Frame } from "../frame.ts";
import { type FrameSink, Offload } from "../sink.ts";
import { completeChecksum } from "./checksum.ts";
import { checkHeader } from "./header.ts";
import { FrameLayout, IPPROTO_UDP } from "./parse.ts";
import { Segmenter } from "./segment.ts";

/**
 * Passes frames on to sinks, finished as far as each of them needs it. A frame that needs nothing costs a comparison, so that
 * it goes unsegmented wherever both sides took the feature.
 *
 * Whoever sends frames has one of these. It may be used again while a sink is being given a frame, as when a driver answers
 * at once.
 *
 * @example A sink that can do nothing, and a frame whose checksum is missing
 * ```ts
 * import { FrameFinisher } from "./finish.ts";
 * import { Frame } from "../frame.ts";
 * import { buildFrame } from "./testing.ts";
 * import { assertEquals } from "@std/assert";
 *
 * const spec = { ip: 4, transport: "udp", payload: new Uint8Array(10) } as const;
 * const frame = new Frame().fromBytes(buildFrame({ ...spec, checksum: "partial" }));
 * frame.flags = 1;
 * frame.csumStart = 34;
 * frame.csumOffset = 6;
 * new FrameFinisher().pass(frame, {
 *   offloads: 0,
 *   deliver(frame) {
 *     assertEquals(frame.flags, 0);
 *     assertEquals(frame.bytes, buildFrame(spec));
 *   },
 * });
 * ```
 */
export class FrameFinisher {
  readonly #layout: FrameLayout = new FrameLayout();
  readonly #segmenter: Segmenter = new Segmenter();
  /** Where segments are made; most senders never need it. */
  #segment: Frame | null = null;
  /** Whether segments are being passed on right now; then `#inner` does what comes in meanwhile. */
  #busy = false;
  #inner: FrameFinisher | null = null;

  /**
   * Passes a frame on: as it is if the sink can take it so, else with its checksum complete, or in segments.
   *
   * A checksum is completed in the frame itself, whose header then says so: the next sink finds it done.
   *
   * @param frame Its header was checked by `checkHeader`.
   * @returns Whether it could be finished. If not, its header does not fit the frame, and nothing was passed on.
   */
  pass(frame: Frame, sink: FrameSink): boolean {
    const missing = frame.needs & ~sink.offloads;
    if (missing === 0) {
      sink.deliver(frame);
      return true;
    }
    frame.hold();
    if (this.#busy) return (this.#inner ??= new FrameFinisher()).pass(frame, sink);
    const layout = this.#layout.parse(frame.view, frame.length);
    if (frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) return this.#cut(frame, layout, sink);
    const { csumStart, csumOffset } = frame;
    const isUdp = layout.transport === IPPROTO_UDP && csumStart === layout.transportOffset;
    if (!completeChecksum(frame.view, frame.length, csumStart, csumOffset, isUdp)) return false;
    frame.plain();
    sink.deliver(frame);
    return true;
  }

  #cut(frame: Frame, layout: FrameLayout, sink: FrameSink): boolean {
    // Once more: a wrong one here would write where it should not, and costs nothing beside the segments.
    if (checkHeader(frame, layout, Offload.all) !== null) return false;
    const segmenter = this.#segmenter;
    const segment = this.#segment ??= new Frame();
    const { offloads } = sink;
    segmenter.start(frame.view, frame, layout, (offloads & Offload.csum) !== 0);
    this.#busy = true;
    try {
      while (segmenter.next(segment.view)) {
        segment.setLength(segmenter.length);
        segment.plain();
        segment.flags = segmenter.flags;
        segment.headerLength = segmenter.headerLength;
        segment.csumStart = segmenter.csumStart;
        segment.csumOffset = segmenter.csumOffset;
        // Not `deliver`: what the sink takes may have changed while it took the last one.
        this.pass(segment, sink);
      }
    } finally {
      this.#busy = false;
    }
    return true;
  }
}

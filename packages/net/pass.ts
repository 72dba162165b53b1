/**
 * The way from one sink to the next. What the next cannot take is finished here: checksums completed, frames cut into
 * segments. So every sender may send what it likes, and two ends that both can leave frames as they are never pay for it.
 */
import { VIRTIO_NET_HDR_F_NEEDS_CSUM, VIRTIO_NET_HDR_GSO_NONE } from "./constants.ts";
import { Frame } from "./frame.ts";
import { checksumOffset, copyAndSum, finish, finishUdp } from "./offload/checksum.ts";
import { checkHeader } from "./offload/header.ts";
import { FrameLayout, IPPROTO_UDP } from "./offload/parse.ts";
import { Segmenter } from "./offload/segment.ts";
import { type FrameSink, Offload } from "./sink.ts";

/** Counts what was made of frames that were not passed on as they were. */
export interface FrameTally {
  /** Frames. */
  frames: number;
  /** Bytes of those. */
  bytes: number;
}

/** What one finishing needs; kept for the next one. */
class Finisher {
  readonly layout: FrameLayout = new FrameLayout();
  readonly segmenter: Segmenter = new Segmenter();
  /** What is handed on. */
  readonly frame: Frame = new Frame();
}

const finishers: Finisher[] = [];
/** Finishers in use: a sink may itself pass a frame on. */
let depth = 0;

/**
 * Gives a frame to a sink, finished as far as the sink wants it: a checksum that is to be completed is completed, a frame that
 * is to be segmented is cut (virtio 1.4, 5.1.9.2 and 5.1.9.4). Nothing is copied, changed or allocated if the sink takes the
 * frame as it is.
 *
 * @param frame Stays as it is, and the caller's. It is held if it is finished.
 * @param sink Gets one frame, or several.
 * @param made Counts the frames that were made of this one, if it was not passed on as it is.
 * @returns False if nothing was given, because what the frame's header says does not fit the frame.
 *
 * @example
 * ```ts
 * import { Frame, type FrameSink, pass, VIRTIO_NET_HDR_F_NEEDS_CSUM } from "@virtio/net";
 * import { assertEquals } from "@std/assert";
 *
 * const got: Frame[] = [];
 * const sink: FrameSink = { offloads: 0, deliver: (frame) => got.push(new Frame().fromFrame(frame)) };
 * const bytes = new Uint8Array(60);
 * bytes.set([0x08, 0x00, 0x45, 0, 0, 46, 0, 0, 0, 0, 64, 17], 12); // a UDP packet
 * const frame = new Frame().fromBytes(bytes);
 * frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
 * frame.csumStart = 34;
 * frame.csumOffset = 6;
 * pass(frame, sink);
 * assertEquals(got[0]!.needs, 0);
 * assertEquals(got[0]!.view.getUint16(40), 0xffff);
 * ```
 */
export function pass(frame: Frame, sink: FrameSink, made?: FrameTally): boolean {
  if ((frame.needs & ~sink.offloads) === 0) {
    sink.deliver(frame);
    return true;
  }
  if (depth === finishers.length) finishers.push(new Finisher());
  const finisher = finishers[depth]!;
  depth++;
  try {
    return finishInto(finisher, frame, sink, made);
  } finally {
    depth--;
  }
}

function finishInto(
  finisher: Finisher,
  frame: Frame,
  sink: FrameSink,
  made: FrameTally | undefined,
): boolean {
  const { layout } = finisher;
  frame.hold();
  // Only what was looked at when the header was checked is looked at now.
  layout.parse(frame.view, frame.headLength, frame.length);
  // Arithmetic follows: a back end that did not check is not believed.
  if (checkHeader(frame, layout, Offload.all, true) !== null) return false;
  if ((frame.needs & ~sink.offloads) === 0) {
    // What it said beyond that meant nothing.
    sink.deliver(frame);
  } else if (frame.gsoType === VIRTIO_NET_HDR_GSO_NONE) {
    completeInto(finisher.frame, frame, layout);
    give(finisher.frame, sink, made);
  } else {
    segmentInto(finisher, frame, sink, made);
  }
  return true;
}

function give(frame: Frame, sink: FrameSink, made: FrameTally | undefined): void {
  if (made !== undefined) {
    made.frames++;
    made.bytes += frame.length;
  }
  sink.deliver(frame);
}

function completeInto(target: Frame, frame: Frame, layout: FrameLayout): void {
  const { csumStart, csumOffset, length } = frame;
  copyAndSum(frame.view, 0, target.view, 0, csumStart);
  const sum = copyAndSum(frame.view, csumStart, target.view, csumStart, length - csumStart);
  const udp = layout.transport === IPPROTO_UDP && csumStart === layout.transportOffset &&
    csumOffset === checksumOffset(IPPROTO_UDP);
  target.view.setUint16(csumStart + csumOffset, udp ? finishUdp(sum) : finish(sum));
  target.plain();
  target.setLength(length);
}

function segmentInto(
  finisher: Finisher,
  frame: Frame,
  sink: FrameSink,
  made: FrameTally | undefined,
): void {
  const { segmenter, layout, frame: target } = finisher;
  const partial = (sink.offloads & Offload.csum) !== 0;
  segmenter.start(frame.view, frame, layout, partial);
  while (segmenter.next(target.view)) {
    target.plain();
    if ((segmenter.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
      target.flags = segmenter.flags;
      target.headerLength = segmenter.headerLength;
      target.csumStart = segmenter.csumStart;
      target.csumOffset = segmenter.csumOffset;
    }
    target.setLength(segmenter.length);
    give(target, sink, made);
  }
}

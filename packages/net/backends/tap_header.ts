import { NetHeaderOffset } from "../constants.ts";
import type { Frame } from "../frame.ts";

/** Writes what is to be done with a frame, as a `struct virtio_net_hdr` of 12 bytes (virtio 1.4, 5.1.9) at the beginning. */
export function writeNetHeader(view: DataView, frame: Frame): void {
  view.setUint8(NetHeaderOffset.flags, frame.flags);
  view.setUint8(NetHeaderOffset.gso_type, frame.gsoType);
  view.setUint16(NetHeaderOffset.hdr_len, frame.headerLength, true);
  view.setUint16(NetHeaderOffset.gso_size, frame.gsoSize, true);
  view.setUint16(NetHeaderOffset.csum_start, frame.csumStart, true);
  view.setUint16(NetHeaderOffset.csum_offset, frame.csumOffset, true);
  view.setUint16(NetHeaderOffset.num_buffers, 0, true);
}

/** Takes over what such a header says, unchecked. */
export function readNetHeader(view: DataView, frame: Frame): void {
  frame.flags = view.getUint8(NetHeaderOffset.flags);
  frame.gsoType = view.getUint8(NetHeaderOffset.gso_type);
  frame.headerLength = view.getUint16(NetHeaderOffset.hdr_len, true);
  frame.gsoSize = view.getUint16(NetHeaderOffset.gso_size, true);
  frame.csumStart = view.getUint16(NetHeaderOffset.csum_start, true);
  frame.csumOffset = view.getUint16(NetHeaderOffset.csum_offset, true);
}

/**
 * Tags of IEEE 802.1Q at the edge of a switch. They are added and removed in the frame itself, and what was done is undone
 * afterwards: copying a frame for that would cost a view.
 */
import type { Frame } from "../frame.ts";
import { ETH_P_8021Q } from "../offload/parse.ts";

/** Bytes of a tag. */
export const VLAN_TAG_SIZE = 4;
/** VLAN identifiers are below this; the last one is reserved. */
export const VLANS = 4096;
/** The highest identifier that a VLAN can have. */
export const MAX_VLAN = 4094;

const TYPE_AT = 12;
const CONTROL_AT = 14;
const BEHIND_TAG = 16;

/** Whether the frame begins with a tag. It has 14 bytes at least. */
export function hasTag(frame: Frame): boolean {
  return frame.view.getUint16(TYPE_AT) === ETH_P_8021Q && frame.length >= BEHIND_TAG + 2;
}

/** Priority, eligibility and VLAN of a frame that has a tag. */
export function tagControl(frame: Frame): number {
  return frame.view.getUint16(CONTROL_AT);
}

/** Writes priority, eligibility and VLAN of a frame that has a tag. */
export function setTagControl(frame: Frame, control: number): void {
  frame.view.setUint16(CONTROL_AT, control);
}

/** Whether there is another tag under the first. */
export function hasInnerTag(frame: Frame): boolean {
  return frame.view.getUint16(BEHIND_TAG) === ETH_P_8021Q;
}

/** Inserts a tag. @returns Whether the frame has room for it; it is unchanged if not. */
export function insertTag(frame: Frame, control: number): boolean {
  const length = frame.length;
  if (length + VLAN_TAG_SIZE > frame.capacity) return false;
  frame.hold();
  frame.buffer.copyWithin(BEHIND_TAG, TYPE_AT, length);
  frame.setLength(length + VLAN_TAG_SIZE);
  frame.view.setUint16(TYPE_AT, ETH_P_8021Q);
  frame.view.setUint16(CONTROL_AT, control);
  shift(frame, VLAN_TAG_SIZE);
  return true;
}

/** Takes the tag out. The frame has one. */
export function removeTag(frame: Frame): void {
  const length = frame.length;
  frame.hold();
  frame.buffer.copyWithin(TYPE_AT, BEHIND_TAG, length);
  frame.setLength(length - VLAN_TAG_SIZE);
  shift(frame, -VLAN_TAG_SIZE);
}

/** What the net header says counts from the beginning of the frame. */
function shift(frame: Frame, by: number): void {
  if (frame.headerLength !== 0) frame.headerLength += by;
  if (frame.csumStart !== 0) frame.csumStart += by;
}

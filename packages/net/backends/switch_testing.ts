/** Frames and receivers for tests of the switch. */
import { Frame } from "../frame.ts";
import type { SwitchPort } from "./switch.ts";

/** What to send. */
export interface Envelope {
  /** Last byte of the receiver's address 02:00:00:00:00:XX, or all of it. */
  readonly to: number | readonly number[];
  /** The same of the sender. */
  readonly from: number | readonly number[];
  /** Tags, outer one first: 16 bits each. */
  readonly tags?: readonly number[];
  /** Bytes behind the EtherType; 46 unless given. */
  readonly size?: number;
  /** What fills them, so that frames are told apart. */
  readonly fill?: number;
}

/** The address of everybody. */
export const BROADCAST: readonly number[] = [255, 255, 255, 255, 255, 255];
/** A group. */
export const GROUP: readonly number[] = [0x33, 0x33, 0, 0, 0, 1];

/** The address 02:00:00:00:00:XX. */
export function station(last: number): number[] {
  return [2, 0, 0, 0, 0, last];
}

function address(of: number | readonly number[]): readonly number[] {
  return typeof of === "number" ? station(of) : of;
}

/** The bytes of a frame, of an EtherType for experiments. */
export function envelope({ to, from, tags = [], size = 46, fill = 0 }: Envelope): Uint8Array {
  return new Uint8Array([
    ...address(to),
    ...address(from),
    ...tags.flatMap((tag) => [0x81, 0x00, tag >> 8, tag & 255]),
    0x88,
    0xb5,
    ...new Uint8Array(size).fill(fill),
  ]);
}

/** A frame. */
export function letter(what: Envelope): Frame {
  return new Frame().fromBytes(envelope(what));
}

/** Collects what leaves by a port. */
export function collect(port: SwitchPort, offloads?: number): Uint8Array[] {
  const got: Uint8Array[] = [];
  port.listen((frame) => void got.push(frame.bytes.slice()), offloads);
  return got;
}

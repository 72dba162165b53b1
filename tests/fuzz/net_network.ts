/** What is at the other end of the net target's cable, and the frames that go over it. */
import { assert, assertEquals } from "@std/assert";
import * as net from "@virtio/net";

/** EtherType of the frames whose bytes are known; a number follows. */
export const KNOWN = 0x88b5;

/** The other end of the cable. */
export class Network implements net.NetBackend {
  offloads: number = net.Offload.all;
  peer: net.FrameSink | null = null;
  /** Whether frames come back. */
  echoes = false;
  onFrame: (frame: net.Frame) => void = () => {};

  connect(peer: net.FrameSink | null): void {
    this.peer = peer;
  }

  deliver(frame: net.Frame): void {
    assertEquals(frame.needs & ~this.offloads, 0, "the back end gets only what it takes");
    assert(frame.length >= 14 && frame.length <= net.MAX_FRAME_SIZE);
    if (frame.needs !== 0) {
      assert(frame.csumStart + frame.csumOffset + 2 <= frame.length);
      assert(frame.headerLength <= frame.length);
    }
    this.onFrame(frame);
    if (this.echoes && this.peer !== null) net.pass(frame, this.peer);
  }
}

/** A frame with a number in it. */
export function knownFrame(number: number, length: number, to: readonly number[]): Uint8Array {
  const bytes = Uint8Array.from({ length }, (_, i) => (number * 31 + i * 7) & 0xff);
  const head = [...to, 2, 0, 0, 0, 0, 5, KNOWN >> 8, KNOWN & 0xff];
  head.push(0, number >> 16, (number >> 8) & 0xff, number & 0xff);
  bytes.set(head.slice(0, length));
  return bytes;
}

/** Makes it one whose bytes may become others: of TCP over IPv4, if that fits. */
export function unknown(bytes: Uint8Array): void {
  if (bytes.length < 54) {
    bytes.fill(0, 12, 14);
    return;
  }
  bytes.set([8, 0, 0x45, 0, (bytes.length - 14) >> 8, (bytes.length - 14) & 0xff], 12);
  bytes.set([0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2], 20);
  bytes[46] = 0x50;
}

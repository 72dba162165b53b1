/** Address resolution (RFC 826) for the gateway. What stations claim is the guard's business, who sees each frame first. */
import type { Frame } from "@virtio/net";
import type { MacAddress } from "@virtio/net/wire";
import type { GuestPort } from "../wire/port.ts";
import { EtherType } from "../wire/guard.ts";
import type { Station } from "../wire/station.ts";
import type { Output } from "./output.ts";

const AT = 14;
const REQUEST = 1;
const REPLY = 2;
const SIZE = 28;

/** Answers requests for the gateway's address. The guard has looked at the frame. */
export function answerArp(
  frame: Frame,
  from: Station,
  address: number,
  mac: MacAddress,
  output: Output,
): void {
  const { view } = frame;
  if (view.getUint16(AT + 6) !== REQUEST || view.getUint32(AT + 24) !== address) return;
  const sender = view.getUint32(AT + 14);
  output.raw(from.at, from.high, from.low, EtherType.arp, () => {
    writeArp(output, REPLY, mac, address, from.high, from.low, sender);
    return SIZE;
  });
}

/** Asks for an address at a port. */
export function askArp(
  to: GuestPort,
  wanted: number,
  address: number,
  mac: MacAddress,
  output: Output,
): void {
  output.raw(to, 0xff_ffff, 0xff_ffff, EtherType.arp, () => {
    writeArp(output, REQUEST, mac, address, 0, 0, wanted);
    return SIZE;
  });
}

function writeArp(
  { view, start: at }: Output,
  operation: number,
  mac: MacAddress,
  sender: number,
  high: number,
  low: number,
  target: number,
): void {
  view.setUint32(at, 0x0001_0800);
  view.setUint32(at + 4, 0x0604_0000 | operation);
  view.setUint32(at + 8, mac.high << 8 | mac.low >>> 16);
  view.setUint16(at + 12, mac.low & 0xffff);
  view.setUint32(at + 14, sender);
  view.setUint32(at + 18, high << 8 | low >>> 16);
  view.setUint16(at + 22, low & 0xffff);
  view.setUint32(at + 24, target);
}

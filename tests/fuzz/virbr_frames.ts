/** Frames of fuzzed guests. */
import type { TestGuest } from "../../packages/virbr/ip/guest_testing.ts";
import { macBytes } from "../../packages/virbr/ip/guest_testing.ts";
import { encodeName } from "../../packages/virbr/dns/names.ts";
import { parseAddress, writeIpv6 } from "../../packages/virbr/ip/address.ts";
import type { Content } from "./virbr_cases.ts";

const TARGETS_4 = [
  "192.168.122.1",
  "192.168.122.3",
  "255.255.255.255",
  "192.168.122.255",
  "203.0.113.1",
  "127.0.0.1",
  "224.0.0.251",
];
const TARGETS_6 = [
  "fd00:1::1",
  "fe80::1",
  "ff02::1",
  "ff02::1:2",
  "2001:db8::1",
  "::1",
  "fd00:1::3",
];
const NAMES = [
  "gateway",
  "gateway.internal",
  "fixed.internal",
  "internal",
  "www.example.com",
  "1.122.168.192.in-addr.arpa",
  "printer.internal",
  "localhost",
];

/** A frame of IPv4. */
export function content4(content: Content, guest: TestGuest): Uint8Array {
  switch (content.kind) {
    case "echo": {
      const to = TARGETS_4[content.target]!;
      return guest.ipv4(1, to, guest.icmp(8, 0, filled(4 + content.size)));
    }
    case "fragment": {
      const payload = filled(content.size);
      const flags = content.place | (content.more ? 0x2000 : 0);
      return guest.ipv4(1, TARGETS_4[0]!, payload, { id: content.id, flags });
    }
    case "udp": {
      const to = TARGETS_4[content.target]!;
      return guest.ipv4(17, to, guest.udp(1000, content.port, to, filled(content.size)));
    }
    case "icmp":
      return guest.ipv4(
        1,
        TARGETS_4[4]!,
        guest.icmp(content.type, content.code, Uint8Array.from(content.body)),
      );
    case "dns": {
      const message = question(content.name, content.type, content.records);
      return guest.ipv4(17, TARGETS_4[0]!, guest.udp(2000, 53, TARGETS_4[0]!, message));
    }
    case "dhcp":
      return dhcp(content, guest);
    default:
      throw new TypeError(`${content.kind} is nothing of IPv4`);
  }
}

/** A frame of IPv6. */
export function content6(content: Content, guest: TestGuest): Uint8Array {
  switch (content.kind) {
    case "echo": {
      const to = TARGETS_6[content.target]!;
      return guest.ipv6(58, to, guest.icmpv6(128, 0, filled(4 + content.size), to));
    }
    case "fragment": {
      const payload = filled(8 + content.size);
      const view = new DataView(payload.buffer);
      view.setUint16(0, 58 << 8);
      view.setUint16(2, content.place << 3 | (content.more ? 1 : 0));
      view.setUint32(4, content.id);
      return guest.ipv6(44, TARGETS_6[0]!, payload);
    }
    case "udp": {
      const to = TARGETS_6[content.target]!;
      return guest.ipv6(17, to, guest.udp(1000, content.port, to, filled(content.size)));
    }
    case "icmp": {
      const body = Uint8Array.from(content.body);
      const to = TARGETS_6[0]!;
      return guest.ipv6(58, to, guest.icmpv6(content.type, content.code, body, to), 255);
    }
    case "extensions": {
      const to = TARGETS_6[0]!;
      const inner = guest.icmpv6(content.type, 0, filled(20), to);
      const headers = content.headers.map(([, size], i) => {
        const bytes = new Uint8Array(8 * (size + 1));
        bytes[0] = content.headers[i + 1]?.[0] ?? 58;
        bytes[1] = size;
        return bytes;
      });
      const payload = Uint8Array.from([...headers, inner].flatMap((bytes) => [...bytes]));
      return guest.ipv6(content.headers[0]?.[0] ?? 58, to, payload, 255);
    }
    case "neighbour": {
      const to = content.type === 133 ? "ff02::2" : TARGETS_6[0]!;
      const body = new Uint8Array(20 + content.options.length);
      writeIpv6(new DataView(body.buffer), 4, parseAddress(TARGETS_6[content.target]!)!);
      body.set(content.options, 20);
      return guest.ipv6(58, to, guest.icmpv6(content.type, 0, body, to), 255);
    }
    case "dns": {
      const message = question(content.name, content.type, content.records);
      return guest.ipv6(17, TARGETS_6[1]!, guest.udp(2000, 53, TARGETS_6[1]!, message));
    }
    default:
      throw new TypeError(`${content.kind} is nothing of IPv6`);
  }
}

/** A message of DNS with one question; more bytes are one more record. */
export function question(name: number, type: number, records: readonly number[]): Uint8Array {
  const encoded = encodeName(NAMES[name]!);
  const bytes = new Uint8Array(12 + encoded.length + 4 + records.length);
  const view = new DataView(bytes.buffer);
  view.setUint16(0, 0x1234);
  view.setUint16(2, 0x0100);
  view.setUint16(4, 1);
  view.setUint16(10, records.length > 0 ? 1 : 0);
  bytes.set(encoded, 12);
  view.setUint16(12 + encoded.length, type);
  view.setUint16(14 + encoded.length, 1);
  bytes.set(records, 16 + encoded.length);
  return bytes;
}

function dhcp(content: Content & { kind: "dhcp" }, guest: TestGuest): Uint8Array {
  const bytes = new Uint8Array(548);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x0101_0600);
  view.setUint32(4, 0xdead_beef);
  if (content.address !== 0) bytes.set([192, 168, 122, content.address + 1], 12);
  bytes.set(guest.mac, 28);
  view.setUint32(236, 0x6382_5363);
  let at = 240;
  const put = (option: number, value: ArrayLike<number>): void => {
    bytes.set([option, value.length], at);
    bytes.set(value, at + 2);
    at += 2 + value.length;
  };
  put(53, [content.type]);
  if (content.requested !== 0) put(50, [192, 168, 122, content.requested]);
  if (content.server) put(54, [192, 168, 122, 1]);
  for (const [option, value] of content.options) put(option, value);
  bytes[at] = 255;
  const { ip } = guest;
  guest.ip = "0.0.0.0";
  const all = "255.255.255.255";
  const frame = guest.ipv4(17, all, guest.udp(68, 67, all, bytes), { to: "ff:ff:ff:ff:ff:ff" });
  guest.ip = ip;
  frame.set(macBytes("ff:ff:ff:ff:ff:ff"));
  return frame;
}

function filled(size: number): Uint8Array {
  return Uint8Array.from({ length: size }, (_, i) => i * 5);
}

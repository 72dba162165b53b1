/** Clients of DHCP for tests: they write their messages byte by byte, and read what comes. */
import { assert, assertEquals } from "@std/assert";
import { formatAddress } from "../ip/address.ts";
import { type Heard, TestGuest } from "../ip/guest_testing.ts";
import type { VirbrOptions } from "../options.ts";
import { Virbr } from "../virbr.ts";
import type { VirbrPort } from "../wire/port.ts";
import { DhcpOption, DhcpType } from "./message.ts";

/** All stations. */
export const BROADCAST = "255.255.255.255";
const { type, requestedAddress, serverId } = DhcpOption;

/** Options of a message, each with its value. */
export type Options = readonly (readonly [number, ArrayLike<number>])[];

/** An answer as a client reads it. */
export interface Answer {
  readonly type: number;
  readonly address: string;
  readonly options: ReadonlyMap<number, Uint8Array>;
  readonly to: string;
  readonly nextServer: number;
  readonly file: string;
}

/** A network whose time the test lets pass. */
export interface World {
  readonly net: Virbr;
  /** Makes a client on a port of its own. */
  client(mac?: string): TestGuest;
  /** Lets seconds pass. */
  pass(seconds: number): void;
}

/** Makes one. */
export function world(options: VirbrOptions = {}): World {
  let now = 0;
  const net = new Virbr({ clock: () => now, ...options });
  let count = 0;
  const client = (mac = `52:54:00:00:01:${(count++).toString(16).padStart(2, "0")}`) =>
    new TestGuest(net.port(), mac, net.mac);
  return { net, client, pass: (seconds: number) => now += 1000 * seconds };
}

/** Bytes of an address. */
export function ip(text: string): number[] {
  return text.split(".").map(Number);
}

/** Bytes of a text. */
export function text(value: string): number[] {
  return [...new TextEncoder().encode(value)];
}

/** A message of a client. */
export function message(guest: TestGuest, options: Options, address = "0.0.0.0"): Uint8Array {
  const bytes = new Uint8Array(400);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x0101_0600);
  view.setUint32(4, 0xfeed_beef);
  bytes.set(ip(address), 12);
  bytes.set(guest.mac, 28);
  view.setUint32(236, 0x6382_5363);
  let at = 240;
  for (const [option, value] of options) {
    bytes.set([option, value.length], at);
    bytes.set(value, at + 2);
    at += 2 + value.length;
  }
  bytes[at] = DhcpOption.end;
  return bytes;
}

/** Sends a message, and reads what comes. */
export function send(guest: TestGuest, options: Options, address = "0.0.0.0"): Answer[] {
  const bytes = message(guest, options, address);
  guest.ip = address;
  const to = address === "0.0.0.0" ? BROADCAST : "192.168.122.1";
  guest.send(guest.ipv4(17, to, guest.udp(68, 67, to, bytes)));
  return guest.packets().map(readAnswer);
}

function readAnswer({ payload, destination }: Heard): Answer {
  const bytes = payload.subarray(8);
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  assert(bytes.length >= 300);
  assertEquals([view.getUint32(0), view.getUint32(4)], [0x0201_0600, 0xfeed_beef]);
  assertEquals(view.getUint32(236), 0x6382_5363);
  const options = new Map<number, Uint8Array>();
  let at = 240;
  while (bytes[at] !== DhcpOption.end) {
    options.set(bytes[at]!, bytes.slice(at + 2, at + 2 + bytes[at + 1]!));
    at += 2 + bytes[at + 1]!;
  }
  return {
    type: options.get(type)![0]!,
    address: [...bytes.subarray(16, 20)].join("."),
    options,
    to: formatAddress(destination),
    nextServer: view.getUint32(20),
    file: String.fromCharCode(...bytes.subarray(108, 236)).replace(/\0.*$/s, ""),
  };
}

/** Discover and request. */
export function join(guest: TestGuest, more: Options = []): Answer {
  const [offer] = send(guest, [[type, [DhcpType.discover]], ...more]);
  assertEquals(offer?.type, DhcpType.offer);
  const [ack] = send(guest, [
    [type, [DhcpType.request]],
    [requestedAddress, ip(offer!.address)],
    [serverId, offer!.options.get(serverId)!],
    ...more,
  ]);
  assertEquals(ack?.type, DhcpType.ack);
  assertEquals(ack!.address, offer!.address);
  return ack!;
}

/** What a client gets that renews its lease. */
export function renew(guest: TestGuest, address: string): number | undefined {
  return send(guest, [[type, [DhcpType.request]]], address)[0]?.type;
}

/** What a client gets that had an address before. */
export function reboot(guest: TestGuest, address: string): number | undefined {
  return send(guest, [[type, [DhcpType.request]], [requestedAddress, ip(address)]])[0]?.type;
}

/** The MAC address of a number. */
export function mac(number: number): string {
  const hex = number.toString(16).padStart(8, "0");
  return `02:00:${hex.match(/../g)!.join(":")}`;
}

/** One guest that calls itself by another MAC address each time. */
export function cycling(port: VirbrPort, gateway: string): (number: number) => TestGuest {
  let next = 0;
  return (number) => {
    // Its cable is out for a moment: who was behind the port is forgotten.
    if (next++ % 8 === 0) {
      port.up = false;
      port.up = true;
    }
    return new TestGuest(port, mac(number), gateway);
  };
}

/** A guest changes its MAC address so many times, and takes what it gets: others have their leases, and get theirs. */
export function changeMac(times: number): void {
  const { net, client } = world();
  const before = client();
  const { address } = join(before);
  const port = net.port({ name: "hostile" });
  const as = cycling(port, net.mac);
  for (let i = 0; i < times; i++) {
    const guest = as(i);
    if (i % 3 === 0) send(guest, [[type, [DhcpType.discover]]]);
    else if (i % 3 === 1) join(guest);
    // Without having been offered it.
    else reboot(guest, `192.168.122.${2 + i % 250}`);
  }
  assertEquals(net.stats.dhcp.exhausted, 0);
  assert(net.leases.length <= 9, `${net.leases.length} leases`);
  assertEquals(renew(before, address), DhcpType.ack, "nobody else has it");
  const others = Array.from({ length: 240 }, () => join(client()).address);
  assertEquals(new Set(others).size, 240);
}

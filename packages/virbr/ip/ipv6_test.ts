import { assert, assertEquals } from "@std/assert";
import { encodeName } from "../dns/names.ts";
import type { VirbrOptions } from "../options.ts";
import { Virbr } from "../virbr.ts";
import { formatAddress, parseAddress, readIpv6, writeIpv6 } from "./address.ts";
import { assertSum, type Heard, macBytes, TestGuest } from "./guest_testing.ts";

const ROUTER = "fe80::1";
const GATEWAY = "fd00:1::1";

function world(options: VirbrOptions = {}) {
  let now = 0;
  const net = new Virbr({ clock: () => now, ipv6: "fd00:1::/64", ...options });
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac);
  guest.ip6 = "fd00:1::5";
  return { net, guest, pass: (seconds: number) => now += 1000 * seconds };
}

function solicit(guest: TestGuest, address: string, to = "ff02::1:ff00:1", hops = 255): Heard[] {
  const body = new Uint8Array(20);
  writeIpv6(new DataView(body.buffer), 4, parseAddress(address)!);
  guest.send(guest.ipv6(58, to, guest.icmpv6(135, 0, body, to), hops));
  return guest.packets();
}

/** Options of neighbour discovery, from a place on. */
function options(payload: Uint8Array, from: number): Map<number, Uint8Array> {
  const all = new Map<number, Uint8Array>();
  for (let at = from; at < payload.length; at += 8 * payload[at + 1]!) {
    assert(payload[at + 1]! > 0);
    all.set(payload[at]!, payload.slice(at, at + 8 * payload[at + 1]!));
  }
  return all;
}

Deno.test("neighbours learn the gateway's link-layer address, and only of its own addresses", () => {
  const { net, guest } = world();
  for (const address of [GATEWAY, ROUTER]) {
    const [answer] = solicit(guest, address);
    assertSum(answer!);
    assertEquals(answer!.hopLimit, 255);
    assertEquals(formatAddress(answer!.source), address);
    assertEquals(formatAddress(answer!.destination), "fd00:1::5");
    assertEquals([answer!.payload[0], answer!.payload[4]], [136, 0xe0]);
    assertEquals(options(answer!.payload, 24).get(2)!.subarray(2, 8), macBytes(net.mac));
  }
  assertEquals(solicit(guest, "fd00:1::9"), []);
  assertEquals(solicit(guest, GATEWAY, undefined, 254), [], "it came through a router");
  // Somebody tries the gateway's address for itself: all are told.
  guest.ip6 = "::";
  const [taken] = solicit(guest, GATEWAY);
  assertEquals(formatAddress(taken!.destination), "ff02::1");
  assertEquals(taken!.payload[4], 0xa0);
});

Deno.test("the router advertises its prefix, resolver and search list; later again without being asked", () => {
  const { guest, pass } = world({ search: ["example.org"], mtu: 1400 });
  guest.send(guest.ipv6(58, "ff02::2", guest.icmpv6(133, 0, new Uint8Array(4), "ff02::2"), 255));
  const [told] = guest.packets();
  assertSum(told!);
  const { payload } = told!;
  assertEquals([payload[0], payload[5]], [134, 0x40]);
  assertEquals(payload[6]! << 8 | payload[7]!, 9000);
  const all = options(payload, 16);
  const prefix = all.get(3)!;
  const words = new Uint32Array(4);
  readIpv6(new DataView(prefix.buffer), 16, words);
  assertEquals([prefix[2], prefix[3], formatAddress(words)], [64, 0xc0, "fd00:1::"]);
  readIpv6(new DataView(all.get(25)!.buffer), 8, words);
  assertEquals(formatAddress(words), GATEWAY);
  const list = [...encodeName("internal"), ...encodeName("example.org")];
  assertEquals([...all.get(31)!.subarray(8, 8 + list.length)], list);
  assertEquals(new DataView(all.get(5)!.buffer).getUint32(4), 1400);
  pass(601);
  solicit(guest, "fd00:1::9");
  pass(10);
  guest.frames.length = 0;
  pass(601);
  guest.send(guest.ipv6(59, "fd00:1::99", new Uint8Array(0)));
  assertEquals(guest.packets().map(({ payload }) => payload[0]), [134, 1]);
});

Deno.test("isolated guests are told of no router", () => {
  const { guest } = world({ mode: "isolated" });
  guest.send(guest.ipv6(58, "ff02::2", guest.icmpv6(133, 0, new Uint8Array(4), "ff02::2"), 255));
  const [told] = guest.packets();
  assertEquals([told!.payload[6], told!.payload[7]], [0, 0]);
});

Deno.test("echo of any size, in fragments where they must be; errors about what cannot be reached", () => {
  const { guest } = world();
  const data = Uint8Array.from({ length: 4004 }, (_, i) => i * 3);
  const message = guest.icmpv6(128, 0, data, GATEWAY);
  for (let at = 0; at < message.length; at += 1232) {
    const piece = message.subarray(at, at + 1232);
    const bytes = new Uint8Array(8 + piece.length);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, 58 << 8);
    view.setUint16(2, at | (at + 1232 < message.length ? 1 : 0));
    view.setUint32(4, 77);
    bytes.set(piece, 8);
    guest.send(guest.ipv6(44, GATEWAY, bytes));
  }
  const whole = new Uint8Array(message.length);
  const answers = guest.packets();
  assertEquals(answers.length, 3);
  for (const { payload, protocol } of answers) {
    assertEquals(protocol, 44);
    const place = (payload[2]! << 8 | payload[3]!) & 0xfff8;
    whole.set(payload.subarray(8), place);
  }
  assertEquals(whole[0], 129);
  assertEquals(whole.subarray(4), data);
  assertSum({ ...answers[0]!, protocol: 58, payload: whole });

  const codes = () => guest.packets().map(({ payload }) => [payload[0], payload[1]]);
  const udp = guest.udp(1, 9, GATEWAY, new Uint8Array(4));
  guest.send(guest.ipv6(17, GATEWAY, udp));
  assertEquals(codes(), [[1, 4]]);
  guest.send(guest.ipv6(99, GATEWAY, new Uint8Array(8)));
  assertEquals(codes(), [[4, 1]]);
  const far = "2001:db8::1";
  guest.send(guest.ipv6(17, far, guest.udp(1, 9, far, new Uint8Array(4)), 1));
  assertEquals(codes(), [[3, 0]]);
  guest.send(guest.ipv6(17, "fd00:1::99", guest.udp(1, 9, "fd00:1::99", new Uint8Array(4))));
  assertEquals(codes(), [[1, 3]]);
  // Neither mapped addresses nor sums that are wrong.
  const mapped = "::ffff:192.0.2.1";
  guest.send(guest.ipv6(17, mapped, guest.udp(1, 53, mapped, new Uint8Array(4))));
  udp[6]! ^= 1;
  guest.send(guest.ipv6(17, GATEWAY, udp));
  assertEquals(codes(), []);
});

Deno.test("the longest packet there is comes back, and none that is longer", () => {
  const { net, guest } = world({ mtu: 65_535 });
  const echo = (size: number) => {
    const message = guest.icmpv6(128, 0, new Uint8Array(size - 44), GATEWAY);
    guest.send(guest.ipv6(58, GATEWAY, message));
    return guest.packets().map(({ payload }) => payload.length);
  };
  assertEquals(echo(65_535), [65_495]);
  assertEquals(echo(65_536), []);
  assertEquals(echo(65_575), []);
  assertEquals(net.stats.gateway.malformed, 2);
});

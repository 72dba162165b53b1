import { assert, assertEquals, assertThrows } from "@std/assert";
import { Frame } from "@virtio/net";
import { TestGuest } from "../ip/guest_testing.ts";
import type { VirbrOptions } from "../options.ts";
import { Virbr } from "../virbr.ts";
import type { VirbrPortOptions } from "./port.ts";

const GATEWAY = "192.168.122.1";

function world(options: VirbrOptions = {}, ports: readonly VirbrPortOptions[] = [{}, {}]) {
  let now = 0;
  const net = new Virbr({ clock: () => now, ipv6: "fd00:1::/64", ...options });
  const [a, b] = ports.map((port, i) => {
    const guest = new TestGuest(
      net.port({ name: `guest${i}`, ...port }),
      `52:54:00:00:00:0${i + 1}`,
      net.mac,
      `192.168.122.${10 + i}`,
    );
    guest.ip6 = `fe80::1${i}`;
    return guest;
  });
  return { net, a: a!, b: b!, pass: (seconds: number) => now += 1000 * seconds };
}

/** Whether a frame of one guest reaches another. */
function reaches(from: TestGuest, to: TestGuest, frame: Uint8Array): boolean {
  to.frames.length = 0;
  const copy = frame.slice();
  copy.set(to.mac);
  from.send(copy);
  return to.frames.splice(0).length === 1;
}

const datagram = (guest: TestGuest, to = "192.168.122.11", from = 1, port = 2) =>
  guest.ipv4(17, to, guest.udp(from, port, to, new Uint8Array(4)));

Deno.test("guests reach each other, as themselves only", () => {
  const { net, a, b } = world();
  assert(reaches(a, b, datagram(a)));
  assert(reaches(b, a, datagram(b)));
  const own = a.ip;
  for (
    const ip of [
      "192.168.122.11",
      GATEWAY,
      "10.0.0.1",
      "192.168.122.255",
      "192.168.122.0",
      "0.0.0.0",
    ]
  ) {
    a.ip = ip;
    assert(!reaches(a, b, datagram(a)), ip);
    assert(!reaches(a, b, a.arp(1, ip, "192.168.122.99")) || ip === "0.0.0.0", ip);
  }
  a.ip = own;
  // With another's MAC address, the gateway's, a group's; in ARP too.
  for (const mac of [b.mac, b.gateway, new Uint8Array([1, 0, 0, 0, 0, 1])]) {
    const frame = datagram(a);
    frame.set(mac, 6);
    assert(!reaches(a, b, frame));
    assert(!reaches(a, b, a.arp(2, own, "192.168.122.11", mac)));
  }
  const { spoofed } = a.port.stats.drops;
  assertEquals(spoofed, 5 + 1 + 5 + 6);
  assert(reaches(a, b, datagram(a)), "and it still has its own");
  assertEquals(net.guests.map(({ mac }) => mac), ["52:54:00:00:00:01", "52:54:00:00:00:02"]);
});

Deno.test("guests are neither routers nor servers of addresses", () => {
  const { a, b } = world();
  const all = "ff02::1";
  assert(!reaches(a, b, a.ipv6(58, all, a.icmpv6(134, 0, new Uint8Array(12), all), 255)));
  assert(!reaches(a, b, a.ipv6(58, all, a.icmpv6(137, 0, new Uint8Array(36), all), 255)));
  // Behind an extension header.
  const hidden = new Uint8Array(8 + 16);
  hidden[0] = 58;
  hidden.set(a.icmpv6(134, 0, new Uint8Array(12), all), 8);
  assert(!reaches(a, b, a.ipv6(60, all, hidden, 255)));
  assert(!reaches(a, b, datagram(a, "192.168.122.11", 67, 68)));
  assert(!reaches(a, b, a.ipv6(17, "fe80::11", a.udp(547, 546, "fe80::11", new Uint8Array(4)))));
  assertEquals(a.port.stats.drops.rogue, 5);
  // An advertisement for the address of another, or of the gateway.
  assert(reaches(b, a, b.ipv6(58, all, b.icmpv6(136, 0, target("fe80::11"), all), 255)));
  for (const address of ["fe80::11", "fe80::1", "fd00:1::1", "2001:db8::1"]) {
    assert(!reaches(a, b, a.ipv6(58, all, a.icmpv6(136, 0, target(address), all), 255)), address);
  }
  assert(reaches(a, b, a.ipv6(58, all, a.icmpv6(136, 0, target("fd00:1::77"), all), 255)));
});

function target(address: string): Uint8Array {
  const bytes = new Uint8Array(20);
  const groups = address.split("::");
  const write = (text: string, at: number): void => {
    const parts = text === "" ? [] : text.split(":");
    const start = at < 0 ? 20 - 2 * parts.length : at;
    parts.forEach((part, i) =>
      new DataView(bytes.buffer).setUint16(start + 2 * i, parseInt(part, 16))
    );
  };
  write(groups[0]!, 4);
  write(groups[1] ?? "", -1);
  return bytes;
}

Deno.test("tagged and short frames go nowhere", () => {
  const { a, b } = world();
  const tagged = datagram(a);
  new DataView(tagged.buffer).setUint16(12, 0x8100);
  assert(!reaches(a, b, tagged));
  a.send(new Uint8Array(13));
  a.send(datagram(a).subarray(0, 30));
  const { drops } = a.port.stats;
  assertEquals([drops.tagged, drops.malformed], [1, 2]);
});

Deno.test("a silent guest's address is free after a while, a lease's is not", () => {
  const { net, a, b, pass } = world();
  assert(reaches(a, b, datagram(a)));
  b.ip = a.ip;
  assert(!reaches(b, a, datagram(b)));
  pass(301);
  assert(reaches(b, a, datagram(b)));
  assert(!reaches(a, b, datagram(a)));
  assertEquals(net.guests.map(({ addresses }) => addresses), [[], ["192.168.122.10"]]);
});

Deno.test("without claims only leases count", () => {
  const { a, b } = world({
    claims: false,
    leases: [{ mac: "52:54:00:00:00:01", address: "192.168.122.10" }],
  });
  assert(reaches(a, b, datagram(a)));
  assert(!reaches(b, a, datagram(b)));
});

Deno.test("a port has room for some stations, and may be for one alone", () => {
  const { net, a } = world({}, [{ maxStations: 2 }, { mac: "52:54:00:00:00:02" }]);
  const at = (mac: string) => new TestGuest(a.port, mac, net.mac, "192.168.122.40");
  a.send(a.arp(1, a.ip, GATEWAY));
  for (let i = 0; i < 9; i++) {
    const guest = at(`02:00:00:00:00:0${i}`);
    guest.send(guest.arp(1, "0.0.0.0", GATEWAY));
  }
  assertEquals(net.guests.length, 2);
  assertEquals(a.port.stats.drops.spoofed, 8);
  assertThrows(() => net.port({ mac: "52:54:00:00:00:02" }), RangeError);
  assertThrows(() => net.port({ mac: net.mac }), RangeError);
  // Who is silent makes room; its MAC address is free for another port at once when its own is gone.
  a.port.close();
  assertEquals(net.guests.length, 0);
});

Deno.test("a MAC address that belongs to a port is nobody else's, and one that does not is not taken by it", () => {
  const { net, a, b, pass } = world({}, [{}, { mac: "52:54:00:00:00:02" }]);
  let gone = 0;
  net.onEvent = ({ type }) => void (gone += type === "gone" ? 1 : 0);
  a.send(a.arp(1, a.ip, GATEWAY));
  b.send(b.arp(1, b.ip, GATEWAY));
  const [first] = net.guests;
  // The one with a port of its own speaks as the other: nothing changes for that one.
  const liar = new TestGuest(b.port, "52:54:00:00:00:01", net.mac, a.ip);
  liar.send(liar.arp(1, a.ip, GATEWAY));
  assertEquals([net.guests[0], gone], [first, 0]);
  // And the other way, even after a long silence.
  pass(1000);
  const other = new TestGuest(a.port, "52:54:00:00:00:02", net.mac, b.ip);
  other.send(other.arp(1, b.ip, GATEWAY));
  assertEquals(net.guests.map(({ mac, port }) => `${mac} ${port}`), [
    "52:54:00:00:00:01 guest0",
    "52:54:00:00:00:02 guest1",
  ]);
});

Deno.test("isolated ports reach the gateway only", () => {
  const { a, b } = world({}, [{ isolated: true }, { isolated: true }]);
  assert(!reaches(a, b, datagram(a)));
  a.send(a.arp(1, a.ip, GATEWAY));
  assertEquals(a.frames.length, 1);
  assertEquals(b.frames.length, 0);
});

Deno.test("ports can be unplugged and plugged in; captures see both ways", () => {
  const { a, b } = world();
  const seen: string[] = [];
  a.port.tap = (frame, direction) => seen.push(`${direction} ${frame.length}`);
  a.send(a.arp(1, a.ip, GATEWAY));
  assertEquals(seen, ["sent 42", "received 42"]);
  let changes = 0;
  a.port.onLinkChange = () => changes++;
  a.port.up = false;
  a.send(a.arp(1, a.ip, GATEWAY));
  assertEquals([a.port.linkUp, changes, a.port.stats.drops.down], [false, 1, 1]);
  a.port.up = true;
  assert(reaches(a, b, datagram(a)));
  a.port.close();
  a.port.deliver(new Frame().fromBytes(datagram(a)));
  assertEquals([a.port.closed, a.port.linkUp, a.port.stats.drops.down], [true, false, 2]);
});

Deno.test("what guests say to all, and multicast DNS, passes between them", () => {
  const { a, b } = world();
  const to = (frame: Uint8Array) => {
    b.frames.length = 0;
    a.send(frame);
    return b.frames.splice(0).length;
  };
  const mdns = a.udp(5353, 5353, "224.0.0.251", new Uint8Array(12));
  assertEquals(to(a.ipv4(17, "224.0.0.251", mdns, { to: "01:00:5e:00:00:fb", ttl: 255 })), 1);
  const six = a.udp(5353, 5353, "ff02::fb", new Uint8Array(12));
  assertEquals(to(a.ipv6(17, "ff02::fb", six, 255)), 1);
  const all = a.udp(9, 9, "192.168.122.255", new Uint8Array(12));
  assertEquals(to(a.ipv4(17, "192.168.122.255", all, { to: "ff:ff:ff:ff:ff:ff" })), 1);
});

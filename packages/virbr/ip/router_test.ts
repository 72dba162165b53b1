import { assert, assertEquals, assertThrows } from "@std/assert";
import { Frame } from "@virtio/net";
import { Virbr } from "../virbr.ts";
import { formatAddress } from "./address.ts";
import { macBytes, readPacket, TestGuest } from "./guest_testing.ts";
import { TestUplink } from "./router_testing.ts";

const HOST_MAC = "02:00:00:00:00:fe";

function world() {
  const host = new TestUplink();
  const net = new Virbr({
    mode: "routed",
    uplink: { backend: host, address: "10.9.0.2/30", router: "10.9.0.1" },
    clock: () => 0,
  });
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac, "192.168.122.9");
  // A station whose frames the host sends: it makes bytes.
  const maker = new TestGuest(
    new Virbr({ clock: () => 0 }).port(),
    HOST_MAC,
    net.mac,
    "10.9.0.1",
  );
  return { net, host, guest, maker };
}

Deno.test("packets of guests leave with their own addresses, and answers find them", () => {
  const { net, host, guest, maker } = world();
  // It has asked for its router already.
  const [question] = host.frames.splice(0);
  assertEquals([...question!.bytes.subarray(38, 42)], [10, 9, 0, 1]);
  const datagram = guest.udp(1000, 2000, "198.51.100.1", new Uint8Array(100));
  guest.send(guest.ipv4(17, "198.51.100.1", datagram));
  assertEquals([host.frames.length, net.stats.router!.unresolved], [1, 1], "it asks once more");
  const answer = maker.arp(2, "10.9.0.1", "10.9.0.2");
  answer.set(maker.gateway);
  host.frames.length = 0;
  host.send(answer);
  guest.send(guest.ipv4(17, "198.51.100.1", datagram));
  const [out] = host.frames.splice(0);
  assertEquals(out!.bytes.subarray(0, 6), macBytes(HOST_MAC));
  const packet = readPacket(out!.bytes)!;
  assertEquals(
    [formatAddress(packet.source), formatAddress(packet.destination), packet.hopLimit],
    ["192.168.122.9", "198.51.100.1", 63],
  );
  assertEquals(packet.payload, datagram);

  maker.ip = "198.51.100.1";
  host.send(
    maker.ipv4(17, "192.168.122.9", maker.udp(2000, 1000, "192.168.122.9", new Uint8Array(9))),
  );
  const [back] = guest.packets();
  assertEquals([formatAddress(back!.source), back!.hopLimit, back!.payload.length], [
    "198.51.100.1",
    63,
    17,
  ]);
  assertEquals({ ...net.stats.router }, { out: 1, in: 1, unresolved: 1, refused: 0, tooLong: 0 });
});

Deno.test("unsegmented frames and fragments pass as they are", () => {
  const { host, guest, maker } = world();
  const answer = maker.arp(2, "10.9.0.1", "10.9.0.2");
  answer.set(maker.gateway);
  host.send(answer);
  host.frames.length = 0;
  const segment = new Uint8Array(20 + 30_000);
  segment[12] = 5 << 4;
  const frame = new Frame().fromBytes(guest.ipv4(6, "198.51.100.1", segment));
  Object.assign(frame, { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 1, gsoSize: 1448 });
  guest.port.deliver(frame);
  assertEquals(host.frames.map(({ bytes, gsoSize }) => [bytes.length, gsoSize]), [[30_054, 1448]]);
  guest.send(guest.ipv4(17, "198.51.100.1", new Uint8Array(8), { flags: 0x2001 }));
  assertEquals(host.frames.length, 2);
});

Deno.test("what nobody may say does not pass, in either direction", () => {
  const { net, host, guest, maker } = world();
  const answer = maker.arp(2, "10.9.0.1", "10.9.0.2");
  answer.set(maker.gateway);
  host.send(answer);
  host.frames.length = 0;
  for (const to of ["127.0.0.1", "224.0.0.9", "192.168.122.77"]) {
    guest.send(guest.ipv4(17, to, guest.udp(1, 2, to, new Uint8Array(1))));
  }
  const far = guest.udp(1, 2, "198.51.100.1", new Uint8Array(1));
  guest.packets();
  guest.send(guest.ipv4(17, "198.51.100.1", far, { ttl: 1 }));
  assertEquals(guest.packets().map(({ payload }) => payload[0]), [11]);
  assertEquals(host.frames, []);
  for (
    const [from, to, ttl] of [
      ["192.168.122.9", "192.168.122.9", 64],
      ["198.51.100.1", "192.168.123.9", 64],
      ["198.51.100.1", "192.168.122.9", 1],
    ] as const
  ) {
    maker.ip = from;
    host.send(maker.ipv4(17, to, maker.udp(1, 2, to, new Uint8Array(1)), { ttl }));
  }
  const bad = maker.ipv4(17, "192.168.122.9", new Uint8Array(8));
  bad[24]! ^= 1;
  host.send(bad);
  host.send(bad.subarray(0, 30));
  assertEquals(guest.packets(), []);
  assertEquals(net.stats.router!.refused, 5);
});

Deno.test("the uplink's options are checked", () => {
  const backend = new TestUplink();
  assertThrows(() => new Virbr({ mode: "routed" }), TypeError, "uplink");
  assertThrows(
    () => new Virbr({ uplink: { backend, address: "10.9.0.2/30" } }),
    TypeError,
    "routed",
  );
  const routed = (address: string, router: string) =>
    new Virbr({ mode: "routed", uplink: { backend, address, router } });
  assertThrows(() => routed("192.168.122.2/24", "192.168.122.3"), RangeError, "guests");
  assertThrows(() => routed("10.9.0.2/30", "10.8.0.1"), RangeError, "router");
  assert(routed("10.9.0.2/30", "10.9.0.1").stats.router !== null);
});

import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { Frame } from "@virtio/net";
import { ipv4HeaderChecksum } from "@virtio/net/wire";
import { Virbr } from "../virbr.ts";
import type { VirbrOptions } from "../options.ts";
import { formatAddress, parseAddress } from "./address.ts";
import { ALL_OFFLOADS, assertSum, readPacket, TestGuest } from "./guest_testing.ts";
import { type Guest, IpProtocol } from "./packet.ts";

const MAC = "52:54:00:00:00:01";
const GATEWAY = "192.168.122.1";

function world(options: VirbrOptions = {}, ip = "192.168.122.9", offloads = 0) {
  let now = 0;
  const net = new Virbr({ clock: () => now, ...options });
  const guest = new TestGuest(net.port({ name: "guest" }), MAC, net.mac, ip, offloads);
  return { net, guest, pass: (ms: number) => now += ms };
}

/** The identifier and the number of an echo, and what is echoed. */
function echoBody(size: number): Uint8Array {
  return Uint8Array.from({ length: 4 + size }, (_, i) => i * 7);
}

Deno.test("the gateway answers who asks for its address, nobody else", () => {
  const { guest } = world();
  guest.send(guest.arp(1, "192.168.122.9", "192.168.122.10"));
  assertEquals(guest.frames.length, 0);
  guest.send(guest.arp(1, "192.168.122.9", GATEWAY));
  const [answer] = guest.frames;
  const { bytes } = answer!;
  assertEquals(bytes.subarray(0, 6), guest.mac);
  assertEquals(bytes.subarray(6, 12), guest.gateway);
  assertEquals(bytes.subarray(22, 28), guest.gateway);
  assertEquals([...bytes.subarray(28, 32)], [192, 168, 122, 1]);
  assertEquals(bytes.subarray(32, 38), guest.mac);
});

Deno.test("echo requests of any size come back as they were, in fragments where they must", () => {
  const { guest } = world();
  fc.assert(
    fc.property(fc.nat(20_000), fc.nat(65_535), (size, id) => {
      const message = guest.icmp(8, 0, echoBody(size));
      // In fragments of a size that is the guest's choice.
      const step = 1480;
      const pieces: [number, Uint8Array][] = [];
      for (let at = 0; at < message.length; at += step) {
        pieces.push([at, message.subarray(at, at + step)]);
      }
      for (const [at, piece] of pieces) {
        const more = at + step < message.length ? 0x2000 : 0;
        guest.send(guest.ipv4(1, GATEWAY, piece, { id, flags: more | at / 8 }));
      }
      const answers = guest.packets();
      const whole = new Uint8Array(message.length);
      for (const answer of answers) {
        assert(answer.bytes.length <= 1514);
        const at = (new DataView(answer.bytes.buffer).getUint16(20) & 0x1fff) * 8;
        whole.set(answer.payload, at);
      }
      assertEquals(whole[0], 0);
      assertEquals(whole.subarray(4), message.subarray(4));
      assertSum({ ...answers[0]!, payload: whole });
    }),
    { numRuns: 60 },
  );
});

Deno.test("fragments are put together in any order; those that overlap throw the packet away", () => {
  const { net, guest } = world();
  const message = guest.icmp(8, 0, echoBody(792));
  const cut = (from: number, to: number, id: number) =>
    guest.ipv4(1, GATEWAY, message.subarray(from, to), {
      id,
      flags: (to < message.length ? 0x2000 : 0) | from / 8,
    });
  fc.assert(fc.property(
    fc.shuffledSubarray([0, 1, 2, 3, 4], { minLength: 5 }),
    fc.boolean(),
    fc.nat(65_535),
    (order, twice, id) => {
      for (const i of order) {
        const end = Math.min(message.length, (i + 1) * 160);
        for (let n = 0; n < (twice && i < 4 ? 2 : 1); n++) {
          if (n === 0 || i !== order[4]) guest.send(cut(i * 160, end, id));
        }
      }
      assertEquals(guest.packets().length, 1);
    },
  ));
  const before = net.stats.gateway.fragments;
  guest.send(cut(0, 160, 7));
  guest.send(cut(152, 320, 7));
  assertEquals(net.stats.gateway.fragments, before + 1);
  // Nothing is left of it.
  guest.send(cut(320, 800, 7));
  assertEquals(guest.packets(), []);
});

Deno.test("fragments wait for half a minute, and a guest has room for a few packets only", () => {
  const { guest, pass } = world();
  const message = guest.icmp(8, 0, echoBody(792));
  const half = (second: boolean, id: number) =>
    guest.ipv4(1, GATEWAY, second ? message.subarray(400) : message.subarray(0, 400), {
      id,
      flags: second ? 50 : 0x2000,
    });
  guest.send(half(false, 1));
  pass(29_000);
  guest.send(half(true, 1));
  assertEquals(guest.packets().length, 1);
  guest.send(half(false, 2));
  pass(31_000);
  guest.send(half(true, 2));
  assertEquals(guest.packets(), []);
  pass(31_000);
  for (let id = 10; id < 20; id++) guest.send(half(false, id));
  for (let id = 10; id < 20; id++) guest.send(half(true, id));
  assertEquals(guest.packets().length <= 4, true);
});

Deno.test("wrong sums and lengths go nowhere", () => {
  const { net, guest } = world();
  const good = guest.ipv4(1, GATEWAY, guest.icmp(8, 0, echoBody(20)));
  guest.send(good);
  assertEquals(guest.packets().length, 1);
  for (const at of [16, 18, 24, 36, 40]) {
    const bad = good.slice();
    bad[at]! ^= 0x11;
    guest.send(bad);
  }
  // Longer than the frame, with a right sum, and no sum of what would be behind its end.
  const datagram = guest.udp(1000, 99, GATEWAY, new Uint8Array(10));
  datagram.fill(0, 6, 8);
  const long = guest.ipv4(17, GATEWAY, datagram);
  const view = new DataView(long.buffer);
  view.setUint16(16, 60);
  view.setUint16(24, ipv4HeaderChecksum(view, 14, 20));
  guest.send(long);
  assertEquals(guest.packets(), []);
  const { malformed, checksum } = net.stats.gateway;
  assertEquals(malformed + checksum, 6);
});

Deno.test("what cannot be reached is said, with the start of what was sent, and not too often", () => {
  const { net, guest, pass } = world();
  const datagram = guest.udp(1000, 99, GATEWAY, new Uint8Array(50));
  guest.send(guest.ipv4(17, GATEWAY, datagram));
  const [error] = guest.packets();
  assertSum(error!);
  assertEquals([error!.payload[0], error!.payload[1]], [3, 3]);
  assertEquals(error!.payload.subarray(28), datagram);
  guest.send(guest.ipv4(6, "203.0.113.1", new Uint8Array(20), { ttl: 1 }));
  assertEquals(guest.packets(), [], "its sum is wrong");
  const far = guest.udp(1000, 99, "203.0.113.1", new Uint8Array(50));
  guest.send(guest.ipv4(17, "203.0.113.1", far, { ttl: 1 }));
  assertEquals(guest.packets().map(({ payload }) => payload[0]), [11]);
  guest.send(
    guest.ipv4(17, "192.168.122.77", guest.udp(1, 2, "192.168.122.77", new Uint8Array(1))),
  );
  assertEquals(guest.packets().map(({ payload }) => [payload[0], payload[1]]), [[3, 1]]);
  // Never about an error, nor about what went to all.
  guest.send(guest.ipv4(1, "203.0.113.1", guest.icmp(3, 3, new Uint8Array(28)), { ttl: 1 }));
  guest.send(
    guest.ipv4(17, "192.168.122.255", guest.udp(1, 2, "192.168.122.255", new Uint8Array(1))),
  );
  assertEquals(guest.packets(), []);
  for (let i = 0; i < 1000; i++) guest.send(guest.ipv4(17, GATEWAY, datagram));
  const burst = guest.packets().length;
  assert(burst > 5 && burst <= 20, `${burst}`);
  pass(1000);
  guest.send(guest.ipv4(17, GATEWAY, datagram));
  assertEquals(guest.packets().length, 1);
  assert(net.stats.gateway.errors > 5);
});

Deno.test("isolated guests reach the gateway, and are told that there is no more", () => {
  const { net, guest } = world({ mode: "isolated" });
  net.ip.transport(IpProtocol.udp, { receive: () => assert(false, "nothing leaves") });
  guest.send(guest.ipv4(1, GATEWAY, guest.icmp(8, 0, echoBody(20))));
  assertEquals(guest.packets().map(({ payload }) => payload[0]), [0]);
  guest.send(guest.ipv4(17, "203.0.113.1", guest.udp(1, 2, "203.0.113.1", new Uint8Array(1))));
  assertEquals(guest.packets().map(({ payload }) => [payload[0], payload[1]]), [[3, 13]]);
});

Deno.test("a transport gets whole, right packets, and sends large segments in one frame", () => {
  const { net, guest } = world({}, "192.168.122.9", ALL_OFFLOADS);
  const seen: string[] = [];
  let gone: Guest | null = null;
  net.ip.transport(IpProtocol.tcp, {
    receive(packet) {
      seen.push(
        `${formatAddress(packet.source)} ${formatAddress(packet.destination)} ${packet.length}`,
      );
      const { output } = net.ip;
      const path = output.path(packet.guest, packet.destination, packet.source, IpProtocol.tcp);
      assert(output.begin(path));
      output.view.setUint16(output.start, 80);
      output.view.setUint8(output.start + 12, 5 << 4);
      output.buffer.fill(7, output.start + 20, output.start + 20 + 30_000);
      output.finish(20 + 30_000, 16, 1460);
    },
    guestGone: (guest) => gone = guest,
  });
  const segment = new Uint8Array(40);
  segment[12] = 5 << 4;
  const frame = guest.ipv4(6, "203.0.113.1", segment);
  // Left to be completed, as drivers do.
  guest.port.deliver(Object.assign(
    new Frame().fromBytes(frame),
    { flags: 1, csumStart: 34, csumOffset: 16 },
  ));
  assertEquals(seen, ["192.168.122.9 203.0.113.1 40"]);
  const [answer] = guest.packets();
  assertEquals(answer!.payload.length, 30_020);
  assertEquals(answer!.gsoSize, 1460);
  // The same to a guest that takes nothing unfinished: cut, with complete sums.
  const plain = new TestGuest(net.port(), "52:54:00:00:00:02", net.mac, "192.168.122.10");
  plain.port.deliver(Object.assign(
    new Frame().fromBytes(plain.ipv4(6, "203.0.113.1", segment)),
    { flags: 1, csumStart: 34, csumOffset: 16 },
  ));
  const pieces = plain.packets();
  assertEquals(pieces.length, Math.ceil(30_000 / 1460));
  for (const piece of pieces) assertSum(piece);
  assertEquals(gone, null);
  plain.port.close();
  assertEquals(gone!.mac, "52:54:00:00:00:02");
  assertEquals(net.ip.output.find(new Uint32Array([0, 0, 0xffff, 0xc0a8_7a0a])), null);
});

Deno.test("a datagram in fragments has its sum, whatever the guest takes", () => {
  const { net, guest } = world({}, "192.168.122.9", ALL_OFFLOADS);
  guest.send(guest.arp(1, guest.ip, GATEWAY));
  const { output } = net.ip;
  const to = parseAddress(guest.ip)!;
  const own = output.find(to);
  const path = output.path(own!, output.addresses[0]!, to, IpProtocol.udp);
  assert(output.begin(path));
  output.buffer.fill(9, output.start, output.start + 4008);
  output.view.setUint16(output.start + 4, 4008);
  output.finish(4008, 6, 0);
  const pieces = guest.packets();
  assertEquals(pieces.length, 3);
  const payload = new Uint8Array(pieces.flatMap((piece) => [...piece.payload]));
  assertEquals(payload.length, 4008);
  assertSum({ ...pieces[0]!, payload });
});

Deno.test("a guest that answers within the gateway's call is heard afterwards", async () => {
  const { net, guest } = world();
  let answers = 0;
  guest.port.connect({
    offloads: 0,
    deliver: (frame) => {
      const packet = readPacket(frame.bytes.slice());
      if (packet === null || packet.payload[0] !== 0 || ++answers > 600) return;
      guest.send(guest.ipv4(1, GATEWAY, guest.icmp(8, 0, echoBody(20))));
    },
  });
  guest.send(guest.ipv4(1, GATEWAY, guest.icmp(8, 0, echoBody(20))));
  assertEquals(answers, 1, "no recursion");
  await new Promise((resolve) => setTimeout(resolve, 50));
  assertEquals(answers, 601);
  await net.close();
});

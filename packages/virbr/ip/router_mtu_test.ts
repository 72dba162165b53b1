import { assert, assertEquals, assertThrows } from "@std/assert";
import { Frame } from "@virtio/net";
import { sumBytes } from "@virtio/net/wire";
import { Virbr } from "../virbr.ts";
import { formatAddress } from "./address.ts";
import { assertSum, macBytes, readPacket, TestGuest } from "./guest_testing.ts";
import { TestUplink } from "./router_testing.ts";

const HOST_MAC = "02:00:00:00:00:fe";
const FAR = "198.51.100.1";
const GUEST = "192.168.122.9";

/** A network whose guests and uplink take packets of other sizes; everybody knows everybody. */
function world(guestMtu: number, uplinkMtu: number) {
  let now = 0;
  const host = new TestUplink();
  const net = new Virbr({
    mode: "routed",
    mtu: guestMtu,
    uplink: { backend: host, address: "10.9.0.2/30", router: "10.9.0.1", mtu: uplinkMtu },
    clock: () => now,
  });
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac, GUEST);
  guest.send(guest.arp(1, GUEST, "192.168.122.1"));
  const maker = new TestGuest(new Virbr({ clock: () => 0 }).port(), HOST_MAC, net.mac, "10.9.0.1");
  const answer = maker.arp(2, "10.9.0.1", "10.9.0.2");
  answer.set(maker.gateway);
  host.send(answer);
  host.frames.length = 0;
  guest.frames.length = 0;
  maker.ip = FAR;
  return { net, host, guest, maker, pass: (ms: number) => now += ms };
}

/** Puts fragments together, whatever their order. */
function whole(frames: readonly { bytes: Uint8Array }[], mtu: number): Uint8Array {
  let end = 0;
  const bytes = new Uint8Array(65_536);
  for (const { bytes: one } of frames) {
    assert(one.length <= mtu + 14, `${one.length}`);
    const { payload } = readPacket(one)!;
    const field = new DataView(one.buffer).getUint16(20);
    const at = (field & 0x1fff) * 8;
    bytes.set(payload, at);
    if ((field & 0x2000) === 0) end = at + payload.length;
    else assertEquals(payload.length % 8, 0);
  }
  return bytes.slice(0, end);
}

Deno.test("a guest is told what the uplink takes if its packet must not be cut, else it is cut", () => {
  const { host, guest, net } = world(9000, 1500);
  const datagram = guest.udp(1, 2, FAR, new Uint8Array(5000).map((_, i) => i));
  guest.send(guest.ipv4(17, FAR, datagram, { flags: 0x4000 }));
  assertEquals(host.frames, []);
  const [error] = guest.packets();
  assertEquals([...error!.payload.subarray(0, 2)], [3, 4]);
  assertEquals(new DataView(error!.payload.buffer).getUint16(6), 1500);
  assertEquals(formatAddress(error!.source), "192.168.122.1");
  guest.send(guest.ipv4(17, FAR, datagram, { flags: 0 }));
  assertEquals(host.frames.length, 4);
  assertEquals(whole(host.frames.splice(0), 1500), datagram);
  // A fragment of the guest's own is cut where it stands in the whole.
  guest.send(guest.ipv4(17, FAR, datagram.subarray(0, 4000), { flags: 0x2000 }));
  guest.send(guest.ipv4(17, FAR, datagram.subarray(4000), { flags: 4000 / 8 }));
  assertEquals(whole(host.frames.splice(0), 1500), datagram);
  // What fits passes as it is.
  guest.send(guest.ipv4(17, FAR, datagram.subarray(0, 1480), { flags: 0x4000 }));
  assertEquals(host.frames.splice(0).map(({ bytes }) => bytes.length), [1514]);
  assertEquals([guest.packets(), net.stats.router!.tooLong], [[], 0]);
});

Deno.test("a sum that was left to whoever needs it is there when the packet is cut", () => {
  const { host, guest } = world(9000, 1500);
  const datagram = guest.udp(1, 2, FAR, new Uint8Array(5000).map((_, i) => i));
  const left = guest.ipv4(17, FAR, datagram);
  // The sum of the pseudo header only.
  const view = new DataView(left.buffer);
  let sum = 17 + datagram.length;
  for (let at = 26; at < 34; at += 2) sum += view.getUint16(at);
  view.setUint16(40, (sum & 0xffff) + (sum >>> 16));
  guest.port.deliver(
    Object.assign(new Frame().fromBytes(left), { flags: 1, csumStart: 34, csumOffset: 6 }),
  );
  const frames = host.frames.splice(0);
  assertEquals(frames.length, 4);
  assertSum({ ...readPacket(frames[0]!.bytes)!, payload: whole(frames, 1500) });
});

Deno.test("large segments pass as long as what they are cut into fits", () => {
  const { host, guest } = world(9000, 1500);
  const segment = new Uint8Array(20 + 30_000);
  segment[12] = 5 << 4;
  const send = (gsoSize: number): number => {
    const frame = new Frame().fromBytes(guest.ipv4(6, FAR, segment, { flags: 0x4000 }));
    const header = { flags: 1, csumStart: 34, csumOffset: 16, gsoType: 1, gsoSize };
    guest.port.deliver(Object.assign(frame, header));
    return host.frames.splice(0).length;
  };
  assertEquals([send(1460), send(1461), send(8960)], [1, 0, 0]);
  const errors = guest.packets();
  assertEquals(errors.map(({ payload }) => [payload[0], payload[1]]), [[3, 4], [3, 4]]);
});

Deno.test("the world is told what guests take, not too often, and never about an error", () => {
  const { host, guest, maker, net, pass: wait } = world(1500, 9000);
  const datagram = maker.udp(1, 2, GUEST, new Uint8Array(5000).map((_, i) => i));
  host.send(maker.ipv4(17, GUEST, datagram, { flags: 0x4000, id: 77 }));
  assertEquals([guest.frames.length, net.stats.router!.tooLong], [0, 1]);
  const { bytes } = host.frames.splice(0)[0]!;
  assertEquals(bytes.subarray(0, 6), macBytes(HOST_MAC));
  const error = readPacket(bytes)!;
  assertEquals([formatAddress(error.source), formatAddress(error.destination)], ["10.9.0.2", FAR]);
  assertEquals([...error.payload.subarray(0, 8)].filter((_, i) => i !== 2 && i !== 3), [
    ...[3, 4, 0, 0],
    ...[1500 >> 8, 1500 & 255],
  ]);
  assertEquals(sumBytes(new DataView(error.payload.buffer), 0, error.payload.length), 0xffff);
  const quote = maker.ipv4(17, GUEST, datagram, { flags: 0x4000, id: 77 });
  assertEquals(error.payload.subarray(8), quote.subarray(14, 14 + 28));
  // Cut for the guest if that is allowed.
  host.send(maker.ipv4(17, GUEST, datagram));
  assertEquals(whole(guest.frames.splice(0), 1500), datagram);
  // An error, and a later fragment.
  const large = maker.icmp(3, 4, new Uint8Array(4000));
  host.send(maker.ipv4(1, GUEST, large, { flags: 0x4000 }));
  host.send(maker.ipv4(17, GUEST, datagram, { flags: 0x4000 | 10 }));
  assertEquals(host.frames, []);
  for (let i = 0; i < 1000; i++) host.send(quote);
  assert(host.frames.length < 100, `${host.frames.length} errors`);
  wait(1000);
  host.frames.length = 0;
  host.send(quote);
  assertEquals(host.frames.length, 1);
});

Deno.test("the size of the uplink's packets is checked", () => {
  assertThrows(() => world(1500, 575), RangeError, "uplink");
  assertThrows(() => world(1500, 65_536), RangeError, "uplink");
});

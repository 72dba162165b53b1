import { assert, assertEquals, assertThrows } from "@std/assert";
import { IpProtocol } from "../ip/packet.ts";
import { ipv4, testGuest } from "../tcp/wire_testing.ts";
import type { FlowInfo } from "./flow.ts";
import { Limits } from "./limits.ts";
import { TestWorld } from "./nat_testing.ts";

const OUTSIDE = ipv4(198, 51, 100, 7);

const NOTHING_LEFT = [0, 0, 0, 0, 0, 0];

/** A station behind a port. */
function guest(number: number, port = "port") {
  return { ...testGuest(`52:54:00:00:00:${number.toString(16).padStart(2, "0")}`), port };
}

Deno.test("all stations of a port have so many flows together, those of another port their own", () => {
  const limits = new Limits({ maxFlows: 3 });
  const [a, b, c] = [guest(1), guest(2), guest(3, "other")];
  assertEquals([a, b, a, b, c].map((each) => limits.enter(each, 0)), [
    true,
    true,
    true,
    false,
    true,
  ]);
  assertEquals([a, b, c].map((each) => limits.flows(each)), [2, 1, 1]);
  limits.leave(a);
  assertEquals([limits.enter(b, 0), limits.enter(b, 0)], [true, false]);
  assertEquals([a, b].map((each) => limits.flows(each)), [1, 2]);
  assertThrows(() => new Limits({ maxFlows: 0 }), RangeError, "maxFlows");
});

Deno.test("another MAC address is no new allowance of new flows, and ports of the past are forgotten", () => {
  const limits = new Limits({ flowRate: 10, flowBurst: 20 });
  let entered = 0;
  for (let i = 0; i < 200; i++) {
    const one = guest(i);
    if (!limits.enter(one, 0)) continue;
    entered++;
    limits.leave(one);
  }
  assertEquals(entered, 20);
  assert(limits.enter(guest(1), 1000));
  const kept = guest(1, "kept");
  assert(limits.enter(kept, 1000));
  for (let i = 0; i < 1000; i++) {
    const one = guest(1, `port${i}`);
    assert(limits.enter(one, 1000 + i * 100));
    limits.leave(one);
  }
  assert(limits.ports < 100, `${limits.ports} ports are remembered`);
  assertEquals([limits.flows(kept), limits.flows(guest(1))], [1, 0]);
});

Deno.test("a guest that changes its MAC address has no more flows and sockets than one that does not", async () => {
  const world = new TestWorld({ maxFlows: 16 });
  for (let i = 0; i < 200; i++) {
    const packet = new Uint8Array(9);
    new DataView(packet.buffer).setUint32(0, (4000 + i) * 65_536 + 53);
    new DataView(packet.buffer).setUint16(4, 9);
    const address = ipv4(192, 168, 122, i + 2);
    world.send(OUTSIDE, packet, IpProtocol.udp, { guest: guest(i), source: address });
  }
  await world.pass(10);
  assertEquals([world.outside.sockets.length, world.nat.counters.limited], [16, 184]);
  await world.close();
});

Deno.test("echoes that nobody answers keep those of another port from nothing", async () => {
  const world = new TestWorld();
  let asked = 0;
  let end = (): void => {};
  const silence = new Promise<null>((resolve) => end = () => resolve(null));
  world.outside.echo = () => {
    asked++;
    return silence;
  };
  const request = new Uint8Array([8, 0, 0, 0, 0, 1, 0, 1]);
  for (let i = 0; i < 1000; i++) {
    world.send(OUTSIDE, request, IpProtocol.icmp, { guest: guest(i % 8) });
  }
  assertEquals(asked, 64);
  world.send(OUTSIDE, request, IpProtocol.icmp, { guest: guest(9, "other") });
  assertEquals(asked, 65);
  end();
  await world.pass(1);
  world.send(OUTSIDE, request, IpProtocol.icmp, { guest: guest(1) });
  assertEquals(asked, 66);
  await world.close();
});

Deno.test("a hook sees each new flow and may refuse it, and a guest has only so many", async () => {
  const seen: FlowInfo[] = [];
  const world = new TestWorld({
    maxFlows: 3,
    onFlow: (flow) => {
      seen.push(flow);
      return flow.port !== 25;
    },
  });
  const unwanted = world.connect(OUTSIDE, 25);
  await world.pass(10);
  assertEquals(unwanted.reason, "refused");
  const { guestPort: _, guest, ...rest } = seen[0]!;
  assertEquals(rest, {
    protocol: "tcp",
    direction: "out",
    guestAddress: "192.168.122.5",
    address: "198.51.100.7",
    port: 25,
  });
  assertEquals(guest, {
    mac: "52:54:00:00:00:05",
    name: "52:54:00:00:00:05",
    port: "port",
    addresses: [],
    flows: 1,
  });
  const ends = [80, 81, 82, 83].map((port) => world.connect(OUTSIDE, port));
  await world.pass(20);
  assertEquals(ends.map(({ isOpen }) => isOpen), [true, true, true, false]);
  assertEquals([world.nat.counters.unwanted, world.nat.counters.limited], [1, 1]);
  ends[0]!.connection.abort();
  await world.pass(10);
  world.datagram(4000, OUTSIDE, 53, [1]);
  world.datagram(4001, OUTSIDE, 53, [1]);
  await world.pass(10);
  assertEquals(world.outside.sockets.length, 1);
  assertEquals(await world.close(), NOTHING_LEFT);

  const rate = new TestWorld({ flowRate: 10, flowBurst: 2 });
  for (let i = 0; i < 5; i++) rate.connect(OUTSIDE, 80);
  await rate.pass(5);
  assertEquals(rate.outside.connected.length, 2);
  await rate.pass(1000);
  rate.connect(OUTSIDE, 80);
  await rate.pass(5);
  assertEquals(rate.outside.connected.length, 3);
  await rate.close();
});

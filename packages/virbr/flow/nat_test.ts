import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { ipv4 } from "../tcp/wire_testing.ts";
import { TestEnd } from "../tcp/wire_testing.ts";
import { TestStream, TestWorld } from "./nat_testing.ts";

const OUTSIDE = ipv4(198, 51, 100, 7);
const NOTHING_LEFT = [0, 0, 0, 0, 0, 0];

function bytesOf(length: number): Uint8Array {
  return new Uint8Array(length).map((_, i) => i * 7 + (i >> 8));
}

Deno.test("a connection stands for the guest when the outside's does, bytes go both ways, and both halves end apart", async () => {
  const world = new TestWorld();
  let open = (): void => {};
  world.outside.gate = new Promise<void>((resolve) => open = resolve);
  const end = world.connect(OUTSIDE, 80);
  await world.pass(500);
  assertEquals([end.isOpen, world.outside.connected], [false, ["198.51.100.7 80"]]);
  open();
  assert(await world.until(() => end.isOpen));
  const [stream] = world.outside.streams;
  const there = bytesOf(300_000);
  end.send(there, true);
  assert(await world.until(() => stream!.ended));
  assertEquals(new Uint8Array(stream!.got), there);
  await world.pass(1000);
  assertEquals([end.reason, stream!.closed], [null, false]);
  const back = bytesOf(200_000);
  stream!.say(back, true);
  assert(await world.until(() => end.reason !== null));
  assertEquals([end.reason, end.got.length], ["finished", back.length]);
  assertEquals(end.got, back);
  assert(await world.until(() => stream!.closed));
  assertEquals([world.nat.counters.tcp, world.nat.flows(world.guest)], [0, 0]);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("the outside ends first: the guest sees that, and can go on", async () => {
  const world = new TestWorld();
  const end = world.connect(OUTSIDE, 80);
  await world.until(() => end.isOpen);
  const [stream] = world.outside.streams;
  stream!.say(bytesOf(1000), true);
  assert(await world.until(() => end.ended));
  await world.pass(1000);
  end.send(bytesOf(100_000), true);
  assert(await world.until(() => stream!.ended));
  assertEquals(stream!.got.length, 100_000);
  assert(await world.until(() => stream!.closed));
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("why there is no connection is told as it is, and the network lives on", async () => {
  const world = new TestWorld();
  for (
    const [problem, icmp] of [
      ["refused", []],
      ["exhausted", []],
      ["failed", []],
      ["network", ["network"]],
      ["host", ["host"]],
    ] as const
  ) {
    world.outside.problem = problem;
    world.ip.refused.length = 0;
    const end = world.connect(OUTSIDE, 80);
    await world.pass(50);
    assertEquals(world.ip.refused, [...icmp]);
    assertEquals(end.reason, icmp.length === 0 ? "refused" : null);
    end.connection.abort();
    await world.pass(2000);
  }
  assertEquals([world.nat.counters.exhausted, world.nat.counters.failed], [1, 4]);
  assertEquals([world.nat.counters.tcp, world.nat.flows(world.guest)], [0, 0]);
  world.outside.problem = null;
  const end = world.connect(OUTSIDE, 80);
  assert(await world.until(() => end.isOpen));
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("a guest that gives up, or is gone, keeps no socket", async () => {
  const world = new TestWorld();
  world.outside.gate = new Promise(() => {});
  const silent = world.connect(OUTSIDE, 80);
  await world.pass(10);
  silent.connection.abort();
  world.vanish();
  await world.pass(10);
  assertEquals([world.outside.aborted, world.nat.flows(world.guest)], [1, 0]);
  world.outside.gate = null;
  const end = world.connect(OUTSIDE, 81);
  await world.until(() => end.isOpen);
  world.outside.streams[0]!.say(bytesOf(100_000));
  await world.pass(2);
  world.datagram(5000, OUTSIDE, 53, [1]);
  await world.pass(1);
  world.vanish();
  await world.pass(10);
  assert(world.outside.streams[0]!.closed && world.outside.sockets[0]!.closed);
  assertEquals([world.nat.flows(world.guest), world.nat.tcp.bufferBytes], [0, 0]);
  // An attempt that is never answered ends too.
  world.outside.gate = new Promise(() => {});
  world.connect(OUTSIDE, 80);
  await world.pass(10);
  await world.pass(61_000);
  assertEquals([world.outside.aborted, world.nat.flows(world.guest)], [2, 0]);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("a slow outside stops the guest, a slow guest stops the outside, and nothing is lost", async () => {
  const world = new TestWorld();
  const end = world.connect(OUTSIDE, 80);
  await world.until(() => end.isOpen);
  const [stream] = world.outside.streams;
  stream!.stuck = true;
  end.greed = 0;
  const there = bytesOf(1_000_000);
  const back = bytesOf(900_000);
  end.send(there, true);
  for (let at = 0; at < back.length; at += 50_000) stream!.say(back.subarray(at, at + 50_000));
  stream!.say(new Uint8Array(0), true);
  await world.pass(20_000);
  assertEquals(stream!.got.length, 0);
  assertEquals(end.connection.readableBytes, 65_536);
  assertEquals(world.nat.tcp.bufferBytes, 2 * 65_536);
  stream!.unstick();
  end.greed = Infinity;
  end.readable();
  assert(await world.until(() => stream!.ended && end.ended, 60_000));
  assertEquals(new Uint8Array(stream!.got), there);
  assertEquals(end.got, back);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("a guest that has said all and is content does not stay for an outside that takes nothing, once the network closes", async () => {
  const world = new TestWorld();
  const end = world.connect(OUTSIDE, 80);
  await world.until(() => end.isOpen);
  const [stream] = world.outside.streams;
  stream!.stuck = true;
  stream!.say(new Uint8Array(0), true);
  await world.pass(10);
  end.send(bytesOf(1000), true);
  assert(await world.until(() => end.reason === "finished"));
  await world.pass(1000);
  // What it said may still arrive.
  assertEquals([stream!.closed, world.nat.flows(world.guest)], [false, 1]);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("what breaks outside is reset for the guest, and a guest's reset closes the outside", async () => {
  const world = new TestWorld();
  const ends = [world.connect(OUTSIDE, 80), world.connect(OUTSIDE, 80)];
  await world.until(() => ends.every(({ isOpen }) => isOpen));
  const [first, second] = world.outside.streams;
  first!.fail();
  await world.pass(10);
  assertEquals([ends[0]!.reason, ends[1]!.reason], ["reset", null]);
  ends[1]!.connection.abort();
  await world.pass(10);
  assert(first!.closed && second!.closed);
  assertEquals(world.nat.flows(world.guest), 0);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("guests reach no loopback, no link, no network of the host's, unless it is allowed", async () => {
  const forbidden = [
    ipv4(127, 0, 0, 1),
    ipv4(127, 9, 9, 9),
    ipv4(169, 254, 169, 254),
    ipv4(0, 0, 0, 1),
    ipv4(203, 0, 113, 50),
    ipv4(192, 168, 122, 77),
    ipv4(224, 0, 0, 1),
    ipv4(255, 255, 255, 255),
    ipv4(192, 168, 122, 1),
  ];
  const world = new TestWorld();
  for (const address of forbidden) {
    const end = world.connect(address, 80);
    world.datagram(4000, address, 80, [1]);
    await world.pass(10);
    assertEquals(end.reason, "refused");
  }
  assertEquals([world.outside.connected, world.outside.sockets], [[], []]);
  assertEquals(world.nat.counters.prohibited, 2 * forbidden.length);
  assertEquals(await world.close(), NOTHING_LEFT);

  const allowed = new TestWorld({ allow: ["203.0.113.48/28"], hostLoopback: true });
  for (const address of [ipv4(203, 0, 113, 50), ipv4(203, 0, 113, 5), ipv4(192, 168, 122, 1)]) {
    allowed.connect(address, 80);
    await allowed.pass(10);
  }
  assertEquals(allowed.outside.connected, ["203.0.113.50 80", "127.0.0.1 80"]);
  assertEquals(await allowed.close(), NOTHING_LEFT);

  const isolated = new TestWorld({ mode: "isolated", hostLoopback: true });
  isolated.connect(OUTSIDE, 80);
  isolated.connect(ipv4(192, 168, 122, 1), 80);
  await isolated.pass(10);
  assertEquals(isolated.outside.connected, ["127.0.0.1 80"]);
  assertEquals(await isolated.close(), NOTHING_LEFT);

  assertThrows(() => new TestWorld({ deny: ["here"] }), TypeError, "network");
});

Deno.test("datagrams go out from one port by one socket, answers come back to whoever asked, and silence ends it", async () => {
  const world = new TestWorld({ hostLoopback: true });
  const other = ipv4(198, 51, 100, 8);
  world.datagram(4000, OUTSIDE, 53, [1, 2]);
  world.datagram(4000, other, 54, [3]);
  world.datagram(4000, world.gateway, 55, [4]);
  await world.pass(1);
  assertEquals(world.outside.sockets.length, 1);
  const [socket] = world.outside.sockets;
  assertEquals(socket!.sent, [
    { bytes: [1, 2], to: "198.51.100.7 53" },
    { bytes: [3], to: "198.51.100.8 54" },
    { bytes: [4], to: "127.0.0.1 55" },
  ]);
  const { receive } = socket!.options;
  receive(new Uint8Array([9]), { address: "198.51.100.8", port: 54 });
  receive(new Uint8Array([8]), { address: "198.51.100.7", port: 53 });
  receive(new Uint8Array([7, 7]), { address: "127.0.0.1", port: 55 });
  // Nobody asked these.
  receive(new Uint8Array([6]), { address: "198.51.100.7", port: 54 });
  receive(new Uint8Array([6]), { address: "198.51.100.9", port: 53 });
  assertEquals(world.datagrams, [
    { from: "198.51.100.8 54", to: 4000, bytes: [9] },
    { from: "198.51.100.7 53", to: 4000, bytes: [8] },
    { from: "192.168.122.1 55", to: 4000, bytes: [7, 7] },
  ]);
  assertEquals([world.nat.counters.udp, world.nat.counters.datagramsDropped], [1, 2]);
  // What the outside says of a datagram the guest hears too.
  socket!.options.problem!("refused", { address: "198.51.100.8", port: 54 });
  socket!.options.problem!("failed", { address: "198.51.100.8", port: 54 });
  socket!.options.problem!("refused", { address: "198.51.100.9", port: 54 });
  assertEquals(world.ip.refused, ["port"]);
  await world.pass(119_000);
  assertEquals(world.nat.counters.udp, 1);
  await world.pass(2_000);
  assertEquals([world.nat.counters.udp, socket!.closed], [0, true]);
  receive(new Uint8Array([9]), { address: "198.51.100.8", port: 54 });
  assertEquals(world.datagrams.length, 3);

  world.outside.problem = "exhausted";
  world.datagram(4001, OUTSIDE, 53, [1]);
  await world.pass(1);
  assertEquals([world.nat.counters.exhausted, world.nat.flows(world.guest)], [1, 0]);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("a port of the host's leads to a guest's: TCP", async () => {
  const world = new TestWorld();
  const forward = await world.nat.forward({ guest: "192.168.122.5", guestPort: 80, port: 8080 });
  assertEquals([forward.address, forward.port, forward.guest], [
    "127.0.0.1",
    8080,
    "192.168.122.5",
  ]);
  let end: TestEnd | null = null;
  world.tcp.incoming = (connection) =>
    end = new TestEnd((handler) => {
      connection.accept(handler);
      return connection;
    });
  const stream = new TestStream();
  world.outside.accept!(stream, { address: "127.0.0.1", port: 50_000 });
  stream.say(bytesOf(5000), true);
  assert(await world.until(() => end !== null && end.ended));
  assertEquals(end!.got, bytesOf(5000));
  end!.send(bytesOf(70_000), true);
  assert(await world.until(() => stream.ended && stream.closed));
  assertEquals(stream.got.length, 70_000);

  // The guest listens no more.
  world.tcp.incoming = null;
  const refused = new TestStream();
  world.outside.accept!(refused, { address: "127.0.0.1", port: 50_001 });
  assert(await world.until(() => refused.closed));
  forward.close();
  assertEquals(world.nat.forwards, []);
  // A guest that is not there.
  const nowhere = await world.nat.forward({ guest: () => null, guestPort: 80 });
  const lost = new TestStream();
  world.outside.accept!(lost, { address: "127.0.0.1", port: 50_002 });
  assert(await world.until(() => lost.closed, 10_000));
  assertEquals(nowhere.guest, null);
  await assertRejects(() => world.nat.forward({ guest: "here", guestPort: 80 }), TypeError);
  await assertRejects(
    () => world.nat.forward({ guest: "192.168.122.5", guestPort: 0 }),
    RangeError,
  );
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("a port of the host's leads to a guest's: UDP, for several who send", async () => {
  const world = new TestWorld();
  const forward = await world.nat.forward({
    protocol: "udp",
    guest: "192.168.122.5",
    guestPort: 53,
    port: 5353,
  });
  const [socket] = world.outside.sockets;
  const { receive } = socket!.options;
  receive(new Uint8Array([1]), { address: "127.0.0.1", port: 1000 });
  receive(new Uint8Array([2]), { address: "127.0.0.1", port: 1001 });
  receive(new Uint8Array([3]), { address: "127.0.0.1", port: 1000 });
  const ports = world.datagrams.map(({ from }) => Number(from.split(" ")[1]));
  assertEquals(world.datagrams.map(({ to, bytes }) => [to, ...bytes]), [
    [53, 1],
    [53, 2],
    [53, 3],
  ]);
  assertEquals([ports[0] === ports[2], ports[0] === ports[1]], [true, false]);
  world.datagram(53, world.gateway, ports[1]!, [22]);
  world.datagram(53, world.gateway, ports[0]!, [11]);
  world.datagram(54, world.gateway, ports[0]!, [99]);
  assertEquals(socket!.sent, [
    { bytes: [22], to: "127.0.0.1 1001" },
    { bytes: [11], to: "127.0.0.1 1000" },
  ]);
  assertEquals(world.nat.flows(world.guest), 2);
  await world.pass(121_000);
  assertEquals([world.nat.flows(world.guest), world.nat.counters.udp], [0, 0]);
  forward.close();
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("services listen at the gateway's address", async () => {
  const world = new TestWorld({ mode: "isolated" });
  world.nat.service(53, async (stream) => {
    const bytes = new Uint8Array(100);
    let total = 0;
    for (;;) {
      const count = await stream.read(bytes);
      if (count === null) break;
      for (let at = 0; at < count;) at += await stream.write(bytes.subarray(at, count));
      total += count;
    }
    assertEquals(total, 300_000);
    stream.close();
  });
  const end = world.connect(world.gateway, 53);
  end.send(bytesOf(300_000), true);
  assert(await world.until(() => end.ended, 20_000));
  assertEquals(end.got, bytesOf(300_000));
  const outside = world.connect(OUTSIDE, 53);
  await world.pass(10);
  assertEquals([outside.reason, world.nat.flows(world.guest)], ["refused", 0]);
  assertThrows(() => world.nat.service(0, null), RangeError);
  assertEquals(await world.close(), NOTHING_LEFT);
});

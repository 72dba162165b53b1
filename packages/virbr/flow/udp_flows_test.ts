import { assertEquals } from "@std/assert";
import type { OutsideSocket } from "../outside/outside.ts";
import { ipv4 } from "../tcp/wire_testing.ts";
import { TestWorld } from "./nat_testing.ts";

const NOTHING_LEFT = [0, 0, 0, 0, 0, 0];

Deno.test("a few datagrams wait until there is a socket, no more", async () => {
  const world = new TestWorld();
  const { outside } = world;
  const open = outside.datagrams.bind(outside);
  const gate = Promise.withResolvers<void>();
  outside.datagrams = async (options): Promise<OutsideSocket> => {
    await gate.promise;
    return await open(options);
  };
  for (let i = 0; i < 40; i++) world.datagram(5000, ipv4(198, 51, 100, 7), 53, [i]);
  await world.pass(10);
  assertEquals(outside.sockets.length, 0);
  gate.resolve();
  await world.pass(10);
  const [socket] = outside.sockets;
  assertEquals(socket!.sent.map(({ bytes }) => bytes[0]), Array.from({ length: 16 }, (_, i) => i));
  const { datagramsOut, datagramsDropped } = world.nat.counters;
  assertEquals([datagramsOut, datagramsDropped], [40, 24]);
  assertEquals(await world.close(), NOTHING_LEFT);
});

Deno.test("a flow remembers the last hosts that it spoke to: others do not answer any more", async () => {
  const world = new TestWorld();
  for (let i = 0; i < 100; i++) {
    world.datagram(5000, ipv4(198, 51, 100, i), 53, [i]);
    await world.pass(1);
  }
  const [socket] = world.outside.sockets;
  assertEquals([world.outside.sockets.length, socket!.sent.length], [1, 100]);
  for (let i = 0; i < 100; i++) {
    socket!.options.receive(new Uint8Array([i]), { address: `198.51.100.${i}`, port: 53 });
  }
  await world.pass(10);
  assertEquals(
    world.datagrams.map(({ bytes }) => bytes[0]),
    Array.from({ length: 64 }, (_, i) => 36 + i),
  );
  assertEquals(await world.close(), NOTHING_LEFT);
});

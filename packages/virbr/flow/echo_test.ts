import { assertEquals } from "@std/assert";
import { OutsideError } from "../outside/outside.ts";
import { ipv4 } from "../tcp/wire_testing.ts";
import { TestWorld } from "./nat_testing.ts";

const OUTSIDE = ipv4(198, 51, 100, 7);
const ICMP = 1;
const REQUEST = [8, 0, 0, 0, 1, 2, 3, 4, 9, 9];

Deno.test("echoes of the outside come back to who asked, and why there are none is told", async () => {
  const world = new TestWorld();
  const ask = async (message: readonly number[]): Promise<void> => {
    world.send(OUTSIDE, new Uint8Array(message), ICMP);
    await world.pass(5);
  };
  // This outside cannot be asked.
  await ask(REQUEST);
  assertEquals([world.echoes, world.ip.refused], [[], ["prohibited"]]);
  const asked: [string, number[]][] = [];
  world.outside.echo = (address, data) => {
    asked.push([address, [...data]]);
    return Promise.resolve(3);
  };
  await ask(REQUEST);
  assertEquals(asked, [["198.51.100.7", [9, 9]]]);
  assertEquals(world.echoes, [[0, ...REQUEST.slice(1)]]);
  // An error is never answered, nor is what is too short.
  await ask([3, 1, 0, 0, 0, 0, 0, 0, 69]);
  await ask([8, 0, 0]);
  world.outside.echo = () => Promise.resolve(null);
  await ask(REQUEST);
  assertEquals([world.echoes.length, world.ip.refused.length], [1, 1]);
  world.outside.echo = () => Promise.reject(new OutsideError("host", "no way"));
  await ask(REQUEST);
  assertEquals(world.ip.refused, ["prohibited", "host"]);
  assertEquals(world.nat.flows(world.guest), 0);
  assertEquals(await world.close(), [0, 0, 0, 0, 0, 0]);
});

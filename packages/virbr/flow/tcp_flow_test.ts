import { assert, assertEquals } from "@std/assert";
import { ipv4, type TestEnd } from "../tcp/wire_testing.ts";
import { type TestStream, TestWorld } from "./nat_testing.ts";

const OUTSIDE = ipv4(198, 51, 100, 7);
const NOTHING_LEFT = [0, 0, 0, 0, 0, 0];

function bytesOf(length: number): Uint8Array {
  return new Uint8Array(length).map((_, i) => i * 7 + (i >> 8));
}

/** A guest that reads nothing yet, and an outside that has said more than the guest can take. */
async function world(): Promise<
  { world: TestWorld; end: TestEnd; stream: TestStream; said: Uint8Array }
> {
  const world = new TestWorld();
  const end = world.connect(OUTSIDE, 80);
  await world.until(() => end.isOpen);
  end.greed = 0;
  const said = bytesOf(100_000);
  const stream = world.outside.streams[0]!;
  stream.say(said);
  await world.pass(2000);
  assertEquals(end.connection.readableBytes, 65_536);
  return { world, end, stream, said };
}

/** The guest reads all that there is. */
async function readAll(world: TestWorld, end: TestEnd): Promise<void> {
  end.greed = Infinity;
  end.readable();
  await world.until(() => end.reason !== null, 5000);
}

Deno.test("what the outside said before it broke reaches the guest, and then the reset does", async () => {
  const { world: here, end, stream, said } = await world();
  stream.fail();
  await here.pass(3000);
  assertEquals([end.reason, end.ended], [null, false]);
  assert(stream.closed, "the host has its socket back at once");
  // Nobody takes what the guest still says.
  end.send(bytesOf(200_000));
  await here.pass(1000);
  await readAll(here, end);
  assertEquals([end.reason, end.ended], ["reset", false]);
  assertEquals(end.got, said);
  assertEquals([stream.got.length, here.nat.flows(here.guest)], [0, 0]);
  assertEquals(await here.close(), NOTHING_LEFT);
});

Deno.test("what breaks in the midst of a write is told when the guest has what was said", async () => {
  const { world: here, end, stream, said } = await world();
  stream.stuck = true;
  end.send(bytesOf(300_000));
  await here.pass(1000);
  stream.fail();
  await here.pass(1000);
  assertEquals(end.reason, null);
  await readAll(here, end);
  assertEquals([end.reason, end.got.length], ["reset", said.length]);
  assertEquals(await here.close(), NOTHING_LEFT);
});

Deno.test("the end of an outside that was reset is no end, that of one that had ended is", async () => {
  for (const orderly of [false, true]) {
    const { world: here, end, stream, said } = await world();
    // The system tells the writer what happened, and the reader that nothing more comes.
    stream.refuse(orderly ? "EPIPE" : "ECONNRESET");
    end.send(bytesOf(10));
    await here.pass(100);
    stream.say(new Uint8Array(0), true);
    await here.pass(100);
    await readAll(here, end);
    assertEquals([end.reason, end.ended, end.got.length], ["reset", orderly, said.length]);
    assertEquals(await here.close(), NOTHING_LEFT);
  }
});

Deno.test("a guest that never reads what was said before the outside broke keeps its own share only", async () => {
  const { world: here, end, stream } = await world();
  stream.fail();
  await here.pass(100_000);
  assertEquals([end.reason, here.nat.flows(here.guest)], [null, 1]);
  here.vanish();
  await here.pass(10);
  assertEquals([here.nat.flows(here.guest), here.nat.tcp.bufferBytes], [0, 0]);
  assertEquals(await here.close(), NOTHING_LEFT);
});

Deno.test("an outside that takes a few bytes at a time gets all of them, each once", async () => {
  const world = new TestWorld();
  const end = world.connect(OUTSIDE, 80);
  await world.until(() => end.isOpen);
  const stream = world.outside.streams[0]!;
  const write = stream.write.bind(stream);
  stream.write = (bytes) => write(bytes.subarray(0, 700));
  const said = bytesOf(20_000);
  end.send(said, true);
  await world.until(() => stream.got.length >= said.length, 5000);
  assertEquals(new Uint8Array(stream.got), said);
  stream.say(new Uint8Array(0), true);
  await world.until(() => end.reason !== null, 5000);
  assertEquals(end.reason, "finished");
  assertEquals(await world.close(), NOTHING_LEFT);
});

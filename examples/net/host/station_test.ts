/** The example's own station against itself, over cables that lose, repeat and reorder frames. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Frame, pass } from "@virtio/net";
import type { Timing } from "@virtio/virbr/tcp";
import { randomBytes } from "../../shared/bytes.ts";
import { fetchHttp, serveHttp } from "./http.ts";
import { Station, type StationOptions } from "./station.ts";

/** What a cable does to the n-th frame: how often it arrives, and after how many others. */
type Fate = (frame: number) => { copies: number; late: number };

const FAITHFUL: Fate = () => ({ copies: 1, late: 0 });

interface Pair {
  readonly a: Station;
  readonly b: Station;
  /** Frames that went through the cable. */
  readonly frames: () => number;
}

/** Time that passes so many times as fast: TCP is patient. */
function faster(times: number): Timing {
  return {
    now: () => performance.now() * times,
    after: (milliseconds, run) => setTimeout(run, milliseconds / times),
    cancel: (handle) => clearTimeout(handle as number),
    defer: queueMicrotask,
  };
}

/** Two stations on one cable. */
function pair(fate: Fate = FAITHFUL, options: Partial<StationOptions> = {}): Pair {
  let count = 0;
  const waiting: { frame: Frame; to: () => Station; after: number }[] = [];
  let running = false;
  const run = (): void => {
    // One turn of the event loop for what is on the cable now, so that nothing recurses.
    running = false;
    const now = waiting.splice(0).sort((x, y) => x.after - y.after);
    for (const { frame, to } of now) {
      const station = to();
      pass(frame, { offloads: station.offloads, deliver: (done) => station.receive(done) });
    }
  };
  const cable = (to: () => Station) => (frame: Frame): void => {
    const { copies, late } = fate(count++);
    for (let i = 0; i < copies; i++) {
      waiting.push({ frame: new Frame().fromFrame(frame), to, after: count + late });
    }
    if (running || waiting.length === 0) return;
    running = true;
    setTimeout(run, 0);
  };
  const make = (last: number, to: () => Station): Station =>
    new Station({
      mac: new Uint8Array([2, 0, 0, 0, 0, last]),
      ip: `10.0.0.${last}`,
      send: cable(to),
      patience: 20,
      timing: faster(10),
      ...options,
    });
  const a: Station = make(1, () => b);
  const b: Station = make(2, () => a);
  return { a, b, frames: () => count };
}

/** A number that depends on `i` in no simple way. */
function scramble(i: number): number {
  let x = Math.imul(i + 1, 0x9e37_79b1);
  x ^= x >>> 15;
  x = Math.imul(x, 0x85eb_ca77);
  return (x ^ x >>> 13) >>> 0;
}

Deno.test("stations find and ping each other", async () => {
  const { a, b } = pair();
  const time = await a.ping("10.0.0.2", 1400);
  assert(time !== null && time < 1000);
  assertEquals([a.pingsAnswered, b.pingsAnswered, a.damaged, b.damaged], [0, 1, 0, 0]);
  await assertRejects(() => a.ping("10.0.0.9"), Error, "Nobody on the network");
});

const cables: [string, Fate][] = [
  ["a faithful cable", FAITHFUL],
  [
    "a cable that loses one frame of ten",
    (i) => ({ copies: scramble(i) % 10 === 0 ? 0 : 1, late: 0 }),
  ],
  ["a cable that repeats frames", (i) => ({ copies: 1 + scramble(i) % 3, late: 0 })],
  ["a cable that reorders frames", (i) => ({ copies: 1, late: scramble(i) % 4 })],
  [
    "a cable that does all of it",
    (i) => ({ copies: [0, 1, 1, 1, 1, 1, 1, 2][scramble(i) % 8]!, late: scramble(i + 7) % 3 }),
  ],
];

for (const [name, fate] of cables) {
  for (const offload of [false, true]) {
    Deno.test(`a file crosses ${name}${offload ? ", unsegmented" : ""}`, async () => {
      const { a, b } = pair(fate, { offload });
      const file = randomBytes(300_001);
      serveHttp(b, new Map([["/file", file]]));
      assertEquals(await fetchHttp(a, "10.0.0.2", "/file"), file);
      // A second one, on a new connection beside what is left of the first.
      assertEquals(await fetchHttp(a, "10.0.0.2", "/file"), file);
      assertEquals([a.damaged, b.damaged], [0, 0]);
      a.close();
      b.close();
    });
  }
}

Deno.test("a file whose frames are damaged on the way arrives whole all the same", async () => {
  let damage = 0;
  const { a, b } = pair();
  const file = randomBytes(200_000);
  serveHttp(b, new Map([["/file", file]]));
  const receive = a.receive.bind(a);
  a.receive = (frame) => {
    if (frame.length > 1000 && damage++ % 7 === 3) frame.buffer[500]! ^= 1;
    receive(frame);
  };
  assertEquals(await fetchHttp(a, "10.0.0.2", "/file"), file);
  assert(a.damaged > 0);
});

Deno.test("frames are as long as the MTU allows, and no longer", async () => {
  for (const mtu of [576, 1500, 9000]) {
    let longest = 0;
    const { a, b } = pair(FAITHFUL, { mtu });
    const receive = a.receive.bind(a);
    a.receive = (frame) => {
      longest = Math.max(longest, frame.length);
      receive(frame);
    };
    serveHttp(b, new Map([["/file", randomBytes(100_000)]]));
    await fetchHttp(a, "10.0.0.2", "/file");
    assertEquals(longest, mtu + 14);
  }
});

Deno.test("both sides may send at once, and each ends when it wants", async () => {
  const { a, b } = pair((i) => ({ copies: scramble(i) % 12 === 0 ? 0 : 1, late: 0 }));
  const up = randomBytes(150_000);
  const down = randomBytes(50_000);
  const got: number[][] = [[], []];
  const served = Promise.withResolvers<void>();
  b.listen(7, (connection) => {
    connection.onData = (data) => got[1]!.push(...data);
    connection.onEnd = () => connection.closed.then(served.resolve, served.reject);
    connection.write(down);
    connection.end();
  });
  const connection = await a.connect("10.0.0.2", 7);
  connection.onData = (data) => got[0]!.push(...data);
  connection.write(up.subarray(0, 70_000));
  await new Promise((resolve) => setTimeout(resolve, 30));
  connection.write(up.subarray(70_000));
  connection.end();
  await connection.closed;
  await served.promise;
  assertEquals([got[0]!.length, got[1]!.length], [down.length, up.length]);
  assertEquals([new Uint8Array(got[0]!), new Uint8Array(got[1]!)], [down, up]);
});

Deno.test("a port at which nobody listens, and a peer that vanishes", async () => {
  const { a } = pair();
  await assertRejects(() => a.connect("10.0.0.2", 81), Error, "refused");
  let gone = false;
  const silent = pair(() => ({ copies: gone ? 0 : 1, late: 0 }), { timing: faster(1000) });
  silent.b.listen(7, () => {});
  const connection = await silent.a.connect("10.0.0.2", 7);
  connection.write(new Uint8Array(1000));
  gone = true;
  silent.b.close();
  const again = connection.closed;
  connection.write(new Uint8Array(1000));
  connection.end();
  await assertRejects(() => again, Error, "not answered");
});

Deno.test("whoever missed that a connection ended is told again, and not that there was none", async () => {
  let resets = 0;
  let lost = 0;
  const { a, b } = pair();
  // The last acknowledgement does not arrive.
  const receive = a.receive.bind(a);
  const ends = new Map<Station, boolean>();
  const watch = (station: Station, take: (frame: Frame) => void) => (frame: Frame): void => {
    const flags = frame.buffer[47]!;
    if (frame.buffer[23] === 6 && (flags & 4) !== 0) resets++;
    if (frame.buffer[23] === 6 && (flags & 1) !== 0) ends.set(station, true);
    else if (ends.size === 2 && lost === 0 && station === a) {
      lost++;
      return;
    }
    take(frame);
  };
  a.receive = watch(a, receive);
  b.receive = watch(b, b.receive.bind(b));
  serveHttp(b, new Map([["/file", randomBytes(1000)]]));
  await fetchHttp(a, "10.0.0.2", "/file");
  await new Promise((resolve) => setTimeout(resolve, 200));
  assertEquals([lost, resets], [1, 0]);
  assertEquals((await fetchHttp(a, "10.0.0.2", "/file")).length, 1000);
});

Deno.test("a missing file is a 404, and no request at all a 400", async () => {
  const { a, b } = pair();
  serveHttp(b, new Map());
  await assertRejects(() => fetchHttp(a, "10.0.0.2", "/none"), Error, "404");
  const connection = await a.connect("10.0.0.2", 80);
  let text = "";
  connection.onData = (data) => text += new TextDecoder().decode(data);
  connection.onEnd = () => connection.end();
  connection.write(new TextEncoder().encode("HELLO\r\n\r\n"));
  await connection.closed;
  assert(text.startsWith("HTTP/1.0 400"));
});

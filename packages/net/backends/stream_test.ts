/** Streams over real sockets: both ends, and peers that do not behave. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { Frame } from "../frame.ts";
import { StreamBackend, type StreamCounters, StreamError, StreamServer } from "./stream.ts";
import { Switch } from "./switch.ts";
import { BROADCAST, collect, envelope, letter } from "./switch_testing.ts";

/** Waits until something holds. */
async function until(holds: () => boolean, what = ""): Promise<void> {
  const end = performance.now() + 10_000;
  while (!holds()) {
    if (performance.now() > end) throw new Error(`It never came to pass: ${what || holds}`);
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
}

/** Collects what comes from a back end. */
function received(backend: StreamBackend): Uint8Array[] {
  const got: Uint8Array[] = [];
  backend.connect({ offloads: 0, deliver: (frame) => void got.push(frame.bytes.slice()) });
  return got;
}

const some = (counters: StreamCounters): number[] => [
  counters.framesIn,
  counters.bytesIn,
  counters.framesOut,
  counters.bytesOut,
];

async function withFolder(run: (folder: string) => Promise<void>): Promise<void> {
  const folder = await Deno.makeTempDir();
  try {
    await run(folder);
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

for (const kind of ["TCP", "Unix"] as const) {
  Deno.test(`two ends of a ${kind} socket exchange frames, those of one turn in one write`, async () => {
    await withFolder(async (folder) => {
      const peers: StreamBackend[] = [];
      const there = kind === "TCP" ? { port: 0 } : { path: `${folder}/net` };
      const server = await StreamServer.listen(there, (peer) => peers.push(peer));
      const client = await StreamBackend.connect(
        kind === "TCP" ? { port: server.port } : there as { path: string },
      );
      await until(() => peers.length === 1);
      const peer = peers[0]!;
      assert(client.linkUp && peer.linkUp);
      const [atClient, atServer] = [received(client), received(peer)];
      const letters = Array.from(
        { length: 50 },
        (_, i) => envelope({ to: 2, from: 1, size: i * 30, fill: i }),
      );
      for (const bytes of letters) client.deliver(new Frame().fromBytes(bytes));
      for (const bytes of letters.slice(0, 3)) peer.deliver(new Frame().fromBytes(bytes));
      await until(() => atServer.length === 50 && atClient.length === 3);
      assertEquals(atServer, letters);
      assertEquals(atClient, letters.slice(0, 3));
      const bytes = letters.reduce((sum, { length }) => sum + length, 0);
      assertEquals(some(client.counters), [3, 14 * 3 + 90, 50, bytes]);
      assertEquals(some(peer.counters), [50, bytes, 3, 14 * 3 + 90]);
      assertEquals([client.counters.writes, peer.counters.writes], [1, 1]);
      assertEquals(server.peers, [peer]);
      const changes: boolean[] = [];
      peer.onLinkChange = () => changes.push(peer.linkUp);
      await client.close();
      assertEquals(await peer.ended, null);
      assertEquals([changes, client.linkUp, server.peers], [[false], false, []]);
      client.deliver(letter({ to: 2, from: 1 }));
      assertEquals(client.counters.unheard, 1);
      await server.close();
      assertEquals([...Deno.readDirSync(folder)], []);
    });
  });
}

Deno.test("a peer that sends no frames is told goodbye, with the reason", async () => {
  const errors: StreamError[] = [];
  const server = await StreamServer.listen({ port: 0 }, (peer) => void received(peer), {
    onError: (error) => errors.push(error),
  });
  const hello = new TextEncoder().encode("GET / HTTP/1.1\r\n\r\n");
  const cases: [Uint8Array, string, string][] = [
    [hello, "bad length", "announced a frame of 1195725856 bytes"],
    [new Uint8Array([0, 1, 0, 0x3e]), "bad length", "65598"],
    [new Uint8Array([0, 0, 0]), "cut off", "in the middle of a frame"],
    [new Uint8Array([0, 0, 0, 60, 1, 2, 3]), "cut off", "in the middle of a frame"],
  ];
  for (const [bytes, problem, message] of cases) {
    const socket = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
    await socket.write(bytes);
    await socket.closeWrite();
    // The other end closes: nothing more comes.
    const rest = await socket.read(new Uint8Array(1)).catch(() => null);
    assertEquals(rest, null);
    socket.close();
    await until(() => errors.length === 1, problem);
    const error = errors.pop()!;
    assert(error instanceof StreamError);
    assertEquals(error.problem, problem);
    assert(error.message.includes(message), error.message);
  }
  assertEquals(server.peers, []);
  await server.close();
});

Deno.test("short frames are passed over, and what follows is not lost", async () => {
  let peer: StreamBackend | undefined;
  let got: Uint8Array[] = [];
  const server = await StreamServer.listen({ port: 0 }, (each) => {
    peer = each;
    got = received(each);
  });
  const socket = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  const frame = envelope({ to: 2, from: 1 });
  for (const byte of [0, 0, 0, 0, 0, 0, 0, 2, 9, 9, 0, 0, 0, 60, ...frame]) {
    await socket.write(new Uint8Array([byte]));
  }
  await until(() => got.length === 1);
  assertEquals(got, [frame]);
  assertEquals(peer!.counters.short, 2);
  socket.close();
  await server.close();
});

Deno.test("for a peer that does not read, frames wait within a bound, then they are dropped", async () => {
  let peer: StreamBackend | undefined;
  const server = await StreamServer.listen({ port: 0 }, (each) => peer = each, {
    queueSize: 100_000,
  });
  const socket = await Deno.connect({ hostname: "127.0.0.1", port: server.port });
  await until(() => peer !== undefined);
  const frame = letter({ to: 2, from: 1, size: 10_000 });
  let sent = 0;
  while (peer!.counters.overruns < 100) {
    for (let i = 0; i < 50; i++) peer!.deliver(frame);
    sent += 50;
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  const { framesOut, overruns } = peer!.counters;
  assertEquals(framesOut + overruns, sent);
  // Once it reads, all that was not dropped comes, whole.
  let bytes = 0;
  const chunk = new Uint8Array(65536);
  while (bytes < framesOut * 10_018) bytes += (await socket.read(chunk))!;
  assertEquals(bytes, framesOut * 10_018);
  // And what never was read does not keep anything from ending.
  for (let i = 0; i < 2000; i++) {
    peer!.deliver(frame);
    if (i % 10 === 0) await new Promise((resolve) => setTimeout(resolve, 0));
  }
  await server.close();
  socket.close();
});

Deno.test("a client that reconnects comes back, and its link shows", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/net`;
    const errors: string[] = [];
    const client = await StreamBackend.connect({ path }, {
      reconnect: { first: 1, most: 20 },
      onError: (error) => errors.push(error.problem),
    });
    const changes: boolean[] = [];
    client.onLinkChange = () => changes.push(client.linkUp);
    client.deliver(letter({ to: 2, from: 1 }));
    assertEquals(client.counters.unheard, 1);
    await until(() => errors.length >= 3);
    for (let round = 0; round < 2; round++) {
      const got: Uint8Array[] = [];
      const server = await StreamServer.listen({ path }, (peer) => {
        peer.connect({ offloads: 0, deliver: (frame) => void got.push(frame.bytes.slice()) });
      });
      await until(() => client.linkUp);
      client.deliver(letter({ to: 2, from: 1, fill: round }));
      await until(() => got.length === 1);
      await server.close();
      await until(() => !client.linkUp);
    }
    assertEquals(changes, [true, false, true, false]);
    assertEquals(client.counters.framesOut, 2);
    await client.close();
    const count = errors.length;
    await new Promise((resolve) => setTimeout(resolve, 50));
    assertEquals(errors.length, count, "no more attempts");
  });
});

Deno.test("addresses that cannot be had are refused with the reason", async () => {
  await withFolder(async (folder) => {
    const path = `${folder}/net`;
    const refused = await assertRejects(() => StreamBackend.connect({ path }), StreamError);
    assertEquals(refused.problem, "refused");
    assert(refused.message.includes(path));
    const server = await StreamServer.listen({ path }, () => {});
    const used = await assertRejects(() => StreamServer.listen({ path }, () => {}), StreamError);
    assertEquals(used.problem, "in use");
    await server.close();
    // A file that is no socket stays.
    await Deno.writeTextFile(path, "mine");
    await assertRejects(() => StreamServer.listen({ path }, () => {}), StreamError);
    assertEquals(await Deno.readTextFile(path), "mine");
    await Deno.remove(path);
    // A socket whose process is gone does not.
    const dead = new Deno.Command(Deno.execPath(), {
      args: ["eval", "-q", `Deno.listen({transport:"unix",path:"${path}"}); Deno.exit(0)`],
    });
    assert((await dead.output()).success);
    assert((await Deno.lstat(path)).isSocket);
    const next = await StreamServer.listen({ path }, () => {});
    await next.close();
  });
  await assertRejects(() => StreamBackend.connect({ port: 1 }, { queueSize: 65_600 }), RangeError);
  await assertRejects(
    () => StreamBackend.connect({ port: 1 }, { reconnect: { first: 5, most: 4 } }),
    RangeError,
  );
  await assertRejects(
    () => StreamServer.listen({ port: 0 }, () => {}, { maxPeers: 0 }),
    RangeError,
  );
});

Deno.test("a peer too many is turned away", async () => {
  const errors: string[] = [];
  const server = await StreamServer.listen({ port: 0 }, () => {}, {
    maxPeers: 1,
    onError: (error) => errors.push(error.problem),
  });
  const first = await StreamBackend.connect({ port: server.port });
  await until(() => server.peers.length === 1);
  const second = await StreamBackend.connect({ port: server.port });
  await second.ended;
  assertEquals(errors, ["too many"]);
  assert(first.linkUp);
  await first.close();
  await server.close();
});

Deno.test("two switches joined by a stream are one network; each stream that ends takes its port down", async () => {
  const [left, right] = [new Switch(), new Switch()];
  const server = await StreamServer.listen({ port: 0 }, (peer) => {
    const port = left.port({ name: "uplink" });
    port.plug(peer);
    void peer.ended.then(() => port.close());
  });
  const client = await StreamBackend.connect({ port: server.port });
  const uplink = right.port({ name: "uplink" });
  uplink.plug(client);
  assert(uplink.up);
  const a = left.port();
  const b = right.port();
  const [atA, atB] = [collect(a), collect(b)];
  await until(() => left.ports.length === 2);
  a.send(letter({ to: BROADCAST, from: 1 }));
  await until(() => atB.length === 1);
  b.send(letter({ to: 1, from: 2, fill: 7 }));
  await until(() => atA.length === 1);
  assertEquals(atA, [envelope({ to: 1, from: 2, fill: 7 })]);
  await server.close();
  await until(() => !uplink.up);
  assertEquals(left.ports, [a]);
  assertEquals([...right.stations()].map(({ mac }) => mac), ["02:00:00:00:00:02"]);
  await client.close();
});

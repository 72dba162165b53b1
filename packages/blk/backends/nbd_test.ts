import { assert, assertEquals, assertRejects } from "@std/assert";
import * as blk from "../constants.ts";
import { BlkDevice } from "../device.ts";
import { RawDriver } from "../testing.ts";
import { assertFails, assertSame, pattern, testBackend } from "./backend_testing.ts";
import { NbdBackend, NbdError, type NbdProblem, parseNbdUri } from "./nbd.ts";
import { message, NbdListener, type NbdPeer, serveMemory } from "./nbd_testing.ts";

const SIZE = 512 * 1024;
/** What a server can that can all: flush, FUA, trim, write zeroes, several connections. */
const ALL = 1 | 4 | 8 | 32 | 64 | 256;

for (const structured of [false, true]) {
  testBackend(`nbd, ${structured ? "structured" : "simple"} replies`, async () => {
    const disk = new Uint8Array(SIZE);
    const server = new NbdListener((peer) => serveMemory(peer, disk, ALL, structured));
    const backend = await NbdBackend.connect({ port: server.port });
    return {
      backend,
      done: async () => {
        await backend.close();
        await server.close();
      },
    };
  });
}

async function problemOf(
  serve: (peer: NbdPeer) => Promise<void>,
  use?: (backend: NbdBackend) => Promise<unknown>,
): Promise<NbdProblem> {
  const server = new NbdListener(serve);
  try {
    const options = { timeout: 2000, reconnect: { patience: 300, delay: 10 } };
    const error = await assertRejects(async () => {
      const backend = await NbdBackend.connect({ port: server.port }, options);
      try {
        await use?.(backend);
      } finally {
        await backend.close();
      }
    }, NbdError);
    assert(error.message.length > 10);
    return error.problem;
  } finally {
    await server.close();
  }
}

Deno.test("nbd: a server that lets nobody in costs no more than the timeout", async () => {
  using listener = Deno.listen({ hostname: "127.0.0.1", port: 0, tcpBacklog: 1 });
  const { port } = listener.addr as Deno.NetAddr;
  const waiting: Deno.Conn[] = [];
  const full = new AbortController();
  try {
    // Nobody accepts: from some connection on the system lets the next ones wait.
    for (let open = true; open;) {
      const timer = setTimeout(() => full.abort(), 500);
      await Deno.connect({ port, signal: full.signal })
        .then((connection) => waiting.push(connection), () => open = false);
      clearTimeout(timer);
    }
    const options = { timeout: 200, reconnect: false } as const;
    const error = await assertRejects(() => NbdBackend.connect({ port }, options), NbdError);
    assertEquals(error.problem, "timeout");
  } finally {
    for (const connection of waiting) connection.close();
  }
});

Deno.test("nbd: servers that greet wrongly are told apart, and cost nothing", async () => {
  const end = async (peer: NbdPeer): Promise<void> => void await peer.request();
  const cases: [NbdProblem, (peer: NbdPeer) => Promise<void>][] = [
    ["lost", () => Promise.resolve()],
    ["protocol", (peer) => (peer.stream.write(new Uint8Array(152)), end(peer))],
    ["protocol", (peer) => {
      // Old style: no fixed newstyle flag.
      peer.stream.write(message(0x4e42444d41474943n, 0x49484156454f5054n, { u16: 0 }));
      return end(peer);
    }],
    ["timeout", end],
    ["export", async (peer) => {
      await peer.greet();
      peer.reply(await peer.option(), 1);
      peer.reply(await peer.option(), 0x8000_0006, new TextEncoder().encode("no\x1bsuch"));
      await end(peer);
    }],
    ["protocol", async (peer) => {
      await peer.greet();
      await peer.option();
      peer.reply(99, 1);
      await end(peer);
    }],
    ["protocol", async (peer) => {
      await peer.greet();
      const option = await peer.option();
      peer.stream.write(message(0x3e889045565a9n, option, 1, 0xffff_ffff));
      await end(peer);
    }],
    ["protocol", async (peer) => {
      await peer.greet();
      peer.reply(await peer.option(), 1);
      // An acknowledgement without a size.
      peer.reply(await peer.option(), 1);
      await end(peer);
    }],
    ["protocol", async (peer) => {
      await peer.greet();
      peer.reply(await peer.option(), 1);
      const option = await peer.option();
      // Information without an end.
      for (let i = 0; i < 1000; i++) peer.reply(option, 3, message({ u16: 9 }));
      await end(peer);
    }],
    ["export", async (peer) => {
      await peer.handshake(2n ** 60n, ALL, true);
      await end(peer);
    }],
    ["export", async (peer) => {
      await peer.greet();
      peer.reply(await peer.option(), 1);
      const option = await peer.option();
      peer.reply(option, 3, message({ u16: 0 }, 65536n, { u16: ALL }));
      peer.reply(option, 3, message({ u16: 3 }, 3, 4096, 0));
      peer.reply(option, 1);
      await end(peer);
    }],
  ];
  for (const [problem, serve] of cases) assertEquals(await problemOf(serve), problem);
});

Deno.test("nbd: answers that were not asked for end the connection for good, and every request", async () => {
  const structured = (
    flags: number,
    type: number,
    cookie: bigint,
    ...data: (number | bigint | Uint8Array | { u16: number })[]
  ): Uint8Array => {
    const body = message(...data);
    return message(0x668e33ef, { u16: flags }, { u16: type }, cookie, body.length, body);
  };
  const some = new Uint8Array(512);
  const answers: ((cookie: bigint) => Uint8Array)[] = [
    // No reply at all; a wrong cookie; the old way.
    () => new Uint8Array(64).fill(7),
    (cookie) => structured(1, 0, cookie ^ 1n),
    (cookie) => structured(1, 0, cookie ^ (1n << 40n)),
    (cookie) => message(0x67446698, 0, cookie, new Uint8Array(1024)),
    // Done without data, with half of it, with a part twice, beside the range, of no bytes, longer than asked for.
    (cookie) => structured(1, 0, cookie),
    (cookie) => structured(1, 1, cookie, 4096n, some),
    (cookie) =>
      message(structured(0, 1, cookie, 4096n, some), structured(1, 1, cookie, 4097n, some)),
    (cookie) => structured(1, 1, cookie, 4095n, some),
    (cookie) => structured(1, 1, cookie, 5000n, some),
    (cookie) => structured(1, 1, cookie, 2n ** 63n, some),
    (cookie) => structured(1, 2, cookie, 4096n, 0),
    (cookie) => structured(1, 2, cookie, 4096n, 2 ** 32 - 1),
    (cookie) => structured(1, 1, cookie, 4096n, new Uint8Array(1025)),
    // Parts that make no sense; errors that do not.
    (cookie) => structured(0, 0, cookie),
    (cookie) => structured(1, 0, cookie, 1),
    (cookie) => structured(1, 77, cookie),
    (cookie) => structured(1, 0x8001, cookie, 0, { u16: 0 }),
    (cookie) => structured(1, 0x8001, cookie, 5, { u16: 9 }),
    (cookie) => structured(1, 0x8001, cookie),
    (cookie) => message(0x668e33ef, { u16: 1 }, { u16: 0x8001 }, cookie, 0xffff_fff0),
  ];
  for (const answer of answers) {
    const serve = async (peer: NbdPeer): Promise<void> => {
      await peer.handshake(BigInt(SIZE), ALL, true);
      const request = await peer.request();
      peer.stream.write(answer(request!.cookie));
      while (await peer.request() !== null);
    };
    const problem = await problemOf(serve, async (backend) => {
      const error = await assertFails(() => backend.read(4096, new Uint8Array(1024), 0, 1024));
      const later = await assertFails(() => backend.read(0, new Uint8Array(512), 0, 512));
      assertEquals((later as NbdError).problem, "protocol");
      throw error;
    });
    assertEquals(problem, "protocol", answer.toString());
  }
});

Deno.test("nbd: a server's error is the request's, in words; the next one works", async () => {
  const disk = pattern(SIZE, 1);
  let refuse = true;
  const server = new NbdListener((peer) =>
    serveMemory(peer, disk, ALL, true, (request) => {
      if (!refuse) return true;
      refuse = false;
      const text = new TextEncoder().encode("bad\nsector");
      const { cookie } = request;
      peer.stream.write(
        message(0x668e33ef, { u16: 0 }, { u16: 1 }, cookie, 520, 0n, new Uint8Array(512).fill(9)),
        message(0x668e33ef, { u16: 0 }, { u16: 0x8002 }, cookie, 24, 5, { u16: 10 }, text, 512n),
        message(0x668e33ef, { u16: 1 }, { u16: 0 }, cookie, 0),
      );
      // Nothing more, until the client goes away.
      return peer.request().then(() => false);
    })
  );
  const backend = await NbdBackend.connect({ port: server.port }, { timeout: 200 });
  const bytes = new Uint8Array(1024);
  const error = await assertFails(() => backend.read(0, bytes, 0, 1024)) as NbdError;
  assertEquals([error.problem, error.code], ["request", 5]);
  assert(error.message.endsWith("EIO (bad sector)"), error.message);
  // That server answers no more: after 200 ms the client connects again.
  await backend.read(0, bytes, 0, 1024);
  assertSame(bytes, disk.subarray(0, 1024));
  assertEquals(server.clients, 2);
  await backend.close();
  await server.close();
});

Deno.test("nbd: a server that dies in the middle is connected to again, and every request answered once", async () => {
  const disk = new Uint8Array(SIZE);
  let answered = 0;
  let dies = 40;
  const server = new NbdListener((peer) =>
    serveMemory(peer, disk, ALL, true, () => answered++ !== dies)
  );
  const backend = await NbdBackend.connect({ port: server.port }, {
    reconnect: { delay: 5, keepsWrites: true },
  });
  for (let round = 0; round < 5; round++) {
    dies = answered + 40;
    const writes = [];
    for (let at = 0; at < SIZE; at += 4096) {
      writes.push(backend.write(at, pattern(4096, at + round), 0, 4096));
    }
    await Promise.all(writes);
    await backend.flush();
    const back = new Uint8Array(SIZE);
    const reads = [];
    for (let at = 0; at < SIZE; at += 4096) reads.push(backend.read(at, back, at, 4096));
    await Promise.all(reads);
    for (let at = 0; at < SIZE; at += 4096) {
      assertSame(back.subarray(at, at + 4096), pattern(4096, at + round));
    }
  }
  assert(server.clients > 5);
  assert(backend.connections >= 2);
  await backend.close();
  await server.close();
});

Deno.test("nbd: a flush after a server went away fails once if it had acknowledged writes, and not if it had flushed them", async () => {
  const disk = new Uint8Array(SIZE);
  let end = false;
  const server = new NbdListener((peer) =>
    serveMemory(peer, disk, 1 | 4 | 8, true, () => {
      const goes = end;
      end = false;
      return !goes;
    })
  );
  const backend = await NbdBackend.connect({ port: server.port }, { reconnect: { delay: 5 } });
  const goAway = async (): Promise<void> => {
    end = true;
    // Answered by the next one.
    await backend.read(0, new Uint8Array(512), 0, 512);
    assertEquals(end, false);
  };
  await backend.write(0, pattern(512, 1), 0, 512);
  await backend.flush();
  await goAway();
  await backend.flush();
  await backend.writeDurably!(0, pattern(512, 1), 0, 512);
  await goAway();
  await backend.flush();
  await backend.write(0, pattern(512, 1), 0, 512);
  await goAway();
  const error = await assertFails(() => backend.flush()) as NbdError;
  assertEquals(error.problem, "unflushed");
  await backend.flush();
  await backend.close();
  await server.close();
});

Deno.test("nbd: without reconnecting, and when patience ends, requests fail", async () => {
  for (const reconnect of [false, { patience: 50, delay: 10 }] as const) {
    const server = new NbdListener((peer) =>
      serveMemory(peer, new Uint8Array(SIZE), ALL, true, () => false)
    );
    const backend = await NbdBackend.connect({ port: server.port }, { reconnect });
    const read = backend.read(0, new Uint8Array(512), 0, 512);
    const failed = assertRejects(() => read, NbdError);
    if (reconnect !== false) await server.close();
    assert(["lost", "refused"].includes((await failed).problem));
    await assertFails(() => backend.read(0, new Uint8Array(512), 0, 512));
    await backend.close();
    if (reconnect === false) await server.close();
  }
});

Deno.test("nbd: an export that is another one after the server came back is refused", async () => {
  const server = new NbdListener((peer, index) =>
    serveMemory(peer, new Uint8Array(SIZE + 4096 * index), ALL, true, () => false)
  );
  const backend = await NbdBackend.connect({ port: server.port });
  const error = await assertFails(() => backend.read(0, new Uint8Array(512), 0, 512)) as NbdError;
  assertEquals(error.problem, "changed");
  await backend.close();
  await server.close();
});

Deno.test("nbd: flags and limits of the server are kept to", async () => {
  const seen: [number, number, number][] = [];
  const server = new NbdListener((peer) =>
    serveMemory(peer, new Uint8Array(SIZE + 100), ALL, true, (request) => {
      seen.push([request.type, request.flags, request.length]);
      return true;
    })
  );
  const backend = await NbdBackend.connect({ port: server.port }, { connections: 1 });
  assertEquals(backend.capacity, SIZE);
  // More than the 64 KiB that this server takes.
  await backend.write(0, new Uint8Array(SIZE), 0, 160 * 1024);
  await backend.writeZeroes!(0, 512, false);
  await backend.writeZeroes!(0, 512, true);
  await backend.discard!(512, 1024);
  await backend.flush();
  assertEquals(seen.splice(0), [
    [1, 0, 65536],
    [1, 0, 65536],
    [1, 0, 32768],
    [6, 2, 512],
    [6, 0, 512],
    [4, 0, 1024],
    [3, 0, 0],
  ]);
  // A device in writethrough mode has writes made durable in one step.
  const driver = await RawDriver.open(new BlkDevice({ backend, cache: "writethrough" }));
  const out = pattern(4096, 1);
  assertEquals((await driver.request({ type: blk.VIRTIO_BLK_T_OUT, out })).status, 0);
  assertEquals(seen, [[1, 1, 4096]]);
  await backend.close();
  await server.close();
  const plain = new NbdListener((peer) => serveMemory(peer, new Uint8Array(SIZE), 1 | 2, false));
  const poor = await NbdBackend.connect({ port: plain.port });
  assertEquals(
    [poor.readonly, poor.canFlush, poor.discard, poor.writeZeroes, poor.writeDurably],
    [true, false, undefined, undefined, undefined],
  );
  const error = await assertFails(() => poor.write(0, new Uint8Array(512), 0, 512)) as NbdError;
  assertEquals(error.problem, "write protected");
  await poor.flush();
  await poor.close();
  await plain.close();
});

Deno.test("nbd: addresses", async () => {
  assertEquals(parseNbdUri("nbd://127.0.0.1:1234/a%20b"), {
    address: { hostname: "127.0.0.1", port: 1234 },
    export: "a b",
    tls: false,
  });
  assertEquals(parseNbdUri("nbds://[::1]"), {
    address: { hostname: "::1", port: 10809 },
    export: "",
    tls: true,
  });
  assertEquals(parseNbdUri("nbd+unix:///?socket=/a/b"), {
    address: { path: "/a/b" },
    export: "",
    tls: false,
  });
  for (const wrong of ["http://x", "nbd", "nbd+unix:///x", "nbd://", "nbd://x/%zz"]) {
    let problem = "";
    try {
      parseNbdUri(wrong);
    } catch (error) {
      problem = (error as NbdError).problem;
    }
    assertEquals(problem, "address", wrong);
  }
  const error = await assertRejects(() => NbdBackend.connect({ path: "/nowhere" }), NbdError);
  assertEquals(error.problem, "refused");
  await assertRejects(() => NbdBackend.connect({ port: 1 }, { connections: 17 }), RangeError);
});

/** NbdBackend against servers of other people: nbdkit and qemu-nbd. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { NbdBackend, NbdError } from "@virtio/blk/nbd";
import { assertSame, pattern, testBackend } from "../packages/blk/backends/backend_testing.ts";
import { hasTool, installTool, run } from "../packages/net/backends/tool_testing.ts";

await installTool("nbdkit", "nbdkit");
await installTool("qemu-nbd", "qemu-utils");
await installTool("openssl", "openssl");
const ignoreNbdkit = !await hasTool("nbdkit", ["--version"], "network block devices by nbdkit");
const ignoreQemu = !await hasTool("qemu-nbd", ["--version"], "network block devices by qemu-nbd");
const ignoreTls = ignoreNbdkit ||
  !await hasTool("openssl", ["version"], "encrypted network block devices");

const SIZE = 512 * 1024;

/** A server that runs until it is ended. */
class Server {
  readonly #child: Deno.ChildProcess;

  constructor(program: string, ...args: string[]) {
    this.#child = new Deno.Command(program, {
      args,
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
  }

  async end(signal: Deno.Signal = "SIGTERM"): Promise<void> {
    try {
      this.#child.kill(signal);
    } catch { /* it ended by itself */ }
    await this.#child.status;
  }
}

/** Connects as soon as the server listens. */
async function connect(...args: Parameters<typeof NbdBackend.connect>): Promise<NbdBackend> {
  for (let attempt = 0;; attempt++) {
    try {
      return await NbdBackend.connect(...args);
    } catch (error) {
      if (!(error instanceof NbdError) || error.problem !== "refused" || attempt === 400) {
        throw error;
      }
      await new Promise((resolve) => setTimeout(resolve, 25));
    }
  }
}

async function served(start: (folder: string) => Server | Promise<Server>) {
  const folder = await Deno.makeTempDir();
  const server = await start(folder);
  const backend = await connect({ path: `${folder}/socket` });
  return {
    backend,
    done: async () => {
      await backend.close();
      await server.end();
      await Deno.remove(folder, { recursive: true });
    },
  };
}

function nbdkit(folder: string, ...rest: string[]): Server {
  return new Server("nbdkit", "--foreground", "--unix", `${folder}/socket`, ...rest);
}

async function qemuNbd(folder: string): Promise<Server> {
  await Deno.writeFile(`${folder}/disk`, new Uint8Array(SIZE));
  return new Server(
    "qemu-nbd",
    ...["--socket", `${folder}/socket`, "--format", "raw", "--persistent", "--shared", "8"],
    ...["--discard", "unmap", `${folder}/disk`],
  );
}

if (!ignoreNbdkit) {
  testBackend("nbdkit", () => served((folder) => nbdkit(folder, "memory", `${SIZE}`)));
  testBackend(
    "nbdkit, simple replies",
    () => served((folder) => nbdkit(folder, "--no-sr", "memory", `${SIZE}`)),
  );
}
if (!ignoreQemu) testBackend("qemu-nbd", () => served(qemuNbd));

Deno.test({
  name: "nbdkit and qemu-nbd let several connections work on one disk",
  ignore: ignoreNbdkit || ignoreQemu,
  fn: async () => {
    for (const start of [(folder: string) => nbdkit(folder, "memory", `${SIZE}`), qemuNbd]) {
      const { backend, done } = await served(start);
      assertEquals([backend.capacity, backend.readonly, backend.canFlush], [SIZE, false, true]);
      assert(backend.discard !== undefined && backend.writeZeroes !== undefined);
      assert(backend.writeDurably !== undefined);
      for (let round = 0; round < 3; round++) {
        const writes = [];
        for (let at = 0; at < SIZE; at += 8192) {
          writes.push(backend.writeDurably!(at, pattern(8192, at + round), 0, 8192));
        }
        await Promise.all(writes);
      }
      const back = new Uint8Array(SIZE);
      await backend.read(0, back, 0, SIZE);
      for (let at = 0; at < SIZE; at += 8192) {
        assertSame(back.subarray(at, at + 8192), pattern(8192, at + 2));
      }
      assertEquals(backend.connections, 4);
      await done();
    }
  },
});

Deno.test({
  name:
    "nbdkit is killed again and again under writes: every one is answered once, and what was flushed is there",
  ignore: ignoreNbdkit,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    await Deno.writeFile(`${folder}/disk`, new Uint8Array(SIZE));
    const start = async (): Promise<Server> => {
      await Deno.remove(`${folder}/socket`).catch(() => {});
      return nbdkit(folder, "file", `${folder}/disk`);
    };
    let server = await start();
    const backend = await connect({ path: `${folder}/socket` }, {
      // The page cache of this machine keeps what a dead server wrote.
      reconnect: { delay: 10, keepsWrites: true },
    });
    let stop = false;
    let answers = 0;
    const expected = new Uint8Array(SIZE);
    const writer = async (lane: number): Promise<void> => {
      for (let i = 0; !stop; i++) {
        const at = ((i % 16) * 8 + lane) * 4096;
        const bytes = pattern(4096, i * 8 + lane);
        await backend.write(at, bytes, 0, 4096);
        expected.set(bytes, at);
        answers++;
        if (i % 5 === 0) await backend.flush();
      }
    };
    const writers = Array.from({ length: 8 }, (_, lane) => writer(lane));
    for (let round = 0; round < 8; round++) {
      const before = answers;
      while (answers < before + 200) await new Promise((resolve) => setTimeout(resolve, 1));
      await server.end("SIGKILL");
      server = await start();
    }
    stop = true;
    await Promise.all(writers);
    await backend.flush();
    await backend.close();
    assertSame(await Deno.readFile(`${folder}/disk`), expected);
    await server.end();
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "nbdkit serves by name, over TCP, encrypted; a certificate of somebody else is refused",
  ignore: ignoreTls,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const openssl = (...args: string[]) => run("openssl", ...args);
    const ca = ["-CA", `${folder}/ca-cert.pem`, "-CAkey", `${folder}/ca-key.pem`];
    const key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"];
    await openssl(
      ...["req", "-x509", ...key, "-days", "2", "-subj", "/CN=authority"],
      ...["-keyout", `${folder}/ca-key.pem`, "-out", `${folder}/ca-cert.pem`],
    );
    await openssl(
      ...["req", ...key, "-subj", "/CN=localhost"],
      ...["-keyout", `${folder}/server-key.pem`, "-out", `${folder}/request.pem`],
    );
    const names = `${folder}/names`;
    await Deno.writeTextFile(names, "subjectAltName=DNS:localhost\nextendedKeyUsage=serverAuth\n");
    await openssl(
      ...["x509", "-req", "-in", `${folder}/request.pem`, ...ca, "-CAcreateserial"],
      ...["-days", "2", "-extfile", names, "-out", `${folder}/server-cert.pem`],
    );
    const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
    const { port } = probe.addr;
    probe.close();
    const server = new Server(
      "nbdkit",
      ...["--foreground", "--ipaddr", "127.0.0.1", "--port", `${port}`, "--tls", "require"],
      ...["--tls-certificates", folder, "memory", `${SIZE}`],
    );
    const caCerts = [await Deno.readTextFile(`${folder}/ca-cert.pem`)];
    const address = { port };
    const backend = await connect(address, {
      export: "disk",
      tls: { hostname: "localhost", caCerts },
    });
    await backend.write(4096, pattern(100_352, 1), 0, 100_352);
    await backend.flush();
    const back = new Uint8Array(100_352);
    await backend.read(4096, back, 0, back.length);
    assertSame(back, pattern(100_352, 1));
    await backend.close();
    const plain = await assertRejects(() => NbdBackend.connect(address), NbdError, "give `tls`");
    assertEquals(plain.code, 5);
    const stranger = await assertRejects(
      () => NbdBackend.connect(address, { tls: { hostname: "localhost" } }),
      NbdError,
    );
    assertEquals(stranger.problem, "tls");
    const other = await assertRejects(
      () => NbdBackend.connect(address, { tls: { hostname: "example.org", caCerts } }),
      NbdError,
    );
    assertEquals(other.problem, "tls");
    await server.end();
    await Deno.remove(folder, { recursive: true });
  },
});

/** What a connection of Deno's says when the other side resets it: that is what a guest is told. */
import { assert, assertEquals } from "@std/assert";
import { denoOutside } from "@virtio/virbr/outside/deno";
import type { OutsideStream } from "@virtio/virbr";

const SAID = 50_000;

/** A program that serves one connection: it says something, does not read what it got, and waits to be ended. */
const SERVER = `
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  console.log(listener.addr.port);
  const connection = await listener.accept();
  const bytes = new Uint8Array(${SAID});
  for (let at = 0; at < bytes.length;) at += await connection.write(bytes.subarray(at));
  console.log("said");
  await new Promise(() => setInterval(() => {}, 1000));
`;

/** Connects to such a program, which is ended without a word: the system resets what was not read. */
async function reset(then: (stream: OutsideStream) => Promise<void>): Promise<void> {
  const child = new Deno.Command(Deno.execPath(), {
    args: ["run", "-A", `data:application/javascript,${encodeURIComponent(SERVER)}`],
    stdout: "piped",
  }).spawn();
  const lines = child.stdout.getReader();
  let stream: OutsideStream | null = null;
  try {
    const { value } = await lines.read();
    const port = Number(new TextDecoder().decode(value));
    stream = await denoOutside().connect("127.0.0.1", port);
    await stream.write(new Uint8Array(100));
    // Then all was said that ever will be.
    assertEquals(new TextDecoder().decode((await lines.read()).value), "said\n");
    child.kill("SIGKILL");
    await child.status;
    await then(stream);
  } finally {
    stream?.close();
    await lines.cancel();
    try {
      child.kill("SIGKILL");
    } catch {
      // It has ended.
    }
    await child.status;
  }
}

/** Reads until there is no more. @returns Bytes, and why there are no more. */
async function drain(stream: OutsideStream): Promise<[number, string | null]> {
  const into = new Uint8Array(8192);
  let length = 0;
  for (;;) {
    try {
      const count = await stream.read(into);
      if (count === null) return [length, null];
      length += count;
    } catch (error) {
      return [length, (error as { code?: string }).code ?? "?"];
    }
  }
}

Deno.test("a reset is told after what was said before it", async () => {
  await reset(async (stream) => assertEquals(await drain(stream), [SAID, "ECONNRESET"]));
});

Deno.test("a writer is told of a reset by its code, also if the reader sees an end then", async () => {
  await reset(async (stream) => {
    let code: unknown;
    for (let i = 0; i < 10 && code === undefined; i++) {
      await stream.write(new Uint8Array(10)).catch((error) => code = error.code);
    }
    assertEquals(code, "ECONNRESET");
    const [length, end] = await drain(stream);
    assertEquals(length, SAID);
    assert(end === null || end === "ECONNRESET" || end === "EPIPE", `${end}`);
  });
});

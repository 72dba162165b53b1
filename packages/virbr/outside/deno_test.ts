import { assert, assertEquals, assertRejects } from "@std/assert";
import { denoOutside, outsideError } from "./deno.ts";
import { OutsideError, type OutsidePeer } from "./outside.ts";

Deno.test("a port at which nobody listens refuses, one that is taken cannot be had", async () => {
  const outside = denoOutside();
  const listener = await outside.listen!("127.0.0.1", 0, (stream) => stream.close());
  const taken = await assertRejects(
    () => outside.listen!("127.0.0.1", listener.port, () => {}),
    OutsideError,
  );
  assertEquals(taken.problem, "taken");
  listener.close();
  const refused = await assertRejects(
    () => outside.connect("127.0.0.1", listener.port),
    OutsideError,
  );
  assertEquals(refused.problem, "refused");
});

Deno.test("half a stream goes on after the other half has ended", async () => {
  const outside = denoOutside();
  const listener = await outside.listen!("127.0.0.1", 0, async (stream) => {
    const into = new Uint8Array(100);
    let total = 0;
    for (let count; (count = await stream.read(into)) !== null;) total += count;
    await stream.write(new Uint8Array([total]));
    stream.close();
  });
  const stream = await outside.connect("127.0.0.1", listener.port);
  await stream.write(new Uint8Array(60));
  await stream.closeWrite();
  const into = new Uint8Array(10);
  assertEquals([await stream.read(into), into[0], await stream.read(into)], [1, 60, null]);
  stream.close();
  stream.close();
  listener.close();
  listener.close();
});

Deno.test("datagrams come from where they were sent", async () => {
  const outside = denoOutside();
  for (const [version, address] of [[4, "127.0.0.1"], [6, "::1"]] as const) {
    const { promise, resolve } = Promise.withResolvers<[number[], OutsidePeer]>();
    const server = await outside.datagrams!({
      version,
      address,
      receive: (bytes, from) => server.send(bytes, from.address, from.port),
    });
    const client = await outside.datagrams!({
      version,
      receive: (bytes, from) => resolve([[...bytes], from]),
    });
    client.send(new Uint8Array([1, 2, 3]), address, server.port);
    const [bytes, from] = await promise;
    assertEquals(bytes, [1, 2, 3]);
    assertEquals([from.address, from.port], [address, server.port]);
    client.close();
    client.close();
    server.close();
  }
});

Deno.test("when descriptors run out that is said, and it works again when there are some", async () => {
  const code = `
    import { denoOutside } from ${JSON.stringify(new URL("./deno.ts", import.meta.url).href)};
    const outside = denoOutside();
    const accepted = [];
    const listener = await outside.listen("127.0.0.1", 0, (stream) => accepted.push(stream));
    const streams = [];
    let problem = "";
    for (let i = 0; i < 100 && problem === ""; i++) {
      try {
        streams.push(await outside.connect("127.0.0.1", listener.port));
      } catch (error) {
        problem = error.problem;
      }
    }
    const datagrams = await outside.datagrams({ version: 4, receive() {} }).then(() => "", (error) => error.problem);
    for (const stream of streams) stream.close();
    for (const stream of accepted) stream.close();
    const again = await outside.connect("127.0.0.1", listener.port);
    again.close();
    listener.close();
    console.log(problem, datagrams, streams.length > 5);
    Deno.exit(0);`;
  const config = new URL("../../../deno.json", import.meta.url).pathname;
  // What the shell sets as the most is kept: the program cannot raise it.
  const { stdout, stderr } = await new Deno.Command("sh", {
    args: [
      "-c",
      'ulimit -n 80; exec "$0" eval -q --config "$1" "$2"',
      ...[Deno.execPath(), config, code],
    ],
    stdin: "null",
  }).output();
  assertEquals(
    new TextDecoder().decode(stdout).trim(),
    "exhausted exhausted true",
    new TextDecoder().decode(stderr),
  );
});

Deno.test("what the system says is told in words", () => {
  const problem = (code: string) =>
    outsideError(Object.assign(new Error("x"), { code }), "It").problem;
  assertEquals(problem("EHOSTUNREACH"), "host");
  assertEquals(problem("ENETUNREACH"), "network");
  assertEquals(problem("EACCES"), "prohibited");
  assertEquals(problem("EWHATEVER"), "failed");
  const error = new OutsideError("refused", "as it is");
  assert(outsideError(error, "It") === error);
});

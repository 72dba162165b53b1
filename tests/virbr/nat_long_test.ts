/** What takes minutes: a gigabyte each way, and a minute of short connections, by the host's kernel as a guest. */
import { assert, assertEquals } from "@std/assert";
import { canTap } from "../../packages/net/backends/tap_testing.ts";
import { nothingLeft, OUTSIDE_IP, program, withGuest } from "./nat_testing.ts";

const ignore = !await canTap();

Deno.test({
  name: "a gigabyte there and a gigabyte back, at the same time, are what was sent",
  ignore,
  fn: () =>
    withGuest({}, async ({ net, namespace }) => {
      const size = 2 ** 30;
      // The same program at both ends: what one sends is what the other sends.
      const run = `
        const { createHash } = await import("node:crypto");
        const hash = createHash("sha256");
        let count = 0;
        const chunk = new Uint8Array(1 << 20).map((_, i) => i * 7 + (i >> 9));
        const send = async () => {
          for (let sent = 0; sent < ${size};) {
            chunk[0] = sent >> 20;
            for (let at = 0; at < chunk.length;) at += await socket.write(chunk.subarray(at));
            sent += chunk.length;
          }
          await socket.closeWrite();
        };
        const receive = async () => {
          const into = new Uint8Array(1 << 18);
          for (let got; (got = await socket.read(into)) !== null;) {
            hash.update(into.subarray(0, got));
            count += got;
          }
        };
        await Promise.all([send(), receive()]);
        console.log(hash.digest("hex") + " " + count);`;
      // A process of its own: nobody shares an event loop with the network.
      const server = new Deno.Command(Deno.execPath(), {
        args: [
          "eval",
          "-q",
          `const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
          console.log(listener.addr.port);
          const socket = await listener.accept();
          ${run}`,
        ],
        stdin: "null",
        stdout: "piped",
        stderr: "inherit",
      }).spawn();
      const lines = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
      const port = Number((await lines.read()).value);
      const there = await program(
        namespace,
        `const socket = await Deno.connect({ hostname: "${OUTSIDE_IP}", port: ${port} });
        ${run}`,
      );
      const here = (await lines.read()).value;
      await server.status;
      assertEquals(here, there);
      assert(there.endsWith(` ${size}\n`), there);
      await nothingLeft(net);
    }),
});

Deno.test({
  name: "a hundred short connections a second for a minute, and nothing is left",
  ignore,
  fn: () =>
    withGuest({}, async ({ net, namespace }) => {
      const server = Deno.serve(
        { hostname: "127.0.0.1", port: 0, onListen() {} },
        () => new Response("x".repeat(1000), { headers: { connection: "close" } }),
      );
      const output = await program(
        namespace,
        `
        let right = 0, wrong = 0;
        const one = async () => {
          try {
            const socket = await Deno.connect({ hostname: "${OUTSIDE_IP}", port: ${server.addr.port} });
            await socket.write(new TextEncoder().encode("GET / HTTP/1.1\\r\\nhost: x\\r\\nconnection: close\\r\\n\\r\\n"));
            const text = await new Response(socket.readable).text();
            if (text.endsWith("x".repeat(1000))) right++; else wrong++;
          } catch { wrong++; }
        };
        const start = Date.now();
        const all = [];
        for (let i = 0; i < 6000; i++) {
          all.push(one());
          const wait = start + (i + 1) * 10 - Date.now();
          if (wait > 0) await new Promise((done) => setTimeout(done, wait));
        }
        await Promise.all(all);
        console.log(right, wrong);`,
      );
      assertEquals(output.trim(), "6000 0");
      assertEquals(net.stats.flows.total, 6000);
      await server.shutdown();
      await nothingLeft(net);
      assert(net.stats.tcp.timeWait <= 1024);
    }),
});

/**
 * The host's kernel as a guest: its stack in a network namespace of the test's own, over a tap, reaches servers on the host's
 * loopback through the network's own TCP and UDP. Where taps and namespaces may not be made this is ignored, loudly, but not
 * in CI.
 */
import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { canTap, type TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";
import {
  GUEST_IP,
  loopbackOutside,
  nothingLeft,
  OUTSIDE_IP,
  program,
  withGuest,
} from "./nat_testing.ts";

const MIB = 2 ** 20;

for (
  const [name, tool] of [
    ["iproute2", "ip"],
    ["iputils-ping", "ping"],
    ["curl", "curl"],
    ["iperf3", "iperf3"],
  ] as const
) await installTool(tool, name);

const ignore = !await canTap() ||
  !await hasTool("curl", ["--version"], "the host's curl behind a network") ||
  !await hasTool("iperf3", ["--version"], "the host's iperf3 behind a network");

async function iperf3(
  namespace: TestNamespace,
  ...args: string[]
): Promise<{ readonly sent: number; readonly received: number; readonly lost: number }> {
  const { success, stdout, stderr } = await namespace.command("iperf3", "-J", ...args).output();
  const text = new TextDecoder().decode(stdout);
  assert(success, text + new TextDecoder().decode(stderr));
  const { error, end } = JSON.parse(text);
  assertEquals(error, undefined);
  return {
    sent: end.sum_sent?.bytes ?? 0,
    received: end.sum_received?.bytes ?? 0,
    lost: end.sum?.lost_packets ?? 0,
  };
}

/** iperf3 as a server on the host's loopback. */
async function serveIperf3(): Promise<{ readonly port: string; close(): Promise<void> }> {
  // A port that was free a moment ago.
  const probe = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  const port = `${(probe.addr as Deno.NetAddr).port}`;
  probe.close();
  const server = new Deno.Command("iperf3", {
    args: ["-s", "-B", "127.0.0.1", "-p", port, "--forceflush"],
    stdin: "null",
    stdout: "piped",
    stderr: "null",
  }).spawn();
  const reader = server.stdout.getReader();
  await reader.read();
  void (async () => {
    while (!(await reader.read()).done);
  })();
  return {
    port,
    async close() {
      server.kill("SIGKILL");
      await server.status;
    },
  };
}

for (const mtu of [1500, 65_520]) {
  Deno.test({
    name: `curl and iperf3 of a guest reach the host through TCP of ours, at an MTU of ${mtu}`,
    ignore,
    fn: () =>
      withGuest({ mtu, hostLoopback: true }, async ({ net, namespace, tap }) => {
        const file = new Uint8Array(16 * MIB).map((_, i) => Math.imul(i, 2654435761) >>> 24);
        const sum = createHash("md5").update(file).digest("hex");
        let uploaded = "";
        const server = Deno.serve(
          { hostname: "127.0.0.1", port: 0, onListen() {} },
          async (request) => {
            if (request.method !== "PUT") return new Response(file);
            const bytes = new Uint8Array(await request.arrayBuffer());
            uploaded = createHash("md5").update(bytes).digest("hex");
            return new Response();
          },
        );
        const path = await Deno.makeTempFile();
        const iperf = await serveIperf3();
        try {
          const { port } = server.addr;
          await namespace.run("ping", "-c", "2", "-i", "0.1", "-s", "4000", "192.168.122.1");
          for (const address of [OUTSIDE_IP, "192.168.122.1"]) {
            const url = `http://${address}:${port}/`;
            await namespace.run("curl", "-sS", "-m", "60", "-o", path, url);
            const got = createHash("md5").update(await Deno.readFile(path)).digest("hex");
            assertEquals(got, sum);
            uploaded = "";
            await namespace.run("curl", "-sS", "-m", "60", "-T", path, url);
            assertEquals(uploaded, sum);
          }
          // Nobody listens there; and the host's loopback is not to be had under its own address.
          const refused = await namespace.command("curl", "-m", "10", `http://${OUTSIDE_IP}:1/`)
            .output();
          assertEquals(refused.code, 7);

          const base = ["-c", OUTSIDE_IP, "-p", iperf.port];
          for (const args of [[], ["-R"], ["-P", "4"], ["-P", "4", "-R"]]) {
            const { sent, received } = await iperf3(namespace, ...base, "-n", "128M", ...args);
            assert(sent >= 128 * MIB && received > sent / 2, `${sent} and ${received}`);
          }
          const local = ["-c", OUTSIDE_IP, "-p", iperf.port];
          const udp = await iperf3(namespace, ...local, "-u", "-b", "10M", "-n", "2M");
          assert(udp.sent >= 2 * MIB);
          assert(net.stats.flows.datagramsIn > 0 && net.stats.flows.datagramsOut > 10);
          assert(tap.counters.gsoIn > 0 && tap.counters.gsoOut > 0 || mtu > 1500);
        } finally {
          await iperf.close();
          await server.shutdown();
          await Deno.remove(path);
        }
        await net.close();
        assertEquals([net.stats.tcp.connections, net.stats.flows.tcp, net.stats.flows.udp], [
          0,
          0,
          0,
        ]);
      }),
  });
}

/** Echoes what comes, on the host's loopback. */
function echoServer(): { readonly port: number; readonly most: () => number; close(): void } {
  const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
  let open = 0;
  let most = 0;
  const serve = async (connection: Deno.TcpConn): Promise<void> => {
    most = Math.max(most, ++open);
    try {
      await connection.readable.pipeTo(connection.writable);
    } catch {
      // The guest went away.
    }
    open--;
  };
  void (async () => {
    for await (const connection of listener) void serve(connection);
  })();
  return { port: listener.addr.port, most: () => most, close: () => listener.close() };
}

Deno.test({
  name: "a guest has a thousand connections at once, and nothing is left of them",
  ignore,
  fn: () =>
    withGuest({}, async ({ net, namespace }) => {
      const server = echoServer();
      const output = await program(
        namespace,
        `
        const message = new Uint8Array(2000).map((_, i) => i);
        const all = await Promise.all(Array.from({ length: 1000 }, () =>
          Deno.connect({ hostname: "${OUTSIDE_IP}", port: ${server.port} })));
        let right = 0;
        await Promise.all(all.map(async (socket) => {
          for (let at = 0; at < message.length;) at += await socket.write(message.subarray(at));
          await socket.closeWrite();
          const got = new Uint8Array(await new Response(socket.readable).arrayBuffer());
          if (got.length === message.length && got.every((byte, i) => byte === message[i])) right++;
        }));
        console.log(right);`,
      );
      assertEquals(output.trim(), "1000");
      assertEquals(server.most(), 1000);
      assert(net.stats.flows.total >= 1000);
      server.close();
      await nothingLeft(net);
    }),
});

Deno.test({
  name: "the host reaches a server of a guest's through a forward, on loopback only",
  ignore,
  fn: () =>
    withGuest({}, async ({ net, namespace }) => {
      const server = namespace.command(
        Deno.execPath(),
        "eval",
        "-q",
        `Deno.serve({ hostname: "0.0.0.0", port: 80, onListen: () => console.log("ready") },
          async (request) => new Response(await request.arrayBuffer()));`,
      ).spawn();
      const reader = server.stdout.getReader();
      await reader.read();
      try {
        const forward = await net.forward({ guest: GUEST_IP, guestPort: 80 });
        assertEquals(forward.address, "127.0.0.1");
        const body = new Uint8Array(4 * MIB).map((_, i) => i >> 3);
        for (let i = 0; i < 5; i++) {
          const response = await fetch(`http://127.0.0.1:${forward.port}/`, {
            method: "POST",
            body,
            headers: { connection: "close" },
          });
          const got = new Uint8Array(await response.arrayBuffer());
          assertEquals(got.length, body.length);
          assert(got.every((byte, at) => byte === body[at]));
        }
        // Nobody listens at this port of the guest's.
        const nobody = await net.forward({ guest: GUEST_IP, guestPort: 81 });
        const socket = await Deno.connect({ hostname: "127.0.0.1", port: nobody.port });
        assertEquals(await socket.read(new Uint8Array(1)).catch(() => null), null);
        socket.close();
        forward.close();
        nobody.close();
      } finally {
        server.kill("SIGKILL");
        await reader.cancel();
        await server.stderr.cancel();
        await server.status;
      }
    }),
});

Deno.test({
  name: "datagrams and pings of a guest reach the outside, and it hears when nobody is there",
  ignore,
  fn: () =>
    withGuest({}, async ({ net, namespace }) => {
      // Whoever may not open such a socket answers no pings: the kernel says who may.
      const mayPing = await mayEcho();
      const ping = await namespace.command("ping", "-c", "3", "-i", "0.1", "-W", "2", OUTSIDE_IP)
        .output();
      const text = new TextDecoder().decode(ping.stdout);
      assertEquals(/ 0% packet loss/.test(text), mayPing, text);

      const server = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const { port } = server.addr as Deno.NetAddr;
      server.close();
      // The second datagram finds what became of the first.
      const { code } = await namespace.command(
        "bash",
        "-c",
        `exec 3<>/dev/udp/${OUTSIDE_IP}/${port}; echo x >&3; sleep 0.5; echo y >&3`,
      ).output();
      assertEquals(code, 1);
      assert(net.stats.flows.datagramsOut > 0);
    }),
});

/** Whether this process may ask for echoes. */
async function mayEcho(): Promise<boolean> {
  try {
    return await loopbackOutside().echo!("127.0.0.1", new Uint8Array(8), 2000) !== null;
  } catch {
    return false;
  }
}

Deno.test({
  name: "a guest reaches the host by IPv6 too",
  ignore,
  fn: () =>
    withGuest({ ipv6: "fd00:77::/64", hostLoopback: true }, async ({ net, namespace }) => {
      const body = new Uint8Array(4 * MIB).map((_, i) => i >> 4);
      const server = Deno.serve(
        { hostname: "::1", port: 0, onListen() {} },
        async (request) => new Response(await request.arrayBuffer()),
      );
      const path = await Deno.makeTempFile();
      try {
        await Deno.writeFile(path, body);
        const url = `http://[${net.gateway6}]:${server.addr.port}/`;
        // The address may still be looked at for being another's.
        let got: Uint8Array<ArrayBuffer> = new Uint8Array();
        for (let tries = 0; tries < 40 && got.length === 0; tries++) {
          const result = await namespace.command(
            "curl",
            ...["-sS", "-g", "-m", "20", "--data-binary", `@${path}`, url],
          ).output();
          got = result.stdout;
          if (!result.success) await new Promise((resolve) => setTimeout(resolve, 250));
        }
        assertEquals(got.length, body.length);
        assert(got.every((byte, i) => byte === body[i]));
      } finally {
        await server.shutdown();
        await Deno.remove(path);
      }
    }),
});

/** serve:virbr --tap in a namespace of the test's own: the host's stack is the guest. Ignored where there are no taps, not in CI. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { canTap, TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { exampleCommand } from "../examples/testing.ts";

/** Sends datagrams to a port of the host's at which nobody is, until that is refused. */
const CLOSED_PORT =
  "exec 3<>/dev/udp/192.168.122.1/9; for i in $(seq 50); do echo x >&3 || exit 7; sleep 0.1; done";

const ignore = !await canTap();

Deno.test({
  name:
    "serve:virbr --tap makes a tap, is the gateway on it, says whom it hears, and takes it away in the end",
  ignore,
  fn: async () => {
    const namespace = await TestNamespace.make();
    try {
      const server = namespace.command(
        Deno.execPath(),
        ...exampleCommand("serve_virbr", [
          ...["--json", "--host-loopback", "--tap", "tap7", "--name", "printer=10.3.2.1"],
        ]),
      ).spawn();
      // deno-lint-ignore no-explicit-any -- whatever it says
      const events: any[] = [];
      const listening = Promise.withResolvers<void>();
      const reading = (async () => {
        let rest = "";
        for await (const text of server.stdout.pipeThrough(new TextDecoderStream() as never)) {
          const lines = (rest + text).split("\n");
          rest = lines.pop()!;
          for (const line of lines) events.push(JSON.parse(line));
          listening.resolve();
        }
        listening.resolve();
      })();
      const complaints = new Response(server.stderr).text();
      await listening.promise;
      try {
        await namespace.up("tap7", "192.168.122.20");
        const text = await namespace.run("ping", "-c", "3", "-i", "0.1", "192.168.122.1");
        assertMatch(text, / 0% packet loss/);
        // Nobody is at that port of the server's namespace: the guest's stack is told.
        await namespace.run("ip", "link", "set", "lo", "up");
        const { code, stderr } = await namespace.command("bash", "-c", CLOSED_PORT).output();
        assertEquals(code, 7);
        assertMatch(new TextDecoder().decode(stderr), /Connection refused/);
      } finally {
        server.kill("SIGTERM");
      }
      assertEquals([(await server.status).code, await complaints], [0, ""]);
      await reading;
      assertEquals(events[0].gateway, "192.168.122.1");
      assert(events.some(({ event, port }) => event === "guest" && port === "tap7"));
      assertEquals(events.at(-1).ok, true);
      const links = await namespace.run("ip", "link");
      assert(!links.includes("tap7"), links);
    } finally {
      await namespace.close();
    }
  },
});

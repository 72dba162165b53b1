/**
 * A network in mode "routed": a namespace of the test's own is the guest, another one the world behind a tap. Where taps and
 * namespaces may not be made this is ignored, loudly, but not in CI.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { TapBackend } from "@virtio/net/tap";
import { Virbr, type VirbrOptions } from "@virtio/virbr";
import { canTap, TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";

for (
  const [name, tool] of [
    ["iproute2", "ip"],
    ["iputils-ping", "ping"],
    ["iperf3", "iperf3"],
  ] as const
) await installTool(tool, name);

const ignore = !await canTap() ||
  !await hasTool("iperf3", ["--version"], "the host's iperf3 through a router");

/** The guest; the world behind the uplink, and an address that is farther away. */
const GUEST = "192.168.122.5";
const WORLD = "10.9.0.1";
const FAR = "198.51.100.9";
const MIB = 2 ** 20;

/** Both, and what is between them. */
interface RoutedWorld {
  readonly net: Virbr;
  readonly guest: TestNamespace;
  readonly world: TestNamespace;
}

async function withRouter(
  mtus: { readonly guest: number; readonly uplink: number },
  options: VirbrOptions,
  run: (world: RoutedWorld) => Promise<void>,
): Promise<void> {
  const [guest, world] = [await TestNamespace.make(), await TestNamespace.make()];
  const inside = TapBackend.open({ name: "tap0", namespace: guest.path });
  const uplink = TapBackend.open({ name: "tap1", namespace: world.path });
  const net = new Virbr({
    mtu: mtus.guest,
    mode: "routed",
    uplink: { backend: uplink, address: "10.9.0.2/30", router: WORLD, mtu: mtus.uplink },
    ...options,
  });
  try {
    net.port({ name: "guest" }).plug(inside);
    await guest.run("ip", "link", "set", "tap0", "mtu", `${mtus.guest}`);
    await guest.up("tap0", GUEST);
    await guest.run("ip", "route", "add", "default", "via", net.gateway);
    await world.run("ip", "link", "set", "tap1", "mtu", `${mtus.uplink}`);
    await world.run("ip", "link", "set", "lo", "up");
    await world.run("ip", "address", "add", `${FAR}/32`, "dev", "lo");
    await world.run("ip", "address", "add", `${WORLD}/30`, "dev", "tap1");
    await world.run("ip", "link", "set", "tap1", "up");
    await world.run("ip", "route", "add", net.subnet, "via", "10.9.0.2");
    await run({ net, guest, world });
  } finally {
    await net.close();
    await inside.close();
    await uplink.close();
    await guest.close();
    await world.close();
  }
}

/** What `ping` says if all is well. */
const ALL = "0% packet loss";

/** How many of a few echoes were lost, in words. */
async function ping(from: TestNamespace, to: string, ...args: string[]): Promise<string> {
  const command = from.command("ping", "-c", "3", "-i", "0.1", "-W", "2", ...args, to);
  const { stdout, stderr } = await command.output();
  const text = new TextDecoder().decode(stdout) + new TextDecoder().decode(stderr);
  return /\d+% packet loss/.exec(text)?.[0] ?? text;
}

/** Bytes that arrived; from the world to the guest with `-R`. */
async function iperf3(
  { guest, world }: RoutedWorld,
  address: string,
  ...args: string[]
): Promise<number> {
  const server = world.command("iperf3", "-s", "-1", "--forceflush").spawn();
  const lines = server.stdout.getReader();
  await lines.read();
  const ended = (async () => {
    while (!(await lines.read()).done);
    await new Response(server.stderr).text();
    await server.status;
  })();
  try {
    const { success, stdout, stderr } = await guest.command("iperf3", "-J", "-c", address, ...args)
      .output();
    const text = new TextDecoder().decode(stdout);
    assert(success, text + new TextDecoder().decode(stderr));
    return JSON.parse(text).end.sum_received.bytes;
  } finally {
    try {
      server.kill("SIGKILL");
    } catch {
      // It has served its one client.
    }
    await ended;
  }
}

Deno.test({
  name: "guests and the world reach each other through a routed uplink, with their own addresses",
  ignore,
  fn: () =>
    withRouter({ guest: 1500, uplink: 1500 }, {}, async (all) => {
      const { net, guest, world } = all;
      // The first may be lost while neighbours are asked for.
      await ping(guest, WORLD);
      assertEquals(await ping(guest, WORLD), ALL);
      assertEquals(await ping(guest, FAR), ALL);
      assertEquals(await ping(guest, FAR, "-s", "4000"), ALL);
      assertEquals(await ping(world, GUEST), ALL);
      assertEquals(await ping(world, GUEST, "-I", FAR, "-s", "4000"), ALL);
      const trace = await guest.command("ping", "-c", "1", "-t", "1", FAR).output();
      assertMatch(new TextDecoder().decode(trace.stdout), /192\.168\.122\.1.*exceeded/);
      for (const args of [[], ["-R"], ["-P", "4"]]) {
        assert(await iperf3(all, FAR, "-n", "64M", ...args) >= 32 * MIB);
      }
      const { router, flows } = net.stats;
      assert(router!.out > 100 && router!.in > 100);
      assertEquals(flows.total, 0, "nothing is translated");
    }),
});

for (const mtus of [{ guest: 9000, uplink: 1500 }, { guest: 1500, uplink: 9000 }]) {
  const { guest: one, uplink: other } = mtus;
  Deno.test({
    name: `packets of ${one} bytes and a link of ${other}: told or cut, and TCP finds what fits`,
    ignore,
    fn: () =>
      withRouter(mtus, {}, async (all) => {
        const { guest, world } = all;
        const [from, to] = one > other ? [guest, FAR] : [world, GUEST];
        const [smaller, larger] = [Math.min(one, other), Math.max(one, other)];
        await ping(guest, WORLD);
        assertEquals(await ping(guest, FAR), ALL);
        // 28 bytes are headers.
        assertEquals(await ping(from, to, "-M", "do", "-s", `${smaller - 28}`), ALL);
        const size = ["-s", `${larger - 28}`];
        const strict = from.command("ping", "-c", "2", "-W", "2", "-M", "do", ...size, to);
        assertMatch(new TextDecoder().decode((await strict.output()).stdout), /mtu ?= ?1500/);
        await from.run("ip", "route", "flush", "cache");
        assertEquals(await ping(from, to, "-M", "dont", ...size), ALL);
        for (const args of [[], ["-R"]]) {
          assert(await iperf3(all, FAR, "-n", "32M", ...args) >= 16 * MIB);
        }
      }),
  });
}

/** The stream protocol with somebody else's program at the other end: passt, in network namespaces of the test's own. */
import { assert, assertEquals } from "@std/assert";
import { StreamBackend } from "./stream.ts";
import { Switch } from "./switch.ts";
import { TapBackend } from "./tap.ts";
import { canTap, TestNamespace, transfer } from "./tap_testing.ts";
import { hasTool, installTool } from "./tool_testing.ts";

await installTool("passt", "passt");
const ignore = !await hasTool("passt", ["--version"], "streams with passt") || !await canTap();

Deno.test({
  name: "a network stack reaches the world, and is reached, through passt",
  ignore,
  fn: async () => {
    const [world, guest] = [await TestNamespace.make(), await TestNamespace.make()];
    const folder = await Deno.makeTempDir();
    // passt takes its addresses from the interface with the default route.
    await world.run("ip", "link", "set", "lo", "up");
    await world.run("ip", "tuntap", "add", "dev", "out0", "mode", "tap");
    await world.up("out0", "198.51.100.2");
    await world.run("ip", "route", "add", "default", "via", "198.51.100.1");
    const path = `${folder}/passt`;
    const passt = world.command(
      "passt",
      ...["--foreground", "--one-off", "--ipv4-only", "--socket", path],
      ...["--tcp-ports", "7001", "--runas", "0"],
    ).spawn();
    try {
      let stream: StreamBackend | null = null;
      for (let i = 0; stream === null; i++) {
        stream = await StreamBackend.connect({ path }).catch(async (error) => {
          if (i === 200) throw error;
          await new Promise((resolve) => setTimeout(resolve, 25));
          return null;
        });
      }
      const tap = TapBackend.open({ name: "eth0", namespace: guest.path });
      const network = new Switch();
      network.port().plug(stream);
      network.port().plug(tap);
      await guest.run("ip", "link", "set", "lo", "up");
      await guest.up("eth0", "198.51.100.2");
      await guest.run("ip", "route", "add", "default", "via", "198.51.100.1");
      // The gateway's address is the loopback of the world.
      await transfer(guest, world, "198.51.100.1", 7000, 1);
      await transfer(world, guest, "127.0.0.1", 7001, 1);
      const { framesIn, bytesIn, framesOut, bytesOut, short } = stream.counters;
      assert(bytesIn > 1 << 20 && bytesOut > 1 << 20 && framesIn > 0 && framesOut > 0);
      assertEquals(short, 0);
      assert(stream.linkUp);
      await tap.close();
      await stream.close();
    } finally {
      // It ends by itself when the stream does, unless something went wrong.
      const timer = setTimeout(() => passt.kill("SIGKILL"), 3000);
      await passt.output();
      clearTimeout(timer);
      await guest.close();
      await world.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});

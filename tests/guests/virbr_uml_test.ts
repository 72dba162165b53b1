/**
 * One network, several kinds of port: a Linux in User Mode Linux on a card by vhost-user, and the host's own stack in a namespace
 * on a tap. Where there is no such Linux, or no taps, this is ignored, but not in CI.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { DeviceId } from "@virtio/device";
import { NetDevice } from "@virtio/net";
import { TapBackend } from "@virtio/net/tap";
import { Virbr } from "@virtio/virbr";
import { denoOutside } from "@virtio/virbr/outside/deno";
import { bootUml } from "../../examples/guest/uml.ts";
import { md5, randomBytes } from "../../examples/shared/bytes.ts";
import { canTap, TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { ServedDevices } from "./vhost_user_serve.ts";
import { appears, umlWorld } from "./vhost_user_work.ts";

const world = await umlWorld();
const ignore = world === null || !await canTap();
const MAC = "52:54:00:00:04:01";

const DHCP_SCRIPT = `#!/bin/sh
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
ip addr flush dev $interface scope global
ip addr add $ip/$mask dev $interface
ip route add default via $router
echo "search $search" > /etc/resolv.conf
for d in $dns; do echo "nameserver $d" >> /etc/resolv.conf; done
`;

Deno.test({
  name:
    "User Mode Linux by vhost-user and a namespace on a tap are on one network, and have one way out",
  ignore,
  async fn() {
    const page = randomBytes(4 * 2 ** 20);
    const web = Deno.serve(
      { hostname: "127.0.0.1", port: 0, onListen() {} },
      () => new Response(page),
    );
    const net = new Virbr({
      outside: { ...denoOutside(), networks: () => [] },
      hostLoopback: true,
      leases: [{ mac: MAC, address: "192.168.122.60", name: "uml" }],
      names: { station: "192.168.122.61" },
      forwards: [{ guest: "uml", guestPort: 80 }],
    });
    await net.ready;
    await using served = await ServedDevices.make();
    const device = new NetDevice({ backend: net.port({ name: "uml" }), mac: MAC });
    const socket = served.serve("net", device);
    const namespace = await TestNamespace.make();
    const tap = TapBackend.open({ name: "tap0", namespace: namespace.path });
    try {
      net.port({ name: "tap" }).plug(tap);
      await namespace.up("tap0", "192.168.122.61");
      await namespace.run("ping", "-c", "1", "-W", "5", "192.168.122.1");
      const guest = await bootUml({
        files: world!.files,
        folder: await served.guestFolder(),
        devices: [{ socket, id: DeviceId.net }],
      });
      await appears(guest, "virtio_net", "/sys/class/net/eth0");
      await guest.check(
        `mkdir -p /etc; ip link set lo up; ip link set eth0 up; cat > /dhcp.sh <<'EOF'\n${DHCP_SCRIPT}EOF\nchmod 755 /dhcp.sh`,
      );
      await guest.check(
        "udhcpc -i eth0 -n -q -t 5 -s /dhcp.sh -O search -x hostname:other >/dev/null 2>&1",
        { timeout: 60_000 },
      );
      // What it is called is not its own to say.
      assertEquals(net.leases.map(({ address, name }) => [address, name]), [
        ["192.168.122.60", "uml"],
      ]);
      const { output: ping } = await guest.run("ping -c 3 -i 0.2 -W 5 -s 8000 192.168.122.61");
      assertMatch(ping, / 0% packet loss/);
      const { output: names } = await guest.run("nslookup station.internal");
      assertMatch(names, /192\.168\.122\.61\b/);
      const url = `http://192.168.122.1:${web.addr.port}/`;
      const { output: sum } = await guest.run(`wget -q -O - ${url} | md5sum`, { timeout: 60_000 });
      assertEquals(sum.slice(0, 32), md5(page));
      const { stdout } = await namespace.command("curl", "-sS", "-m", "60", url).output();
      assertEquals(md5(stdout), md5(page));

      const made = (await guest.check(
        "mkdir -p /www && dd if=/dev/urandom of=/www/file bs=64k count=64 2>/dev/null && " +
          "httpd -h /www && md5sum /www/file",
      )).slice(0, 32);
      const near = await namespace.command("curl", "-sS", "http://192.168.122.60/file").output();
      assertEquals(md5(near.stdout), made);
      const [forward] = net.forwards;
      const far = await fetch(`http://127.0.0.1:${forward!.port}/file`);
      assertEquals(md5(new Uint8Array(await far.arrayBuffer())), made);
      await guest.shutdown();
      await served.end();
      assertEquals(served.errors, []);
      assertEquals([tap.counters.malformed, net.stats.gateway.malformed], [0, 0]);
      assert(device.stats.framesSent > 0);
    } finally {
      await net.close();
      await tap.close();
      await namespace.close();
      await web.shutdown();
    }
  },
});

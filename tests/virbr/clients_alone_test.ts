/**
 * Programs that other people wrote, in namespaces behind a network: ISC's dhclient, dhcpcd, dig, ping, iperf3 by UDP. Where taps
 * and namespaces may not be made this is ignored, loudly, but not in CI.
 */
import { assert, assertEquals, assertMatch } from "@std/assert";
import type { Virbr } from "@virtio/virbr";
import { canTap } from "../../packages/net/backends/tap_testing.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";
import {
  CARD,
  inPrivate,
  LONG_TEXT,
  serveNames,
  type Station,
  withStations,
} from "./clients_testing.ts";
import { nothingLeft } from "./nat_testing.ts";

for (
  const [tool, name] of [
    ["ip", "iproute2"],
    ["ping", "iputils-ping"],
    ["dhclient", "isc-dhcp-client"],
    ["dhcpcd", "dhcpcd-base"],
    ["dig", "bind9-dnsutils"],
    ["iperf3", "iperf3"],
  ] as const
) await installTool(tool, name);

const ignore = !await canTap() ||
  !await hasTool("dhclient", ["--version"], "dhclient behind a network") ||
  !await hasTool("dhcpcd", ["--version"], "dhcpcd behind a network") ||
  !await hasTool("dig", ["-v"], "dig behind a network") ||
  !await hasTool("iperf3", ["--version"], "iperf3 behind a network");

/** What dhclient runs: it says in the environment what it got. */
const SCRIPT = `#!/bin/sh
env | sort
case $reason in
BOUND|RENEW|REBIND)
  ip addr flush dev $interface scope global
  ip addr add $new_ip_address/24 dev $interface
  ip route replace default via $new_routers ;;
RELEASE|EXPIRE|FAIL|STOP) ip addr flush dev $interface scope global ;;
esac
exit 0
`;

async function dhclient(station: Station, folder: string, ...args: string[]): Promise<string> {
  const name = station.mac.replaceAll(":", "");
  await Deno.writeTextFile(`${folder}/script`, SCRIPT, { mode: 0o755 });
  await Deno.writeTextFile(
    `${folder}/${name}.conf`,
    `send host-name "${name}"; request subnet-mask, routers, domain-name, domain-name-servers, ` +
      "domain-search, interface-mtu, broadcast-address; timeout 20;\n",
  );
  const { code, said } = await inPrivate(
    station,
    `dhclient -4 -1 -v -sf ${folder}/script -cf ${folder}/${name}.conf -lf ${folder}/${name}.leases ` +
      `-pf ${folder}/${name}.pid ${args.join(" ")} ${CARD}`,
  );
  assertEquals(code, 0, said);
  return said;
}

/** Ends the client, which goes on in the background. */
async function stop(station: Station, folder: string): Promise<void> {
  const path = `${folder}/${station.mac.replaceAll(":", "")}.pid`;
  const pid = Number(await Deno.readTextFile(path).catch(() => ""));
  if (pid > 0) Deno.kill(pid, "SIGKILL");
}

Deno.test({
  name:
    "dhclient gets a lease and its options, gets it again, finds the other one by name, and releases",
  ignore,
  fn: () =>
    withStations(2, {}, async (net: Virbr, stations, folder) => {
      const [one, two] = stations as [Station, Station];
      try {
        const said = await dhclient(one, folder);
        for (
          const line of [
            "new_ip_address=192.168.122.2",
            "new_subnet_mask=255.255.255.0",
            "new_broadcast_address=192.168.122.255",
            "new_routers=192.168.122.1",
            "new_domain_name=internal",
            "new_domain_name_servers=192.168.122.1",
            "new_interface_mtu=1500",
            "new_dhcp_lease_time=3600",
            "new_dhcp_server_identifier=192.168.122.1",
          ]
        ) assertMatch(said, new RegExp(`^${line}$`, "m"));
        assertMatch(said, /^new_domain_search=internal\.?$/m);
        assertMatch(await dhclient(two, folder), /^new_ip_address=192\.168\.122\.3$/m);
        assertEquals(net.leases.map(({ name }) => name), ["525400000100", "525400000101"]);

        // It still knows its lease, and asks for the same.
        await stop(one, folder);
        const again = await dhclient(one, folder);
        assertMatch(again, /DHCPREQUEST for 192\.168\.122\.2/);
        assert(!/DHCPDISCOVER/.test(again), again);

        const found = await one.namespace.run(
          ...["dig", "+short", "@192.168.122.1", "525400000101.internal"] as const,
        );
        assertEquals(found.trim(), "192.168.122.3");
        const text = await one.namespace.run("ping", "-c", "3", "-i", "0.1", found.trim());
        assertMatch(text, / 0% packet loss/);
        await one.namespace.run("ping", "-c", "2", "-i", "0.1", "-s", "20000", "192.168.122.1");

        await stop(one, folder);
        await dhclient(one, folder, "-r");
        assertEquals(net.leases.map(({ address }) => address), ["192.168.122.3"]);
        const { messages, refused } = net.stats.dhcp;
        assertEquals([messages.release, messages.nak, refused], [1, 0, 0]);
      } finally {
        for (const each of stations) await stop(each, folder);
      }
    }),
});

Deno.test({
  name:
    "dhcpcd gets the address that its MAC address has, after it asked whether somebody else uses it",
  ignore,
  fn: () => {
    const leases = [{ mac: "52:54:00:00:01:00", address: "192.168.122.77", name: "printer" }];
    return withStations(1, { leases }, async (net, stations, folder) => {
      const [station] = stations as [Station];
      await Deno.writeTextFile(`${folder}/hook`, "#!/bin/sh\nenv | sort\n", { mode: 0o755 });
      await Deno.writeTextFile(
        `${folder}/conf`,
        "hostname\noption domain_name_servers, domain_name, domain_search, interface_mtu, routers\n" +
          "option rapid_commit\nrequire dhcp_server_identifier\n",
      );
      // ARP finds out whether the address is somebody else's: it is not.
      const { code, said } = await inPrivate(
        station,
        `timeout 40 dhcpcd -1 -4 -B -t 30 -f ${folder}/conf -c ${folder}/hook ${CARD}; s=$?; ` +
          `ip -4 -o addr show dev ${CARD}; exit $s`,
      );
      assertEquals(code, 0, said);
      for (
        const line of [
          "new_ip_address=192.168.122.77",
          "new_routers=192.168.122.1",
          "new_domain_name=internal",
          "new_domain_name_servers=192.168.122.1",
          "new_interface_mtu=1500",
        ]
      ) assertMatch(said, new RegExp(`^${line}$`, "m"));
      assertMatch(said, /inet 192\.168\.122\.77\/24/);
      assertEquals(net.leases.map(({ address, name }) => [address, name]), [
        ["192.168.122.77", "printer"],
      ]);
      assertEquals(net.stats.dhcp.messages.decline, 0);
      const { said: pinged } = await inPrivate(station, "ping -c 2 -i 0.1 192.168.122.1");
      assertMatch(pinged, / 0% packet loss/);
    });
  },
});

Deno.test({
  name: "dig gets names of the network and of the outside, by UDP and TCP, with EDNS and without",
  ignore,
  fn: async () => {
    const resolver = await serveNames();
    try {
      const options = { resolvers: [resolver.address], names: { printer: "192.168.122.9" } };
      await withStations(1, options, async (net, stations) => {
        const [{ namespace }] = stations as [Station];
        await namespace.run("ip", "addr", "add", "192.168.122.5/24", "dev", CARD);
        const dig = (...args: string[]): Promise<string> =>
          namespace.run("dig", "@192.168.122.1", "+tries=1", "+timeout=5", ...args);
        for (const how of [["+noedns"], ["+edns"], ["+tcp"], ["+bufsize=4096", "+nocookie"]]) {
          const short = async (...args: string[]): Promise<string> =>
            (await dig("+short", ...how, ...args)).trim();
          assertEquals(await short("gateway.internal"), "192.168.122.1");
          assertEquals(await short("PRINTER.internal"), "192.168.122.9");
          assertEquals(await short("-x", "192.168.122.9"), "printer.internal.");
          assertEquals(await short("www.example.com"), "203.0.113.7");
          assertEquals(await short("AAAA", "www.example.com"), "2001:db8::7");
          assertMatch(await dig(...how, "nobody.internal"), /status: NXDOMAIN/);
          assertMatch(await dig(...how, "nobody.example.com"), /status: NXDOMAIN/);
        }
        // It does not fit a datagram: whoever asks by UDP is told, and asks by TCP.
        const long = await dig("+short", "TXT", "long.example.com");
        assertEquals(
          [...long.matchAll(/"([^"]+)"/g)].map((match) => match[1]),
          [...LONG_TEXT],
        );
        assert(resolver.asked.tcp >= 1);
        // A name of the outside does not lead into the network.
        const trick = await dig("private.example.com");
        assert(!/192\.168\.122\.1$/m.test(trick.replace(/^;.*$/gm, "")), trick);
        assert(net.stats.dns.rebinding >= 1);
        const { malformed, failed, refused } = net.stats.dns;
        assertEquals([malformed, failed, refused], [0, 0, 0]);
        assert(/;; .*timed out/.test(await dig("www.example.com")) === false);
      });
    } finally {
      resolver.close();
    }
  },
});

/** Descriptors that this process has open. */
function descriptors(): string[] {
  const open: string[] = [];
  for (const { name } of Deno.readDirSync("/proc/self/fd")) {
    try {
      // Numbers of sockets and pipes are nobody's business.
      open.push(Deno.readLinkSync(`/proc/self/fd/${name}`).replace(/\d+/, ""));
    } catch {
      // That of the folder itself.
    }
  }
  return open.sort();
}

Deno.test({
  name:
    "what the outside said before it broke a connection off reaches the guest, and no descriptor is left",
  ignore,
  fn: () =>
    withStations(1, { hostLoopback: true }, async (net, stations) => {
      const [{ namespace }] = stations as [Station];
      await namespace.run("ip", "addr", "add", "192.168.122.5/24", "dev", CARD);
      const before = descriptors();
      const listener = Deno.listen({ hostname: "127.0.0.1", port: 0 });
      const size = 48 * 1024;
      void (async () => {
        for await (const socket of listener) {
          // What the guest said is never read: closing breaks the connection off, once its answer is on the way.
          await new Promise((resolve) => setTimeout(resolve, 5));
          for (let left = size; left > 0;) left -= await socket.write(new Uint8Array(left));
          socket.close();
        }
      })();
      const count = 50;
      const output = await namespace.run(
        Deno.execPath(),
        "eval",
        "-q",
        `const lengths = [];
        for (let i = 0; i < ${count}; i++) {
          const socket = await Deno.connect({ hostname: "192.168.122.1", port: ${listener.addr.port} });
          await socket.write(new Uint8Array(100));
          const into = new Uint8Array(65536);
          let length = 0;
          try {
            for (let got; (got = await socket.read(into)) !== null;) length += got;
          } catch {
            // Broken off, as it has to be.
          }
          lengths.push(length);
          socket.close();
        }
        // And one where nobody listens.
        await Deno.connect({ hostname: "192.168.122.1", port: 1 }).catch(() => lengths.push("refused"));
        console.log(JSON.stringify(lengths));`,
      );
      listener.close();
      assertEquals(JSON.parse(output), [...Array(count).fill(size), "refused"]);
      await nothingLeft(net);
      // What was closed is given back when the event loop has its next turns.
      for (let turn = 0; turn < 100 && descriptors().length > before.length; turn++) {
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
      assertEquals(descriptors(), before);
    }),
});

Deno.test({
  name: "two namespaces reach each other by TCP and UDP, and nothing is malformed on the way",
  ignore,
  fn: () =>
    withStations(2, {}, async (net, stations) => {
      const [one, two] = stations as [Station, Station];
      await one.namespace.run("ip", "addr", "add", "192.168.122.5/24", "dev", CARD);
      await two.namespace.run("ip", "addr", "add", "192.168.122.6/24", "dev", CARD);
      // Before it said anything, nobody knows where it is.
      for (const { namespace } of stations) {
        await namespace.run("ping", "-c", "1", "-W", "5", "192.168.122.1");
      }
      for (const args of [["-n", "64M", "-l", "128K"], ["-u", "-b", "50M", "-n", "4M"]]) {
        const server = two.namespace.command("iperf3", "-s", "-1", "--forceflush").spawn();
        const reader = server.stdout.getReader();
        try {
          await reader.read();
          const text = await one.namespace.run("iperf3", "-J", "-c", "192.168.122.6", ...args);
          const { end } = JSON.parse(text);
          const udp = args.includes("-u");
          assert((udp ? end.sum.bytes : end.sum_received.bytes) >= (udp ? 4 : 60) * 2 ** 20);
          // Some may be lost where the machine is busy, not all.
          if (udp) assert(end.sum.lost_percent < 50, text);
        } finally {
          try {
            server.kill("SIGKILL");
          } catch {
            // It has ended by itself.
          }
          await reader.cancel();
          await server.stderr.cancel();
          await server.status;
        }
      }
      assertEquals(net.stats.gateway.malformed, 0);
      for (const { stats: { drops } } of net.ports) {
        assertEquals([drops.malformed, drops.spoofed, drops.rogue], [0, 0, 0]);
      }
    }),
});

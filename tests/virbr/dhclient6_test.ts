/**
 * ISC's dhclient, which insists on an address by DHCPv6, in a namespace behind a network. Where taps and namespaces may not be
 * made this is ignored, loudly, but not in CI.
 */
import { assertEquals, assertMatch } from "@std/assert";
import { canTap } from "../../packages/net/backends/tap_testing.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";
import { CARD, inPrivate, type Station, withStations } from "./clients_testing.ts";

for (
  const [name, tool] of [
    ["iproute2", "ip"],
    ["iputils-ping", "ping"],
    ["isc-dhcp-client", "dhclient"],
  ] as const
) await installTool(tool, name);

const ignore = !await canTap() ||
  !await hasTool("dhclient", ["--version"], "dhclient for IPv6 behind a network");

/** What dhclient runs: it says in the environment what it got. */
const SCRIPT = `#!/bin/sh
env | sort
case $reason in
BOUND6|RENEW6|REBIND6) ip -6 addr add $new_ip6_address/128 dev $interface nodad ;;
RELEASE6|EXPIRE6|DEPREF6) ip -6 addr del $old_ip6_address/128 dev $interface ;;
esac
exit 0
`;

Deno.test({
  name: "dhclient gets an address by DHCPv6, reaches the gateway with it, and gives it back",
  ignore,
  fn: () =>
    withStations(1, { ipv6: "fd00:1::/64" }, async (net, stations, folder) => {
      const [station] = stations as [Station];
      await Deno.writeTextFile(`${folder}/script`, SCRIPT, { mode: 0o755 });
      const files = `-sf ${folder}/script -lf ${folder}/leases -pf ${folder}/pid`;
      // Its address on the link is asked for first: that takes a second or two.
      const ready = `while ip -6 addr show dev ${CARD} | grep -q tentative; do sleep 0.1; done`;
      const { code, said } = await inPrivate(
        station,
        `${ready}; dhclient -6 -1 -v ${files} ${CARD} || exit 1; ` +
          `ping -6 -c 2 -i 0.1 -I fd00:1::5254:0:100 ${net.gateway6}; s=$?; ` +
          `kill -9 $(cat ${folder}/pid); dhclient -6 -r -v ${files} ${CARD}; exit $s`,
      );
      assertEquals(code, 0, said);
      assertMatch(said, /^new_ip6_address=fd00:1::5254:0:100$/m);
      assertMatch(said, /^new_dhcp6_name_servers=fd00:1::1$/m);
      assertMatch(said, /^new_max_life=3600$/m);
      assertMatch(said, / 0% packet loss/);
      assertMatch(said, /RELEASE6/);
    }),
});

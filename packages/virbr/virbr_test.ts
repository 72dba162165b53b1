import { assertEquals, assertNotEquals } from "@std/assert";
import { join, text } from "./dhcp/client_testing.ts";
import { DhcpOption } from "./dhcp/message.ts";
import { TestOutside } from "./flow/nat_testing.ts";
import { TestGuest } from "./ip/guest_testing.ts";
import type { FlowInfo } from "./mod.ts";
import { Virbr } from "./virbr.ts";

/** A network with a guest that has a lease and a flow. */
function world() {
  const seen: FlowInfo[] = [];
  const net = new Virbr({
    clock: () => 0,
    outside: new TestOutside(),
    onFlow: (flow) => seen.push(flow) > 0,
  });
  const guest = new TestGuest(net.port({ name: "first" }), "52:54:00:00:00:01", net.mac);
  const { address } = join(guest, [[DhcpOption.hostName, text("alpha")]]);
  guest.ip = address;
  const to = "198.51.100.7";
  guest.send(guest.ipv4(17, to, guest.udp(4000, 53, to, new Uint8Array(4))));
  return { net, guest, seen };
}

Deno.test("guests are told as plain data, as they were at the moment", async () => {
  const { net, guest } = world();
  const expected = [{
    mac: "52:54:00:00:00:01",
    name: "alpha",
    port: "first",
    addresses: ["192.168.122.2"],
    flows: 1,
  }];
  const before = net.guests;
  assertEquals(before, expected);
  assertEquals(JSON.parse(JSON.stringify(before)), expected);
  assertEquals(structuredClone(before), expected);
  guest.port.close();
  assertEquals([before, net.guests], [expected, []]);
  await net.close();
});

Deno.test("leases, counters and what a hook of flows sees are plain data too", async () => {
  const { net, guest, seen } = world();
  for (const value of [net.leases, net.stats, seen]) {
    assertEquals(JSON.parse(JSON.stringify(value)), value);
    assertEquals(structuredClone(value), value);
  }
  assertEquals(seen[0]!.guest, net.guests[0]);
  const { stats } = net;
  const kept = structuredClone(stats);
  join(guest);
  assertEquals(stats, kept);
  assertNotEquals(net.stats, kept);
  await net.close();
});

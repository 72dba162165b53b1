import { assert, assertEquals, assertThrows } from "@std/assert";
import type { VirbrOptions } from "./options.ts";
import type { Outside } from "./outside/outside.ts";
import { settle } from "./settings.ts";
import { Virbr } from "./virbr.ts";

/** An outside whose host is in some networks. */
function hostIn(...networks: string[]): Outside {
  return { connect: () => Promise.reject(new Error("There is nobody")), networks: () => networks };
}

Deno.test("without options the network is that of libvirt", () => {
  const net = new Virbr();
  assertEquals([net.subnet, net.gateway, net.mac, net.prefix, net.gateway6, net.clash], [
    "192.168.122.0/24",
    "192.168.122.1",
    "52:54:00:a8:7a:01",
    null,
    null,
    null,
  ]);
  const { from, to, leaseTime, mtu } = settle({});
  assertEquals([from & 255, to & 255, leaseTime, mtu], [2, 254, 3600, 1500]);
});

Deno.test("a clash with the host's own networks is seen and said", () => {
  const nested = new Virbr({ outside: hostIn("10.0.0.5/8", "192.168.122.0/23", "fe80::1/64") });
  assertEquals([nested.subnet, nested.clash], ["192.168.124.0/24", "192.168.122.0/23"]);
  const options = { subnet: "10.1.0.0/24", outside: hostIn("10.0.0.5/8", "nonsense") };
  assertThrows(() => new Virbr(options), RangeError, "10.1.0.0/24 clashes with 10.0.0.0/8");
  assertEquals(new Virbr({ ...options, allowClash: true }).subnet, "10.1.0.0/24");
  assertThrows(
    () => new Virbr({ outside: hostIn("192.168.0.0/16") }),
    RangeError,
    "choose a subnet",
  );
});

Deno.test("a network of IPv6 of one's own is random", () => {
  const [one, other] = [new Virbr({ ipv6: true }), new Virbr({ ipv6: true })];
  assert(one.prefix!.startsWith("fd") && one.prefix!.endsWith("/64"));
  assert(one.prefix !== other.prefix);
});

Deno.test("options that are wrong are said", () => {
  const wrong: [VirbrOptions, typeof RangeError | typeof TypeError, string][] = [
    [{ subnet: "192.168.122.0" }, TypeError, "192.168.122.0"],
    [{ subnet: "10.0.0.0/8" }, RangeError, "subnet"],
    [{ subnet: "10.0.0.0/30" }, RangeError, "subnet"],
    [{ subnet: "fd00::/64" }, RangeError, "subnet"],
    [{ gateway: "10.0.0.1" }, RangeError, "gateway"],
    [{ gateway: "192.168.122.255" }, RangeError, "gateway"],
    [{ gateway: "x" }, TypeError, "gateway"],
    [{ pool: ["192.168.122.9", "192.168.122.8"] }, RangeError, "pool"],
    [{ mode: "bridged" as "nat" }, RangeError, "mode"],
    [{ mtu: 500 }, RangeError, "mtu"],
    [{ mtu: 1000, ipv6: true }, RangeError, "1280"],
    [{ ipv6: "fd00::/48" }, RangeError, "64 bits"],
    [{ ipv6: "fe80::/64" }, RangeError, "fe80::/64"],
    [{ leaseTime: 10 }, RangeError, "leaseTime"],
    [{ domain: "a b" }, TypeError, "domain"],
    [{ gatewayName: "a.b" }, TypeError, "gatewayName"],
    [{ names: { "a b": "1.2.3.4" } }, TypeError, "a b"],
    [{ names: { a: "1.2.3" } }, TypeError, "1.2.3"],
    [{ resolvers: ["example.com"] }, TypeError, "resolvers"],
    [{ resolvers: ["1.2.3.4:99999"] }, RangeError, "port"],
    [{ rebinding: "maybe" as "allow" }, RangeError, "rebinding"],
    [{ leases: [{ mac: "x" }] }, TypeError, "MAC"],
    [{ leases: [{ mac: "52:54:00:00:00:01", address: "192.168.122.1" }] }, RangeError, "gateway"],
    [{ leases: [{ mac: "52:54:00:00:00:01", address: "10.0.0.1" }] }, RangeError, "lease"],
    [
      { leases: [{ mac: "52:54:00:00:00:01" }, { mac: "52:54:00:00:00:01" }] },
      RangeError,
      "twice",
    ],
  ];
  for (const [options, kind, words] of wrong) {
    assertThrows(() => settle(options), kind, words, JSON.stringify(options));
  }
  assertEquals(
    settle({ resolvers: ["192.0.2.1:5353", "[2001:db8::1]:53", "2001:db8::2"] }).resolvers,
    [
      { address: "192.0.2.1", port: 5353 },
      { address: "2001:db8::1", port: 53 },
      { address: "2001:db8::2", port: 53 },
    ],
  );
});

Deno.test("a closed network takes no more ports", async () => {
  const net = new Virbr();
  const port = net.port();
  await net.close();
  assert(port.closed);
  assertThrows(() => net.port(), TypeError, "closed");
});

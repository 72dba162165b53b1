import { assertEquals } from "@std/assert";
import { isIpv4, parseAddress, Subnet } from "../ip/address.ts";
import { Policy, type PolicyOptions } from "./policy.ts";

function policy(
  options: Partial<PolicyOptions> = {},
): (address: string, version?: number) => boolean {
  const made = new Policy({
    inside: [Subnet.parse("192.168.122.0/24"), Subnet.parse("fd00::/64")],
    now: () => 0,
    ...options,
  });
  return (text, version) => {
    const address = parseAddress(text)!;
    return made.allows(address, version ?? (isIpv4(address) ? 4 : 6));
  };
}

Deno.test("an address of IPv4 is none for a packet of IPv6", () => {
  const allows = policy({ allow: ["0.0.0.0/0"] });
  assertEquals(
    [allows("203.0.113.5", 4), allows("203.0.113.5", 6), allows("2001:db8::5", 4)],
    [true, false, false],
  );
  assertEquals([allows("::7f00:1"), allows("2001:db8::5")], [false, true]);
});

Deno.test("what is denied stays so, whatever is allowed", () => {
  const allows = policy({ allow: ["203.0.113.0/24", "127.0.0.0/8"], deny: ["203.0.113.128/25"] });
  assertEquals(
    ["203.0.113.5", "203.0.113.200", "127.0.0.1", "198.51.100.1"].map((each) => allows(each)),
    [true, false, true, true],
  );
  const all = policy({ allow: ["0.0.0.0/0", "::/0"] });
  for (
    const each of [
      "0.1.2.3",
      "255.255.255.255",
      "224.0.0.1",
      "192.168.122.9",
      "ff02::1",
      "::",
      "fd00::9",
    ]
  ) {
    assertEquals(all(each), false, each);
  }
});

Deno.test("the host's networks are asked for again now and then, not for each flow", () => {
  let time = 0;
  let asked = 0;
  let own = ["198.51.100.7/24"];
  const allows = policy({
    now: () => time,
    networks: () => {
      asked++;
      return own;
    },
  });
  for (let i = 0; i < 10; i++) assertEquals(allows("198.51.100.200"), false);
  own = ["203.0.113.7/24", "fe80::1%eth0/64", "nonsense"];
  assertEquals([allows("203.0.113.200"), asked], [true, 1]);
  time = 10_000;
  assertEquals([allows("203.0.113.200"), allows("198.51.100.200"), asked], [false, true, 2]);
});

import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import {
  formatAddress,
  formatIpv4,
  ipv4,
  isGroup,
  isIpv4,
  isLinkLocal,
  isUnspecified,
  parseAddress,
  parseIpv4,
  Subnet,
} from "./address.ts";

Deno.test("addresses of IPv4 are read and written", () => {
  assertEquals(parseIpv4("192.168.122.1"), 0xc0a87a01);
  for (const text of ["1.2.3", "1.2.3.4.5", "256.1.1.1", "01.2.3.4", "1.2.3.x", ""]) {
    assertEquals(parseIpv4(text), null, text);
  }
  fc.assert(fc.property(fc.nat(0xffff_ffff), (n) => assertEquals(parseIpv4(formatIpv4(n)), n)));
});

Deno.test("addresses of IPv6 are written as RFC 5952 has it, and read back", () => {
  for (
    const [text, canonical] of [
      ["::", "::"],
      ["::1", "::1"],
      ["2001:DB8:0:0:1:0:0:1", "2001:db8::1:0:0:1"],
      ["2001:db8:0:1:1:1:1:1", "2001:db8:0:1:1:1:1:1"],
      ["fe80:0:0:0:0:0:0:0", "fe80::"],
      ["::ffff:1.2.3.4", "1.2.3.4"],
      ["64:ff9b::1.2.3.4", "64:ff9b::102:304"],
    ] as const
  ) assertEquals(formatAddress(parseAddress(text)!), canonical);
  for (const text of ["1::2::3", "1:2:3:4:5:6:7", "1:2:3:4:5:6:7:8:9", "12345::", ":::", "1.2::"]) {
    assertEquals(parseAddress(text), null, text);
  }
  fc.assert(fc.property(fc.uint32Array({ minLength: 4, maxLength: 4 }), (words) => {
    assertEquals(parseAddress(formatAddress(words)), words);
  }));
});

Deno.test("a subnet knows its own", () => {
  const subnet = Subnet.parse("192.168.122.77/24");
  assertEquals(`${subnet}`, "192.168.122.0/24");
  assertEquals(formatIpv4(subnet.broadcast), "192.168.122.255");
  assertEquals(formatIpv4(subnet.mask), "255.255.255.0");
  assert(subnet.contains(ipv4(parseIpv4("192.168.122.255")!)));
  assert(!subnet.contains(ipv4(parseIpv4("192.168.123.0")!)));
  assert(!subnet.contains(parseAddress("::c0a8:7a01")!));
  assert(Subnet.parse("0.0.0.0/0").overlaps(subnet) && subnet.overlaps(Subnet.parse("0.0.0.0/0")));
  assert(!subnet.overlaps(Subnet.parse("192.168.123.0/24")));
  const six = Subnet.parse("fd00:1::5/64");
  assertEquals(`${six}`, "fd00:1::/64");
  assert(six.contains(parseAddress("fd00:1::ffff:1")!));
  assert(!six.contains(parseAddress("fd00:1:0:1::1")!));
  for (const text of ["1.2.3.4", "1.2.3.4/", "1.2.3.4/8/8", "x/8"]) {
    assertThrows(() => Subnet.parse(text), TypeError);
  }
  assertThrows(() => Subnet.parse("1.2.3.4/33"), RangeError);
});

Deno.test("kinds of addresses are told apart", () => {
  const of = (text: string) => parseAddress(text)!;
  assert(isIpv4(of("1.2.3.4")) && !isIpv4(of("::1.2.3.4")));
  assert(isGroup(of("224.0.0.1")) && isGroup(of("255.255.255.255")) && isGroup(of("ff02::1")));
  assert(!isGroup(of("10.0.0.1")) && !isGroup(of("fe80::1")));
  assert(isUnspecified(of("0.0.0.0")) && isUnspecified(of("::")) && !isUnspecified(of("::1")));
  assert(isLinkLocal(of("fe80::1")) && !isLinkLocal(of("fd00::1")));
});

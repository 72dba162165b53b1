import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import { TestGuest } from "../ip/guest_testing.ts";
import { changeMac, cycling, join, mac, reboot, renew, send, world } from "./client_testing.ts";
import type { Lease } from "./leases.ts";
import { DhcpOption, DhcpType } from "./message.ts";

const { type, requestedAddress, serverId } = DhcpOption;

Deno.test("a guest that changes its MAC address again and again has the leases of one port, and others get theirs", () => {
  changeMac(1000);
});

Deno.test("what a guest declines is lost for a while, but not more than a few of a port", () => {
  const { net, client } = world({ pool: ["192.168.122.2", "192.168.122.21"] });
  const as = cycling(net.port({ name: "hostile" }), net.mac);
  for (let i = 0; i < 100; i++) {
    const guest = as(i);
    const [offer] = send(guest, [[type, [DhcpType.discover]]]);
    send(guest, [
      [type, [DhcpType.decline]],
      [requestedAddress, offer!.address.split(".").map(Number)],
      [serverId, [192, 168, 122, 1]],
    ]);
  }
  assertEquals(Array.from({ length: 8 }, () => join(client()).type), new Array(8).fill(5));
});

Deno.test("a port with its share of leases gets what it used last: what was not taken, what is over, who is gone", () => {
  const { net, client, pass } = world();
  assertThrows(() => net.port({ maxLeases: 0 }), RangeError, "maxLeases");
  const port = net.port({ name: "many", maxLeases: 3, maxStations: 16 });
  const guest = (number: number) => new TestGuest(port, mac(number), net.mac);
  const ends = () => net.leases.map(({ mac }) => Number(mac.slice(-2))).sort();
  send(guest(1), [[type, [DhcpType.discover]]]);
  join(guest(2));
  pass(10);
  join(guest(3));
  assertEquals(ends(), [2, 3]);
  assertEquals(join(guest(4)).address, "192.168.122.2", "it was offered only");
  assertEquals(ends(), [2, 3, 4]);
  assertEquals(send(guest(5), [[type, [DhcpType.discover]]]), [], "all are in use");
  assertEquals(reboot(guest(5), "192.168.122.99"), DhcpType.nak);
  assertEquals(net.stats.dhcp.exhausted, 2);
  assertEquals(renew(guest(3), "192.168.122.4"), DhcpType.ack, "who has one keeps it");
  join(client("52:54:00:00:00:77"));
  pass(3595);
  renew(guest(3), "192.168.122.4");
  pass(6);
  assertEquals(join(guest(6)).address, "192.168.122.3", "that lease is over");
  assertEquals(ends(), [3, 6]);
  port.up = false;
  port.up = true;
  pass(1);
  join(guest(7));
  assertEquals(ends(), [3, 6, 7], "what is over goes first");
  join(guest(8));
  assertEquals(ends(), [6, 7, 8], "then who is gone");
  join(guest(9));
  assertEquals(send(guest(10), [[type, [DhcpType.discover]]]), []);
  assertEquals(ends(), [7, 8, 9]);
});

Deno.test("leases of one's own count for no port, and those of before a restart for none until they are heard", async () => {
  let kept: readonly Lease[] = [];
  const store = { load: () => kept, save: (leases: readonly Lease[]) => void (kept = leases) };
  const leases = [1, 2, 3].map((i) => ({ mac: mac(i), address: `192.168.122.20${i}` }));
  const first = world({ store, leases });
  const port = first.net.port({ maxLeases: 2 });
  const old = [1, 2, 3, 4, 5].map((i) => join(new TestGuest(port, mac(i), first.net.mac)).address);
  assertEquals(old.slice(0, 3), leases.map(({ address }) => address));
  assertEquals(send(new TestGuest(port, mac(6), first.net.mac), [[type, [1]]]), []);
  await first.net.close();
  assertEquals(kept.length, 5);
  const second = world({ store, leases });
  const again = second.net.port({ maxLeases: 2 });
  const guest = (number: number) => new TestGuest(again, mac(number), second.net.mac);
  // Two others come first: those who had leases are none of the port's yet.
  join(guest(7));
  assertEquals(renew(guest(4), old[3]!), DhcpType.ack);
  assertEquals(send(guest(8), [[type, [1]]]), [], "now it is one");
  assertEquals(reboot(guest(5), old[4]!), DhcpType.nak);
  assertEquals(renew(guest(1), old[0]!), DhcpType.ack);
  await second.net.close();
});

Deno.test("a station that moves to another port takes its lease along, and its place", () => {
  const { net } = world();
  const [a, b] = [net.port({ maxLeases: 1 }), net.port({ maxLeases: 1 })];
  const { address } = join(new TestGuest(a, mac(1), net.mac));
  assertEquals(send(new TestGuest(a, mac(2), net.mac), [[type, [1]]]), []);
  a.up = false;
  a.up = true;
  assertEquals(renew(new TestGuest(b, mac(1), net.mac), address), DhcpType.ack);
  join(new TestGuest(a, mac(2), net.mac));
  assertEquals(send(new TestGuest(b, mac(3), net.mac), [[type, [1]]]), []);
  assertEquals(net.leases.length, 2);
});

Deno.test("a store that has its leases at once, and one that has none to give", async () => {
  const lease = { mac: mac(1), address: "192.168.122.7", name: "alpha", expires: Date.now() + 9e5 };
  const { net } = world({ store: { load: () => [lease], save() {} } });
  assertEquals(net.leases.map(({ address, name }) => [address, name]), [[lease.address, "alpha"]]);
  await net.close();
  const told: unknown[] = [];
  const error = new Error("The disk is gone");
  const broken = world({
    onError: (one) => told.push(one),
    store: {
      load() {
        throw error;
      },
      save() {},
    },
  });
  await assertRejects(() => broken.net.ready, Error, "The disk is gone");
  assertEquals(told, [error]);
  join(broken.client());
  await broken.net.close();
});

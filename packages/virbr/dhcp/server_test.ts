import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { encodeName } from "../dns/names.ts";
import { parseIpv4 } from "../ip/address.ts";
import { TestGuest } from "../ip/guest_testing.ts";
import {
  BROADCAST,
  ip,
  join,
  message,
  reboot,
  renew,
  send,
  text,
  world,
} from "./client_testing.ts";
import type { Lease } from "./leases.ts";
import { DhcpOption, DhcpType } from "./message.ts";

const { type, requestedAddress, serverId, parameters, clientId, hostName } = DhcpOption;

Deno.test("a client is told everything that it asks for", () => {
  const { client, net } = world({ search: ["example.org"], mtu: 9000 });
  const ack = join(client(), [
    [parameters, [1, 3, 6, 12, 15, 26, 28, 51, 119]],
    [hostName, text("Alpha.somewhere")],
    [clientId, [1, 2, 3, 4, 5, 6, 7]],
  ]);
  const get = (option: number) => [...ack.options.get(option) ?? []];
  assertEquals(ack.address, "192.168.122.2");
  assertEquals(get(DhcpOption.subnetMask), [255, 255, 255, 0]);
  assertEquals(get(DhcpOption.router), [192, 168, 122, 1]);
  assertEquals(get(DhcpOption.resolver), [192, 168, 122, 1]);
  assertEquals(get(DhcpOption.broadcast), [192, 168, 122, 255]);
  assertEquals(get(DhcpOption.interfaceMtu), [0x23, 0x28]);
  assertEquals(get(DhcpOption.leaseTime), [0, 0, 0x0e, 0x10]);
  assertEquals(get(DhcpOption.renewal), [0, 0, 0x07, 0x08]);
  assertEquals(get(DhcpOption.rebinding), [0, 0, 0x0c, 0x4e]);
  assertEquals(get(DhcpOption.domainName), text("internal"));
  assertEquals(get(DhcpOption.hostName), text("alpha"));
  assertEquals(get(DhcpOption.search), [...encodeName("internal"), ...encodeName("example.org")]);
  assertEquals(get(clientId), [1, 2, 3, 4, 5, 6, 7]);
  assertEquals(net.leases.map(({ name }) => name), ["alpha"]);
});

Deno.test("boot files are told, in the fields and as options", () => {
  const { client } = world({ boot: { file: "boot.ipxe", server: "192.168.122.9" } });
  const ack = join(client(), [[parameters, [66, 67]]]);
  assertEquals(ack.nextServer, parseIpv4("192.168.122.9"));
  assertEquals(ack.file, "boot.ipxe");
  assertEquals([...ack.options.get(DhcpOption.bootFile)!], text("boot.ipxe"));
  assertEquals([...ack.options.get(DhcpOption.tftpServer)!], text("192.168.122.9"));
});

Deno.test("each client has its own address, and finds it again", () => {
  const { client, net, pass } = world({ pool: ["192.168.122.2", "192.168.122.4"] });
  const [a, b, c, d] = [client(), client(), client(), client()];
  assertEquals([a, b, c].map((each) => join(each).address), [
    "192.168.122.2",
    "192.168.122.3",
    "192.168.122.4",
  ]);
  assertEquals(send(d, [[type, [DhcpType.discover]]]), []);
  assertEquals(net.stats.dhcp.exhausted, 1);
  assertEquals(join(b).address, "192.168.122.3");
  pass(1800);
  assertEquals(renew(a, "192.168.122.2"), DhcpType.ack);
  pass(1801);
  assertEquals(net.leases.map(({ address }) => address), ["192.168.122.2"]);
  // Those whose leases are over find them as long as nobody needed the addresses.
  assertEquals(reboot(c, "192.168.122.4"), DhcpType.ack);
  assertEquals(join(d).address, "192.168.122.3");
  assertEquals(renew(b, "192.168.122.3"), undefined, "the guard does not let it say so");
  assertEquals(reboot(b, "192.168.122.3"), DhcpType.nak);
});

Deno.test("the server refuses what is wrong, and answers for addresses that it could have given", () => {
  const { client } = world();
  const a = client();
  assertEquals(reboot(a, "10.0.0.5"), DhcpType.nak);
  assertEquals(reboot(a, "192.168.122.1"), DhcpType.nak);
  assertEquals(reboot(a, "192.168.122.255"), DhcpType.nak);
  assertEquals(reboot(a, "192.168.122.50"), DhcpType.ack);
  const b = client();
  assertEquals(reboot(b, "192.168.122.50"), DhcpType.nak);
  const request = (address: string, server: string) =>
    send(b, [
      [type, [DhcpType.request]],
      [requestedAddress, ip(address)],
      [serverId, ip(server)],
    ])[0]?.type;
  assertEquals(request("192.168.122.60", "192.168.122.1"), DhcpType.nak, "nothing was offered");
  assertEquals(request("192.168.122.60", "192.168.122.2"), undefined, "another server's");
});

Deno.test("release, decline and inform", () => {
  const { client, net } = world();
  const a = client();
  const { address } = join(a, [[hostName, text("alpha")]]);
  const inform = send(a, [[type, [DhcpType.inform]]], address);
  assertEquals([inform[0]!.type, inform[0]!.address], [DhcpType.ack, "0.0.0.0"]);
  assertEquals(inform[0]!.options.has(DhcpOption.leaseTime), false);
  assertEquals(send(a, [[type, [DhcpType.release]], [serverId, ip("192.168.122.1")]], address), []);
  assertEquals(net.leases, []);
  assertEquals(net.guests[0]!.addresses, []);
  assertEquals(join(a).address, address);
  assertEquals(
    send(a, [[type, [DhcpType.decline]], [requestedAddress, ip(address)], [
      serverId,
      ip("192.168.122.1"),
    ]]),
    [],
  );
  assertEquals(net.leases, []);
  assert(join(a).address !== address, "it is not given for a while");
});

Deno.test("what is given back to another server, or declined to it, stays as it is", () => {
  const { client, net } = world();
  const a = client();
  const { address } = join(a);
  const other = ip("192.168.122.9");
  send(a, [[type, [DhcpType.release]], [serverId, other]], address);
  send(a, [[type, [DhcpType.decline]], [requestedAddress, ip(address)], [serverId, other]]);
  assertEquals(net.leases.map((lease) => lease.address), [address]);
  assertEquals(net.guests[0]!.addresses, [address]);
});

Deno.test("leases of one's own, and names that are another's", () => {
  const { client, net } = world({
    leases: [
      { mac: "52:54:00:AA:00:01", address: "192.168.122.2", name: "Fixed" },
      { mac: "52:54:00:aa:00:02", name: "named" },
    ],
  });
  assertEquals(join(client()).address, "192.168.122.3", "what is somebody's own is not given");
  const fixed = client("52:54:00:aa:00:01");
  const [offer] = send(fixed, [
    [type, [DhcpType.discover]],
    [requestedAddress, ip("192.168.122.99")],
  ]);
  assertEquals(offer!.address, "192.168.122.2");
  join(fixed);
  for (const name of ["fixed", "named", "gateway", "localhost", "a b", "-x", "x".repeat(64)]) {
    join(client(), [[hostName, text(name)]]);
  }
  const { address } = join(client(), [[hostName, text("twice")]]);
  join(client(), [[hostName, text("TWICE")]]);
  assertEquals(net.leases.find(({ name }) => name === "twice")!.address, address);
  const names = net.leases.map(({ name }) => name).filter((name) => name !== "");
  assertEquals(names, ["fixed", "twice"]);
});

Deno.test("a guest cannot speak for another, nor drain the pool with made-up addresses", () => {
  const { client, net } = world();
  const a = client();
  const forged = message(a, [[type, [DhcpType.discover]]]);
  forged[33] = 0x77;
  a.send(a.ipv4(17, BROADCAST, a.udp(68, 67, BROADCAST, forged)));
  assertEquals(a.packets(), []);
  assertEquals(net.stats.dhcp.refused, 1);
  for (let i = 0; i < 100; i++) {
    const one = new TestGuest(a.port, `02:00:00:00:02:${i.toString(16).padStart(2, "0")}`, net.mac);
    send(one, [[type, [DhcpType.discover]]]);
  }
  assert(net.guests.length <= 8);
  assert(net.stats.dhcp.messages.offer <= 8);
});

Deno.test("leases survive a restart", async () => {
  let kept: readonly Lease[] = [];
  const store = {
    load: () => Promise.resolve(structuredClone(kept)),
    save: (leases: readonly Lease[]) => {
      kept = structuredClone(leases);
    },
  };
  const first = world({ store });
  await first.net.ready;
  const { address } = join(first.client(), [[hostName, text("alpha")]]);
  await first.net.close();
  assertEquals(kept.map(({ address, name }) => [address, name]), [[address, "alpha"]]);
  const second = world({ store });
  const guest = second.client();
  assertEquals(send(guest, [[type, [DhcpType.discover]]]), [], "not before they are known");
  await second.net.ready;
  assertEquals(second.net.leases.map(({ name }) => name), ["alpha"]);
  assertEquals(renew(guest, address), DhcpType.ack);
  await second.net.close();
  // The clock was set back by years: the lease ends all the same.
  kept = kept.map((lease) => ({ ...lease, expires: lease.expires + 1e12 }));
  const later = world({ store });
  await later.net.ready;
  assertEquals(later.net.leases.length, 1);
  later.pass(3601);
  assertEquals(later.net.leases, []);
  await later.net.close();
  // What does not fit any more is left out.
  const third = world({ store, subnet: "10.1.0.0/24" });
  await third.net.ready;
  assertEquals(third.net.leases, []);
  await third.net.close();
});

Deno.test("no two clients ever have one address, whatever they say", () => {
  fc.assert(
    fc.property(
      fc.array(
        fc.record({
          guest: fc.nat(3),
          type: fc.constantFrom(1, 3, 3, 3, 4, 7),
          address: fc.constantFrom(0, 2, 3, 4, 5),
          requested: fc.constantFrom(0, 2, 3, 4, 5),
          server: fc.boolean(),
          wait: fc.constantFrom(0, 0, 0, 30, 4000),
        }),
        { maxLength: 30 },
      ),
      (steps) => {
        const { client, net, pass } = world({ pool: ["192.168.122.2", "192.168.122.4"] });
        const guests = [client(), client(), client(), client()];
        const owners = new Map<string, TestGuest>();
        for (const step of steps) {
          pass(step.wait);
          const guest = guests[step.guest]!;
          const options: [number, number[]][] = [[type, [step.type]]];
          if (step.requested > 0) {
            options.push([requestedAddress, [192, 168, 122, step.requested]]);
          }
          if (step.server) options.push([serverId, ip("192.168.122.1")]);
          const from = step.address === 0 ? "0.0.0.0" : `192.168.122.${step.address}`;
          for (const answer of send(guest, options, from)) {
            if (answer.type === DhcpType.ack) owners.set(answer.address, guest);
          }
          const { leases } = net;
          assertEquals(new Set(leases.map(({ address }) => address)).size, leases.length);
          for (const { address, mac } of leases) {
            assertEquals(
              owners.get(address)!.mac,
              Uint8Array.from(mac.split(":"), (b) => parseInt(b, 16)),
            );
          }
        }
      },
    ),
    { numRuns: 200 },
  );
});

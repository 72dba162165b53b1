/** A stock Linux, and iPXE, on our network: DHCP, names, pings. */
import { assert, assertEquals, assertMatch } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { NetDevice } from "@virtio/net";
import {
  type DatagramOptions,
  type Outside,
  OutsideError,
  type OutsideSocket,
  Virbr,
  type VirbrOptions,
  type VirbrPort,
} from "@virtio/virbr";
import { V86Machine } from "@virtio/v86";
import type { Guest } from "../../examples/guest/guest.ts";
import { firmwareFiles, guestFiles, ipxeFile, restoreGuest } from "../../examples/guest/testing.ts";
import { buildGrubDisk } from "../../examples/guest/grub.ts";
import { attach } from "../../examples/shared/seat.ts";
import { drive, SEATS } from "./seats.ts";

const ignore = await guestFiles() === null;

/** What udhcpc runs: it says in the environment what it got. */
const SCRIPT = `#!/bin/sh
echo "$1" >> /udhcpc.log
[ "$1" = bound ] || [ "$1" = renew ] || exit 0
env > /udhcpc.env
ip addr flush dev $interface scope global
ip addr add $ip/$mask dev $interface
[ -n "$router" ] && ip route add default via $router
echo "search $search" > /etc/resolv.conf
for d in $dns; do echo "nameserver $d" >> /etc/resolv.conf; done
`;

interface Booted {
  readonly guest: Guest;
  readonly port: VirbrPort;
  readonly errors: readonly unknown[];
}

/** A Linux with a card on the network, which runs no DHCP client yet. */
async function boot(net: Virbr, mac: string, name: string): Promise<Booted> {
  const [, seat] = SEATS[0]!;
  const guest = await restoreGuest();
  try {
    const port = net.port({ name });
    const { errors } = attach(guest.machine, seat, new NetDevice({ backend: port, mac }));
    await drive(guest, seat, "virtio_net", "/sys/class/net/eth0");
    await guest.check(`mkdir -p /etc; ip link set lo up; ip link set eth0 up`);
    await guest.check(`cat > /udhcpc.sh <<'EOF'\n${SCRIPT}EOF\nchmod 755 /udhcpc.sh`);
    return { guest, port, errors };
  } catch (error) {
    await guest.destroy();
    throw error;
  }
}

async function lease(guest: Guest, name: string, more = ""): Promise<void> {
  await guest.check(
    `udhcpc -i eth0 -n -q -t 5 -s /udhcpc.sh -x hostname:${name} -O search -O mtu ${more}`,
    { timeout: 60_000 },
  );
}

/** An outside with nothing but a resolver, which knows one name. */
class OneName implements Outside {
  asked = 0;

  connect(): Promise<never> {
    return Promise.reject(new OutsideError("refused", "There is nobody"));
  }

  resolvers(): Promise<string[]> {
    return Promise.resolve(["192.0.2.53"]);
  }

  datagrams({ receive }: DatagramOptions): Promise<OutsideSocket> {
    return Promise.resolve({
      address: "192.0.2.1",
      port: 40_000,
      send: (message, address, port) => {
        this.asked++;
        const isA = message[message.length - 3] === 1;
        const answer = new Uint8Array(message.length + (isA ? 16 : 0));
        answer.set(message);
        answer[2]! |= 0x80;
        if (isA) {
          answer[7] = 1;
          answer.set([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4, 203, 0, 113, 7], message.length);
        }
        receive(answer, { address, port });
      },
      close: () => {},
    });
  }
}

async function withNet(options: VirbrOptions, run: (net: Virbr) => Promise<void>): Promise<void> {
  const net = new Virbr(options);
  try {
    await run(net);
  } finally {
    await net.close();
  }
}

Deno.test({
  name:
    "Linux gets an address, pings the gateway, and resolves names of the network and the outside",
  ignore,
  fn: async () => {
    const outside = new OneName();
    await withNet({ outside }, async (net) => {
      const { guest, port, errors } = await boot(net, "52:54:00:00:00:01", "first");
      try {
        await lease(guest, "alpha");
        const [mine] = net.leases;
        assertEquals([mine!.address, mine!.name, mine!.mac], [
          "192.168.122.2",
          "alpha",
          "52:54:00:00:00:01",
        ]);
        const environment = await guest.check("cat /udhcpc.env");
        for (
          const line of [
            "ip=192.168.122.2",
            "mask=24",
            "router=192.168.122.1",
            "dns=192.168.122.1",
            "domain=internal",
            "search=internal",
            "mtu=1500",
            "broadcast=192.168.122.255",
            "serverid=192.168.122.1",
            "lease=3600",
          ]
        ) assertMatch(environment, new RegExp(`^${line}$`, "m"));
        // In one piece, and in fragments both ways.
        for (const size of [56, 1472, 1473, 8000]) {
          const { output } = await guest.run(`ping -c 2 -W 5 -s ${size} 192.168.122.1`);
          assertMatch(output, / 0% packet loss/, output);
        }
        for (
          const [question, answer] of [
            ["gateway", /192\.168\.122\.1\b/],
            ["gateway.internal", /192\.168\.122\.1\b/],
            ["alpha.internal", /192\.168\.122\.2\b/],
            ["192.168.122.2", /alpha\.internal/],
            ["www.example.com", /203\.0\.113\.7/],
          ] as const
        ) {
          const { output } = await guest.run(`nslookup ${question} 192.168.122.1`);
          assertMatch(output.replace(/^Address:.*53$/m, ""), answer, output);
        }
        const { output: unknown } = await guest.run("nslookup nobody.internal 192.168.122.1");
        assertMatch(unknown, /NXDOMAIN/);
        // By TCP too: a question for gateway.internal, with its length before it.
        const { output: tcp } = await guest.run(
          "printf '\\000\\042\\001\\002\\001\\000\\000\\001\\000\\000\\000\\000\\000\\000\\007gateway" +
            "\\010internal\\000\\000\\001\\000\\001' | nc -w 5 192.168.122.1 53 | hexdump -v -e '/1 \"%02x \"'",
        );
        assertMatch(tcp, /01 02 85 80 00 01 00 01/, tcp);
        assertMatch(tcp, /c0 a8 7a 01 $/, tcp);
        assert(outside.asked >= 1);
        const { gateway, dns } = net.stats;
        assertEquals([gateway.malformed, gateway.checksum, dns.malformed], [0, 0, 0]);
        assertEquals(port.stats.drops.spoofed + port.stats.drops.malformed, 0);
        assertEquals(errors, []);
      } finally {
        await guest.destroy();
      }
    });
  },
});

Deno.test({
  name: "Linux makes an address of our prefix, reaches nobody by another's, and releases its lease",
  ignore,
  fn: async () => {
    await withNet({ claims: false, ipv6: "fd00:1::/64" }, async (net) => {
      const { guest, port } = await boot(net, "52:54:00:00:00:02", "second");
      try {
        await lease(guest, "beta", "-r 192.168.122.77");
        assertEquals(net.leases[0]!.address, "192.168.122.77");
        assertEquals((await guest.run("ping -c 1 -W 2 192.168.122.1")).status, 0);
        const mine = "fd00:1::5054:ff:fe00:2";
        await guest.check(
          `for i in $(seq 50); do ip -6 addr show dev eth0 | grep ${mine} | grep -vq tentative && exit 0; usleep 100000; done; exit 1`,
        );
        assertMatch(await guest.check("ip -6 route"), /^default via fe80::1 dev eth0/m);
        for (const size of [56, 4000]) {
          const { output } = await guest.run(`ping -6 -c 2 -W 5 -s ${size} fd00:1::1`);
          assertMatch(output, / 0% packet loss/, output);
        }
        const { output: named } = await guest.run("nslookup beta.internal fd00:1::1");
        assert(named.includes("192.168.122.77") && named.includes(mine), named);
        await guest.check("ip addr add 192.168.122.99/24 dev eth0");
        const before = port.stats.drops.spoofed;
        const { status } = await guest.run("ping -c 1 -W 2 -I 192.168.122.99 192.168.122.1");
        assert(status !== 0);
        assert(port.stats.drops.spoofed > before);
        // Once more, in the background, and back.
        await guest.check(
          "udhcpc -i eth0 -p /udhcpc.pid -b -R -s /udhcpc.sh && sleep 1 && kill -USR1 $(cat /udhcpc.pid) && sleep 2",
          { timeout: 60_000 },
        );
        assertEquals(net.stats.dhcp.messages.nak, 0);
        await guest.check("kill -USR2 $(cat /udhcpc.pid) && sleep 1; kill $(cat /udhcpc.pid)");
        assertEquals(net.leases, []);
        assertEquals(net.stats.dhcp.messages.release, 1);
      } finally {
        await guest.destroy();
      }
    });
  },
});

const firmware = await firmwareFiles();
const ipxe = await ipxeFile();

Deno.test({
  name: "iPXE gets an address from us, and asks at the address that we name for what to boot",
  ignore: firmware === null || ipxe === null,
  fn: async () => {
    const asked = Promise.withResolvers<string>();
    const outside: Outside = {
      connect: (address, port) => {
        asked.resolve(`${address} ${port}`);
        return Promise.reject(new OutsideError("refused", "There is nobody"));
      },
    };
    const boot = { file: "http://198.51.100.80/boot.ipxe" };
    await withNet({ outside, boot }, async (net) => {
      const machine = await V86Machine.create({
        firmware: { bios: firmware!.bios, vgaBios: firmware!.vgaBios },
        onStopped: (reason) => asked.reject(new Error(`The machine stopped: ${reason}`)),
      });
      const timer = setTimeout(
        () => asked.reject(new Error(`iPXE got no further than ${JSON.stringify(net.stats)}`)),
        180_000,
      );
      try {
        const [, seat] = SEATS.find(([, { transport, ring }]) =>
          transport === "pci" && ring === "split"
        )!;
        const image = buildGrubDisk({
          grub: firmware!.grub,
          kernel: ipxe!,
          commandLine: "",
          realMode: true,
        });
        attach(machine, seat, new BlkDevice({ backend: new MemoryBackend(image) }));
        const mac = "52:54:00:00:00:09";
        const card = new NetDevice({ backend: net.port({ name: "ipxe" }), mac });
        attach(machine, seat, card, 1);
        machine.run();
        assertEquals(await asked.promise, "198.51.100.80 80");
        assertEquals(net.leases.map(({ mac, address }) => [mac, address]), [
          [mac, "192.168.122.2"],
        ]);
        assertEquals(net.stats.dhcp.messages.nak, 0);
      } finally {
        clearTimeout(timer);
        await machine.destroy();
      }
    });
  },
});

/** What a stock Linux can ask of our network card: VLANs, link, addresses, filters, offloads, a second pair of queues. */
import { assert, assertEquals } from "@std/assert";
import { Frame } from "@virtio/net";
import { openPcapng } from "@virtio/net/pcapng";
import type { SwitchPort } from "@virtio/net/switch";
import { ethtoolFiles, guestFiles } from "../../examples/guest/testing.ts";
import { fetchHttp, serveHttp } from "../../examples/net/host/http.ts";
import { randomBytes } from "../../examples/shared/bytes.ts";
import {
  addStation,
  GUEST_IP,
  GUEST_MAC,
  installEthtool,
  type NetWorld,
  netWorld,
  pings,
} from "./net_world.ts";
import { SEATS } from "./seats.ts";
import { hasTshark, tshark } from "./tshark.ts";

const MIB = 2 ** 20;
const HOST_IP = "10.0.0.254";
const ignore = await guestFiles() === null || await ethtoolFiles() === null || !hasTshark;

// Each transport and each ring format once: the device behind them is the same.
const seats = [SEATS[0]!, SEATS[3]!];

/** Runs a shell condition in the guest until it holds. */
async function until({ guest }: NetWorld, condition: string): Promise<void> {
  await guest.check(
    `for i in $(seq 50); do ${condition} && exit 0; usleep 100000; done; ip addr; exit 1`,
  );
}

/** Sends a frame of no protocol to an address. */
function sendTo(port: SwitchPort, to: string): void {
  const frame = new Frame().fromBytes(new Uint8Array(60));
  const mac = (text: string): number[] => text.split(":").map((byte) => parseInt(byte, 16));
  frame.buffer.set([...mac(to), ...mac("02:00:00:00:00:77"), 0x88, 0xb5]);
  port.send(frame);
}

for (const [name, seat] of seats) {
  Deno.test({
    name: `Linux sees the link go down and up, and changes its address, ${name}`,
    ignore,
    fn: async () => {
      await using world = await netWorld(seat);
      const { guest, device, network } = world;
      addStation(world, HOST_IP);
      assert(await pings(guest, HOST_IP));
      device.setLink(false);
      await until(world, "[ $(cat /sys/class/net/eth0/carrier) = 0 ]");
      assert(!await pings(guest, HOST_IP, 56, 1));
      device.setLink(true);
      await until(world, "[ $(cat /sys/class/net/eth0/carrier) = 1 ]");
      assert(await pings(guest, HOST_IP));

      const mac = "02:aa:bb:cc:dd:ee";
      await guest.check(`ip link set eth0 address ${mac}`);
      assert(await pings(guest, HOST_IP));
      assertEquals(device.mac, new Uint8Array([2, 0xaa, 0xbb, 0xcc, 0xdd, 0xee]));
      const stations = [...network.stations()].filter(({ port }) => port.name === "guest");
      assert(stations.some((station) => station.mac === mac));
      const before = device.stats.filtered;
      sendTo(network.port(), GUEST_MAC);
      assertEquals(device.stats.filtered, before + 1, "its old address is not its any more");
    },
  });

  Deno.test({
    name: `Linux has VLANs, and gets no others, ${name}`,
    ignore,
    fn: async () => {
      await using world = await netWorld(seat, { port: { trunk: { vlans: [5, 6], native: 0 } } });
      const { guest, device } = world;
      addStation(world, HOST_IP);
      const five = addStation(world, "10.5.0.254", { port: { vlan: 5 } });
      const six = addStation(world, "10.6.0.254", { port: { vlan: 6 } });
      await guest.check(
        "ip link add link eth0 name eth0.5 type vlan id 5; " +
          "ip addr add 10.5.0.1/24 dev eth0.5; ip link set eth0.5 up",
      );
      assert(await pings(guest, "10.5.0.254", 1400));
      assert(await pings(guest, HOST_IP, 1400));
      assert(await five.ping("10.5.0.1") !== null);
      // Tagged TCP, segmented by whoever has to.
      serveHttp(five, new Map([["/file", randomBytes(MIB)]]));
      const size = await guest.check("wget -q -O - http://10.5.0.254/file | wc -c");
      assertEquals(Number(size), MIB);
      const before = device.stats.filtered;
      await six.ping("10.6.0.1", 56, 100).catch(() => {});
      assert(device.stats.filtered > before, "VLAN 6 is filtered");
      await guest.check("vconfig rem eth0.5");
      const after = device.stats.filtered;
      await five.ping("10.5.0.1", 56, 100).catch(() => {});
      assert(device.stats.filtered > after, "so is VLAN 5 once it is gone");
      assertEquals([five.damaged, six.damaged], [0, 0]);
    },
  });

  Deno.test({
    name: `Linux sets filters: promiscuous, all multicast, groups, more addresses, ${name}`,
    ignore,
    fn: async () => {
      await using world = await netWorld(seat);
      const { guest, device, network } = world;
      const sender = network.port();
      // IPv6 has sent what it sends when an interface comes up.
      await guest.check("sleep 2");
      const passes = (to: string): boolean => {
        const { filtered } = device.stats;
        sendTo(sender, to);
        return device.stats.filtered === filtered;
      };
      const foreign = "02:00:00:00:00:99";
      const group = "01:00:5e:01:02:03";
      assert(passes(GUEST_MAC) && passes("ff:ff:ff:ff:ff:ff"));
      assert(!passes(foreign) && !passes(group));
      // 224.0.0.1, which every system with IPv4 belongs to, and its like in IPv6.
      assert(passes("01:00:5e:00:00:01") && passes("33:33:00:00:00:01"));
      await guest.check("ip link set eth0 promisc on");
      assert(passes(foreign) && passes(group));
      await guest.check("ip link set eth0 promisc off");
      assert(!passes(foreign) && !passes(group));
      await guest.check("ifconfig eth0 allmulti");
      assert(!passes(foreign) && passes(group));
      await guest.check("ifconfig eth0 -allmulti");
      assert(!passes(group));
      await guest.check(
        `ip link add link eth0 name second type macvlan; ip link set second address ${foreign}; ` +
          "ip link set second up",
      );
      assert(passes(foreign), "the address of a macvlan is in the table");
      await guest.check("ip link del second");
      assert(!passes(foreign));
      assertEquals(device.stats.dropped, 0);
    },
  });

  Deno.test({
    name: `Linux switches offloads on and off, and what is on the wire is right, ${name}`,
    ignore,
    fn: async () => {
      await using world = await netWorld(seat);
      const { guest, device: { stats } } = world;
      const path = await Deno.makeTempFile({ suffix: ".pcapng" });
      const capture = openPcapng(path);
      const tap = capture.writer.add("wire");
      // Two stations: one leaves its frames unfinished, one wants and sends finished ones only.
      const lazy = addStation(world, "10.0.0.253", { offload: true });
      const strict = addStation(world, HOST_IP, { tap: (frame) => tap(frame, "received", 0) });
      await installEthtool(world, lazy, "10.0.0.253");
      const file = randomBytes(MIB);
      serveHttp(lazy, new Map([["/file", file]]));
      await guest.check(
        `mkdir /www && wget -q -O /www/file http://10.0.0.253/file && httpd -h /www`,
      );
      const sent = stats.sent[0]!;
      const received = stats.received[0]!;
      /** Has the file go both ways, and says what offloads were used for it. */
      const transfer = async () => {
        const before = {
          needsChecksum: sent.needsChecksum,
          gsoSent: sent.gsoFrames,
          gsoReceived: received.gsoFrames,
          partial: received.needsChecksum,
        };
        assertEquals(await fetchHttp(strict, GUEST_IP, "/file"), file);
        assertEquals(
          await guest.check("wget -q -O - http://10.0.0.253/file | cmp - /www/file && echo same"),
          "same",
        );
        return {
          needsChecksum: sent.needsChecksum > before.needsChecksum,
          gsoSent: sent.gsoFrames > before.gsoSent,
          gsoReceived: received.gsoFrames > before.gsoReceived,
          partial: received.needsChecksum > before.partial,
        };
      };
      const all = { needsChecksum: true, gsoSent: true, gsoReceived: true, partial: true };
      assertEquals(await transfer(), all);
      await guest.check("ethtool -K eth0 tso off gso off");
      assertEquals(await transfer(), { ...all, gsoSent: false });
      await guest.check("ethtool -K eth0 tx off");
      assertEquals(await transfer(), { ...all, gsoSent: false, needsChecksum: false });
      await guest.check("ethtool -K eth0 rx-gro-hw off");
      assertEquals(await transfer(), {
        needsChecksum: false,
        gsoSent: false,
        gsoReceived: false,
        partial: true,
      });
      await guest.check("ethtool -K eth0 tx on tso on gso on rx-gro-hw on");
      assertEquals(await transfer(), all);
      assertEquals(strict.damaged, 0);
      assertEquals(stats.dropped, 0);
      capture.close();

      const check = ["-o", "tcp.check_checksum:TRUE", "-o", "ip.check_checksum:TRUE"];
      const frames = await tshark(path, [
        ...[...check, "-Y", "tcp", "-T", "fields"],
        ...["-e", "tcp.checksum.status", "-e", "ip.checksum.status", "-e", "frame.len"],
      ]);
      // 1 is tshark's "good".
      const wrong = frames.filter((line) => !line.startsWith("1\t1\t"));
      assertEquals(wrong, []);
      assert(frames.length > 5 * MIB / 1460, `${frames.length} frames`);
      const longest = Math.max(...frames.map((line) => Number(line.split("\t")[2])));
      assertEquals(longest, 1514);
      await Deno.remove(path);
    },
  });

  Deno.test({
    name: `Linux uses a second pair of queues, ${name}`,
    ignore,
    fn: async () => {
      await using world = await netWorld(seat, { queuePairs: 2 });
      const { guest, device: { stats } } = world;
      const host = addStation(world, HOST_IP, { offload: true });
      await installEthtool(world, host, HOST_IP);
      const file = randomBytes(200_000);
      serveHttp(host, new Map([["/file", file]]));
      const fetches = (count: number): Promise<string> =>
        guest.check(
          `for i in $(seq ${count}); do wget -q -O - http://${HOST_IP}/file | wc -c & done; wait`,
        );
      // With one processor Linux begins with one pair.
      await fetches(2);
      assertEquals([stats.sent[1]!.frames, stats.received[1]!.frames], [0, 0]);
      await guest.check("ethtool -L eth0 combined 2");
      assertEquals(await fetches(12), Array(12).fill("200000").join("\n"));
      assert(stats.sent[1]!.frames > 0, "flows are sent by the second pair");
      assert(stats.received[1]!.frames > 0, "and received by it");
      const before = stats.sent[1]!.frames;
      await guest.check("ethtool -L eth0 combined 1");
      await fetches(4);
      assertEquals(stats.sent[1]!.frames, before);
      assertEquals([stats.dropped, host.damaged], [0, 0]);
    },
  });
}

/** A stock Linux drives our network card: traffic over both transports, both ring formats. */
import { assert, assertEquals } from "@std/assert";
import { ethtoolFiles, guestFiles } from "../../examples/guest/testing.ts";
import { fetchHttp, serveHttp } from "../../examples/net/host/http.ts";
import { md5, randomBytes } from "../../examples/shared/bytes.ts";
import { addStation, GUEST_IP, netWorld, pings } from "./net_world.ts";
import { SEATS } from "./seats.ts";

const MIB = 2 ** 20;
const HOST_IP = "10.0.0.254";
const ignore = await guestFiles() === null || await ethtoolFiles() === null;

for (const [name, seat] of SEATS) {
  // Once for each transport in full, so that the suite stays short.
  const megabytes = seat.ring === "split" ? 64 : 4;

  Deno.test({
    name: `Linux pings and moves ${megabytes} MiB each way, ${name}`,
    ignore,
    fn: async () => {
      await using world = await netWorld(seat, { mtu: 9000 });
      const { guest, device } = world;
      const host = addStation(world, HOST_IP, { mtu: 9000, offload: true });
      const bits = await guest.check("cat /sys/class/net/eth0/device/features");
      assertEquals(bits[34], seat.ring === "packed" ? "1" : "0");
      assertEquals(await guest.check("cat /sys/class/net/eth0/mtu"), "9000");
      assertEquals(
        await guest.check("basename $(readlink -f /sys/class/net/eth0/device/driver)"),
        "virtio_net",
      );
      for (const size of [56, 1400, 8000]) assert(await pings(guest, HOST_IP, size), `${size}`);
      assertEquals(host.pingsAnswered, 9);

      // The file goes to the guest, and back: what comes back is what was sent, so both ways are right. The guest's own sum
      // over all of it would take an emulated processor longer than both ways.
      const file = randomBytes(megabytes * MIB);
      serveHttp(host, new Map([["/file", file]]));
      await guest.check(
        `mkdir /www && mount -t tmpfs -o size=80m tmpfs /www && ` +
          `wget -q -O /www/file http://${HOST_IP}/file && httpd -h /www`,
        { timeout: 300_000 },
      );
      const sum = await guest.check("head -c 2097152 /www/file | md5sum");
      assertEquals(sum.slice(0, 32), md5(file.subarray(0, 2 * MIB)));
      const back = await fetchHttp(host, GUEST_IP, "/file");
      assertEquals(back.length, file.length);
      assertEquals(md5(back), md5(file));
      const { stats } = device;
      assert(stats.received[0]!.gsoFrames > 0 && stats.sent[0]!.gsoFrames > 0, "unsegmented TCP");
      assertEquals(stats.dropped, 0);
      assertEquals(host.damaged, 0);
    },
  });
}

/**
 * A stock Linux in User Mode Linux drives our devices by vhost-user: disks, network cards, a console, a source of entropy, and
 * a device that no standard knows. Where there is no such Linux this is ignored, but not in CI.
 */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { ConsoleDevice } from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { DeviceId } from "@virtio/device";
import { NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { consoleSystem } from "../../examples/console/init.ts";
import { Conversation } from "../../examples/console/conversation.ts";
import { bootUml } from "../../examples/guest/uml.ts";
import { EntropyDevice, UPPER_ID, UpperDevice } from "../../examples/my_device.ts";
import { fetchHttp, serveHttp } from "../../examples/net/host/http.ts";
import { stationOn } from "../../examples/net/host/station.ts";
import { md5, randomBytes } from "../../examples/shared/bytes.ts";
import { chainsOf, ServedDevices } from "./vhost_user_serve.ts";
import { appears, checkFiles, checkImage, umlWorld, writeFiles } from "./vhost_user_work.ts";

const world = await umlWorld();
const ignore = world === null;
const MIB = 2 ** 20;

Deno.test({
  name: "User Mode Linux on our disk: files, discard, a new size, and one that it cannot write",
  ignore,
  async fn() {
    await using served = await ServedDevices.make();
    const { device, image } = served.disk("vda", 96);
    const other = served.disk("vdb", 8);
    await Deno.writeFile(other.image, randomBytes(8 * MIB));
    const disks = [
      served.serve("vda", device),
      served.serve(
        "vdb",
        new BlkDevice({
          backend: other.backend,
          readonly: true,
        }),
      ),
    ];
    const guest = await bootUml({
      files: world!.files,
      folder: await served.guestFolder(),
      initrd: { files: world!.programs },
      devices: disks.map((socket) => ({ socket, id: DeviceId.block })),
    });
    try {
      await appears(guest, "virtio_blk", "/dev/vdb");
      const written = await writeFiles(guest, "/dev/vda");
      await checkFiles(guest, "/dev/vda", written);

      // What the guest deletes takes no room any more.
      await guest.check("dd if=/dev/zero of=/mnt/zeroes bs=1M count=24 2>/dev/null; sync");
      const before = Deno.statSync(image).blocks!;
      await guest.check("rm /mnt/zeroes; sync; fstrim /mnt; umount /mnt");
      const after = Deno.statSync(image).blocks!;
      assert(before - after >= 24 * MIB / 512 * 0.9, `${before} blocks, then ${after}`);
      assert(device.stats.discards > 0);

      await device.resize(128 * MIB);
      await guest.check(
        `for i in $(seq 60); do [ $(cat /sys/block/vda/size) = ${
          128 * MIB / 512
        } ] && exit 0; usleep 50000; done; cat /sys/block/vda/size; exit 1`,
      );

      assertEquals(await guest.check("cat /sys/block/vdb/ro /sys/block/vda/serial"), "1\nvda");
      assertEquals(
        (await guest.check("md5sum </dev/vdb")).slice(0, 32),
        md5(await Deno.readFile(other.image)),
      );
      const refused = await guest.run("dd if=/dev/zero of=/dev/vdb count=1 conv=notrunc");
      assert(refused.status !== 0, refused.output);
      await guest.shutdown();
      await served.end();
      await checkImage(image, written);
      assertEquals(served.errors, []);
      assertEquals(device.stats.errors, 0);
    } finally {
      await guest[Symbol.asyncDispose]();
    }
  },
});

Deno.test({
  name: "two guests in User Mode Linux and the host on one switch",
  ignore,
  async fn() {
    await using served = await ServedDevices.make();
    const network = new Switch();
    const cards = [1, 2].map((number) =>
      new NetDevice({
        backend: network.port({ name: `guest ${number}` }),
        mac: `02:00:00:00:00:0${number}`,
      })
    );
    const station = stationOn(network.port({ name: "host" }), {
      mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
      ip: "10.0.0.254",
      offload: true,
    });
    const file = randomBytes(4 * MIB);
    serveHttp(station, new Map([["/file", file]]));
    const guests = await Promise.all(cards.map(async (card, i) =>
      await bootUml({
        files: world!.files,
        folder: await served.guestFolder(),
        megabytes: 128,
        devices: [{ socket: served.serve(`card${i}`, card), id: DeviceId.net }],
      })
    ));
    try {
      for (const [i, guest] of guests.entries()) {
        await appears(guest, "virtio_net", "/sys/class/net/eth0");
        assertEquals(
          await guest.check("cat /sys/class/net/eth0/address"),
          `02:00:00:00:00:0${i + 1}`,
        );
        await guest.check(
          `ip addr add 10.0.0.${i + 1}/24 dev eth0; ip link set lo up; ip link set eth0 up; ` +
            "mkdir -p /www; wget -q -O /www/file http://10.0.0.254/file; httpd -h /www",
        );
        assertEquals((await guest.check("md5sum </www/file")).slice(0, 32), md5(file));
      }
      const [one, two] = guests;
      for (const [from, to] of [[one!, "10.0.0.2"], [two!, "10.0.0.1"]] as const) {
        for (const size of [56, 8000]) {
          const text = await from.check(`ping -c 3 -i 0.1 -s ${size} ${to}`);
          assert(/3 packets received, 0% packet loss/.test(text), text);
        }
        const sum = await from.check(`wget -q -O - http://${to}/file | md5sum`);
        assertEquals(sum.slice(0, 32), md5(file));
        assertEquals(md5(await fetchHttp(station, to, "/file")), md5(file));
      }
      assertEquals([served.errors, station.damaged], [[], 0]);
      assertEquals(cards.map(({ stats }) => stats.dropped), [0, 0]);
      // Frames went unsegmented from one guest to the other.
      assert(cards.every(({ stats }) => stats.sent[0]!.gsoFrames > stats.sent[0]!.cutFrames));
    } finally {
      await Promise.all(guests.map((guest) => guest[Symbol.asyncDispose]()));
      station.close();
      network.close();
    }
  },
});

Deno.test({
  name:
    "User Mode Linux on our console: a login and some text; and devices of one's own on its bus",
  ignore,
  async fn() {
    await using served = await ServedDevices.make();
    const console = new MemoryConsole();
    const device = new ConsoleDevice({ ports: [{ backend: console }] });
    const sockets = [
      { socket: served.serve("console", device), id: DeviceId.console },
      { socket: served.serve("entropy", new EntropyDevice()), id: DeviceId.entropy },
      { socket: served.serve("upper", new UpperDevice()), id: UPPER_ID },
    ];
    const guest = await bootUml({
      files: world!.files,
      folder: await served.guestFolder(),
      initrd: { files: consoleSystem().files },
      devices: sockets,
    });
    try {
      assertEquals(
        await guest.check("cat /sys/bus/virtio/devices/virtio[012]/device"),
        "0x0003\n0x0004\n0x03e8",
      );
      await appears(guest, "virtio_console", "/dev/hvc0");
      await guest.check("setsid getty -L 0 hvc0 vt100 </dev/null >/dev/null 2>&1 &");
      const talk = new Conversation(console);
      await talk.logIn(20_000);
      assertEquals(await talk.run("tty; id -u"), { status: 0, output: "/dev/hvc0\n0" });
      // Random bytes as text, and their sum.
      const { output } = await talk.run(
        "head -c 12000 /dev/urandom | base64 >/tmp/text; cat /tmp/text; md5sum </tmp/text",
        60_000,
      );
      const end = output.lastIndexOf("\n");
      assertEquals(
        md5(new TextEncoder().encode(output.slice(0, end + 1))),
        output.slice(end + 1, end + 33),
      );
      assert(chainsOf(device) > 100);
      assertEquals(served.errors, []);
    } finally {
      await guest[Symbol.asyncDispose]();
    }
  },
});

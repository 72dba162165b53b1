/**
 * A machine in QEMU with a network card of ours, by vhost-user, moves to another QEMU while it is in use: it stays on the network,
 * and its new place is announced.
 */
import { assert, assertEquals } from "@std/assert";
import { Frame, NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { rarpFrame } from "@virtio/vhost-user";
import { bootQemu, qemuNet, startQemu } from "../../examples/guest/qemu.ts";
import { stationOn } from "../../examples/net/host/station.ts";
import { ServedDevices } from "./vhost_user_serve.ts";
import { appears, qemuWorld } from "./vhost_user_work.ts";

const world = await qemuWorld();
const MAC = "02:00:00:00:00:01";
const MAC_BYTES = new Uint8Array([2, 0, 0, 0, 0, 1]);
const IP = "10.0.0.1";
const HOST = "10.0.0.254";
const ETHERTYPE_RARP = 0x8035;

for (const packed of [false, true]) {
  Deno.test({
    name: `a machine moves from one QEMU to another with our network card, ${
      packed ? "packed" : "split"
    } rings: it answers pings there, and is announced`,
    ignore: world === null,
    async fn() {
      await using served = await ServedDevices.make();
      const network = new Switch();
      const station = stationOn(network.port({ name: "host" }), {
        mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
        ip: HOST,
      });
      const announced: Uint8Array[] = [];
      network.port({ name: "looking on" }).listen((frame) => {
        const { bytes } = frame;
        const type = new DataView(bytes.buffer, bytes.byteOffset).getUint16(12);
        if (type === ETHERTYPE_RARP) announced.push(bytes.slice());
      });
      const sockets = ["one", "two"].map((name) => {
        const port = network.port({ name });
        const device = new NetDevice({ backend: port, mac: MAC });
        return served.serve(name, device, {
          packed,
          announce: (mac) => port.deliver(new Frame().fromBytes(rarpFrame(mac))),
        });
      });
      const incoming = `unix:${served.folder}/move`;
      const options = { files: world!.files, megabytes: 128 };
      try {
        await using source = await bootQemu({
          ...options,
          folder: await served.guestFolder(),
          devices: qemuNet(sockets[0]!, { mac: MAC, packed }),
        });
        await appears(source.guest, "virtio_pci virtio_net", "/sys/class/net/eth0");
        await source.guest.check(`ip addr add ${IP}/24 dev eth0; ip link set eth0 up`);
        const before = await source.guest.check(`ping -c 5 -i 0.2 ${HOST}`);
        assert(/5 packets received, 0% packet loss/.test(before), before);
        assert(await station.ping(IP, 1000, 5_000) !== null);
        assertEquals(announced, []);
        // In use while it moves: the rings, and the memory that frames come into, change all the time.
        await source.guest.check(`ping -i 0.05 -s 1000 ${HOST} >/tmp/pings 2>&1 &`);
        await using target = await startQemu({
          ...options,
          folder: await served.guestFolder(),
          devices: [...qemuNet(sockets[1]!, { mac: MAC, packed }), "-incoming", incoming],
        });
        const since = target.qmp.events.length;
        await source.qmp.execute("migrate-set-parameters", { "max-bandwidth": 400 * 2 ** 20 });
        await source.qmp.execute("migrate", { uri: incoming });
        await target.qmp.event(({ event }) => event === "RESUME", since, 60_000);
        const { status } = await source.qmp.execute<{ status: string }>("query-migrate");
        assertEquals(status, "completed");
        const { guest } = target;
        // The guest is told of nothing: QEMU has the card announce where it is now, so that the switch sends there. It does so
        // for the first time before it starts the rings.
        for (let i = 0; announced.length === 0 || served.last.status.state !== "live"; i++) {
          assert(i < 500, `${announced.length} announcements, ${served.last.status.state}`);
          await new Promise((again) => setTimeout(again, 20));
        }
        for (let i = 0; i < 10; i++) assert(await station.ping(IP, 100 + i, 10_000) !== null);
        for (const frame of announced) assertEquals(frame.subarray(6, 12), MAC_BYTES);
        const after = await guest.check(`ping -c 5 -i 0.2 ${HOST}`);
        assert(/5 packets received, 0% packet loss/.test(after), after);
        // Of those that were on their way when it moved some are lost, as on any network that a machine is moved on.
        const lines = (await guest.check("killall -INT ping; sleep 0.5; tail -2 /tmp/pings"))
          .trim();
        const [, sent, received] = /(\d+) packets transmitted, (\d+) packets received/.exec(lines)!;
        assert(Number(received) > 10 && Number(received) > 0.8 * Number(sent), lines);
        assertEquals(await guest.check("dmesg | grep -ic 'error' || true"), "0");
        assertEquals([served.errors, station.damaged], [[], 0]);
      } finally {
        await served.end();
        station.close();
        network.close();
      }
    },
  });
}

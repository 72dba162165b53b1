/**
 * DPDK's driver for virtio, in another process, sends back every frame that a network device of ours gives it: split and packed
 * rings, in order or not, with buffers that are merged or not. It looks at its rings all the time and wants no interrupts.
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { Frame, NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { VHOST_USER_CARRIES, VhostUserServer } from "@virtio/vhost-user";
import { installPackages } from "../../tools/debian.ts";

/** Half a gigabyte of drivers, which takes minutes to install. */
const hasDpdk = await installPackages(["dpdk-dev", "librte-meta-all"]);

const FRAMES = 3000;
const AHEAD = 24;
const VIRTIO_NET_F_MRG_RXBUF = 1n << 15n;

const sizeOf = (number: number): number => 60 + number * 37 % 1455;

/** A frame that is shorter than any other. */
const HELLO = new Uint8Array(40).fill(0xff, 0, 6).fill(2, 6, 12);

/** A frame to everybody that tells its number in every byte behind the header. */
function frameOf(number: number): Uint8Array {
  const bytes = new Uint8Array(sizeOf(number)).fill(number & 0xff);
  bytes.fill(0xff, 0, 6);
  bytes.set([2, 0, 0, 0, 0, 9, 0x88, 0xb5], 6);
  new DataView(bytes.buffer).setUint32(14, number);
  return bytes;
}

for (
  const [name, options, wanted, unwanted] of [
    ["split", "", VIRTIO_NET_F_MRG_RXBUF, VIRTIO_F_RING_PACKED],
    ["split, not merged", ",mrg_rxbuf=0", 0n, VIRTIO_F_RING_PACKED | VIRTIO_NET_F_MRG_RXBUF],
    ["split, in order", ",in_order=1,mrg_rxbuf=0", VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED],
    ["packed", ",packed_vq=1", VIRTIO_F_RING_PACKED | VIRTIO_NET_F_MRG_RXBUF, 0n],
    [
      "packed, in order",
      ",packed_vq=1,in_order=1,mrg_rxbuf=0",
      VIRTIO_F_RING_PACKED,
      VIRTIO_NET_F_MRG_RXBUF,
    ],
  ] as const
) {
  Deno.test({
    name: `dpdk-testpmd sends back what it is sent, ${name}`,
    ignore: !hasDpdk,
    fn: async () => {
      const folder = await Deno.makeTempDir();
      const socket = `${folder}/net.sock`;
      const network = new Switch();
      const host = network.port({ name: "host" });
      const errors: Error[] = [];
      let features = 0n;
      let live = false;
      const server = new VhostUserServer({
        socket,
        device: new NetDevice({ backend: network.port({ name: "guest" }) }),
        features: VHOST_USER_CARRIES,
        onStatus: ({ status }) => {
          features = status.features || features;
          live ||= status.state === "live";
        },
        onError: (error) => errors.push(error),
      });
      const child = new Deno.Command("dpdk-testpmd", {
        args: [
          ...["-l", "0,1", "--no-huge", "-m", "256", "--no-pci"],
          ...[`--file-prefix=${folder.split("/").at(-1)}`],
          `--vdev=net_virtio_user0,path=${socket},queues=1${options}`,
          ...["--", "--no-mlockall", "--total-num-mbufs=2048"],
          ...["--forward-mode=io", "--port-topology=loop", "--auto-start", "--stats-period=1"],
        ],
        stdin: "null",
        stdout: "null",
        stderr: "null",
      }).spawn();
      const frame = new Frame();
      let sent = 0;
      let received = 0;
      const send = (): void => {
        while (sent < FRAMES && sent - received < AHEAD) {
          host.send(frame.fromBytes(frameOf(sent++)));
        }
      };
      const wrong: string[] = [];
      let awake = false;
      host.listen((back) => {
        const bytes = back.bytes.slice();
        if (bytes.length === HELLO.length) {
          awake = true;
          return;
        }
        const number = new DataView(bytes.buffer).getUint32(14);
        const right = frameOf(number);
        if (
          number !== received || !bytes.every((byte, i) => byte === right[i]) ||
          bytes.length !== right.length
        ) wrong.push(`${received}: ${number}, ${bytes.length} bytes`);
        received++;
        if (sent - received < AHEAD / 2) queueMicrotask(send);
      });
      try {
        const end = performance.now() + 30_000;
        // What is sent before it forwards may be lost, as on any cable.
        while (!awake && performance.now() < end) {
          if (live) host.send(frame.fromBytes(HELLO));
          await new Promise((resolve) => setTimeout(resolve, 100));
        }
        while (received < FRAMES && performance.now() < end) {
          send();
          await new Promise((resolve) => setTimeout(resolve, 20));
        }
        assertEquals(wrong, []);
        assertEquals(received, FRAMES);
        assertEquals(features & wanted, wanted, features.toString(16));
        assertEquals(features & unwanted, 0n, features.toString(16));
        child.kill("SIGTERM");
        await child.status;
        assertEquals(errors, []);
        assert(live);
      } finally {
        try {
          child.kill("SIGKILL");
        } catch {
          // It ended already.
        }
        await child.status;
        await server.close();
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

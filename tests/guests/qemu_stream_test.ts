/**
 * A Linux in QEMU (TCG) whose network card, QEMU's own, is plugged into our switch by `-netdev stream`: it talks to a station
 * on our driver, to a Linux in v86 with our card, and to the host's own stack through a tap. Where there is no QEMU (Debian: qemu-system-x86) this is ignored, but
 * not in CI.
 */
import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { GuestMemory } from "@virtio/memory";
import { NetDevice } from "@virtio/net";
import { NetDriver } from "@virtio/net/driver";
import { StreamServer } from "@virtio/net/stream";
import { Switch } from "@virtio/net/switch";
import { TapBackend } from "@virtio/net/tap";
import { DmaPool } from "@virtio/vring/driver";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { buildInitrd } from "../../examples/guest/initrd.ts";
import { SerialLog } from "../../examples/guest/serial_log.ts";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { fetchHttp, serveHttp } from "../../examples/net/host/http.ts";
import { stationOn } from "../../examples/net/host/station.ts";
import { randomBytes } from "../../examples/shared/bytes.ts";
import { attach, join, type Seat } from "../../examples/shared/seat.ts";
import { canTap, TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";

const QEMU = "qemu-system-i386";
const QEMU_MAC = "52:54:00:00:00:01";
const HOST_IP = "10.0.0.1";
const V86_IP = "10.0.0.2";
const QEMU_IP = "10.0.0.3";
const TAP_IP = "10.0.0.4";
const MIB = 2 ** 20;
const SEAT: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "packed" };
const BLOCKS = 32;
const FILE_SIZE = BLOCKS * 64 * 1024;
const BOOT_TIMEOUT = 120_000;

await installTool(QEMU, "qemu-system-x86");
const ignore = !await hasTool(QEMU, ["--version"], "QEMU's stream protocol with QEMU") ||
  await guestFiles() === null;

await installTool("curl", "curl");
await installTool("ping", "iputils-ping");
/** Whether the host's own network stack can be on the switch too. */
const hasHost = !ignore && await canTap() &&
  await hasTool("curl", ["--version"], "the host's curl on a tap");

/** What the guest in QEMU does by itself: each line that it says begins with `qemu:`. */
const INIT = `#!/bin/busybox sh
export PATH=/bin
/bin/busybox --install -s /bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
dmesg -n 1
exec </dev/ttyS0 >/dev/ttyS0 2>&1
modprobe -a virtio_pci virtio_net
for i in $(seq 100); do [ -e /sys/class/net/eth0 ] && break; usleep 100000; done
ip addr add ${QEMU_IP}/24 dev eth0
ip link set lo up
ip link set eth0 up
mkdir -p /www
dd if=/dev/urandom of=/www/file bs=64k count=${BLOCKS} 2>/dev/null
echo "qemu: mac $(cat /sys/class/net/eth0/address)"
echo "qemu: serves $(md5sum </www/file | cut -c -32)"
httpd -h /www
for ip in ${HOST_IP} ${V86_IP}; do
  # The station puts no fragments together, Linux does.
  [ $ip = ${HOST_IP} ] && large=1400 || large=8000
  for size in 56 $large; do
    echo "qemu: ping $ip $size $(ping -c 3 -i 0.2 -W 5 -s $size $ip | grep -o '[0-9]*% packet loss')"
  done
  echo "qemu: file $ip $(wget -q -O - http://$ip/file | md5sum | cut -c -32)"
done
echo "qemu: done"
while :; do sleep 1000; done
`;

/** A guest in QEMU, whose card is at the other end of a socket. */
class QemuGuest implements AsyncDisposable {
  readonly #process: Deno.ChildProcess;
  readonly #line = new SerialLog(undefined);
  readonly #output: Promise<void>;

  private constructor(process: Deno.ChildProcess) {
    this.#process = process;
    this.#output = this.#read();
  }

  static async start(folder: string, socket: string): Promise<QemuGuest> {
    const files = (await guestFiles())!;
    const kernel = `${folder}/kernel`;
    const initrd = `${folder}/initrd`;
    await Deno.writeFile(kernel, files.bzImage);
    await Deno.writeFile(initrd, buildInitrd({ ...files, init: INIT }));
    const process = dependentCommand(QEMU, {
      args: [
        ..."-nodefaults -display none -monitor none -no-reboot -accel tcg -m 128".split(" "),
        ...["-serial", "stdio", "-kernel", kernel, "-initrd", initrd],
        ...["-append", "console=ttyS0 quiet panic=-1 random.trust_cpu=on cryptomgr.notests"],
        ...["-netdev", `stream,id=net0,server=off,addr.type=unix,addr.path=${socket}`],
        ...["-device", `virtio-net-pci,netdev=net0,mac=${QEMU_MAC},romfile=`],
      ],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    return new QemuGuest(process);
  }

  async #read(): Promise<void> {
    for await (const bytes of this.#process.stdout) {
      for (const byte of bytes) this.#line.push(byte);
    }
    this.#line.stop("poweroff", undefined);
  }

  /** What it says until it is done, by line. */
  async lines(): Promise<string[]> {
    const found = await this.#line.wait("to be done", BOOT_TIMEOUT, (text) => {
      const end = /^qemu: done$/m.exec(text);
      return end === null ? null : { text: text.slice(0, end.index) };
    });
    return [...found.text.matchAll(/^qemu: (.*)$/gm)].map((match) => match[1]!);
  }

  /** Ends it at once. */
  async [Symbol.asyncDispose](): Promise<void> {
    try {
      this.#process.kill("SIGKILL");
    } catch (error) {
      if (!(error instanceof TypeError)) throw error; // it has ended by itself
    }
    await this.#process.status;
    await this.#output;
  }
}

function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("hex");
}

/** The host's own ping and curl, through a tap in a namespace that has nothing else, reach both guests on the switch. */
async function checkFromHost(network: Switch, files: ReadonlyMap<string, string>): Promise<void> {
  const namespace = await TestNamespace.make();
  const tap = TapBackend.open({ name: "tap0", namespace: namespace.path });
  try {
    network.port({ name: "tap" }).plug(tap);
    await namespace.up("tap0", TAP_IP);
    for (const [ip, sum] of files) {
      const text = await namespace.run("ping", "-c", "3", "-i", "0.2", "-s", "4000", ip);
      assert(/3 received, 0% packet loss/.test(text), text);
      const { stdout } = await namespace.command("curl", "-sS", "-m", "60", `http://${ip}/file`)
        .output();
      assertEquals([stdout.length, md5(stdout)], [FILE_SIZE, sum]);
    }
    assertEquals([tap.counters.malformed, tap.counters.overruns], [0, 0]);
  } finally {
    await tap.close();
    await namespace.close();
  }
}

Deno.test({
  name:
    "a Linux in QEMU, plugged in by -netdev stream, talks to our driver, to a Linux in v86 and to the host",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const socket = `${folder}/switch.sock`;
    const network = new Switch();
    const uplink = network.port({ name: "qemu" });
    const errors: Error[] = [];
    const server = await StreamServer.listen({ path: socket }, (peer) => uplink.plug(peer), {
      onError: (error) => errors.push(error),
    });
    const guest = await restoreGuest();
    try {
      // The host: a station on our own driver, with our own device.
      const memory = GuestMemory.allocate(32 * MIB);
      const host = join(
        SEAT,
        memory,
        new NetDevice({ backend: network.port({ name: "host" }), mac: "02:00:00:00:00:01" }),
      );
      const driver = await NetDriver.open(host.driver, {
        dma: new DmaPool(memory, 0x1000, 32 * MIB - 0x1000),
      });
      const station = stationOn(driver.port(), { mac: driver.mac, ip: HOST_IP, offload: true });
      const file = randomBytes(FILE_SIZE);
      serveHttp(station, new Map([["/file", file]]));

      const card = attach(
        guest.machine,
        SEAT,
        new NetDevice({ backend: network.port({ name: "v86" }), mac: "02:00:00:00:00:02" }),
      );
      await guest.rescanPci();
      await guest.check("modprobe -a virtio_pci virtio_net");
      const served = (await guest.check(
        "for i in $(seq 50); do [ -e /sys/class/net/eth0 ] && break; usleep 100000; done; " +
          `ip addr add ${V86_IP}/24 dev eth0 && ip link set lo up && ip link set eth0 up && ` +
          `mkdir -p /www && dd if=/dev/urandom of=/www/file bs=64k count=${BLOCKS} 2>/dev/null && ` +
          "httpd -h /www && md5sum /www/file",
      )).slice(0, 32);

      let uncut = 0;
      {
        await using qemu = await QemuGuest.start(folder, socket);
        const said = await qemu.lines();
        const made = said[1]!.replace("serves ", "");
        assertEquals(said, [
          `mac ${QEMU_MAC}`,
          `serves ${made}`,
          `ping ${HOST_IP} 56 0% packet loss`,
          `ping ${HOST_IP} 1400 0% packet loss`,
          `file ${HOST_IP} ${md5(file)}`,
          `ping ${V86_IP} 56 0% packet loss`,
          `ping ${V86_IP} 8000 0% packet loss`,
          `file ${V86_IP} ${served}`,
        ]);
        // And the other way round.
        assert(await station.ping(QEMU_IP) !== null);
        const fetched = await fetchHttp(station, QEMU_IP, "/file");
        assertEquals([fetched.length, md5(fetched)], [FILE_SIZE, made]);
        const { output } = await guest.run(
          `ping -c 3 -i 0.2 -W 5 -s 4000 ${QEMU_IP} | grep -o '[0-9]*% packet loss'; ` +
            `wget -q -O - http://${QEMU_IP}/file | md5sum | cut -c -32`,
        );
        assertEquals(output.split("\n"), ["0% packet loss", made]);
        const [peer] = server.peers;
        assert(peer!.counters.bytesIn > 2 * FILE_SIZE && peer!.counters.bytesOut > 2 * FILE_SIZE);
        assertEquals(peer!.counters.unheard + peer!.counters.short, 0);
        assertEquals(station.damaged, 0);
        assert(uplink.linkUp);
        if (hasHost) await checkFromHost(network, new Map([[QEMU_IP, made], [V86_IP, served]]));
        uncut = card.device.stats.sent[0]!.gsoFrames;
      }
      assert(uncut > 0, "the guest in v86 must have sent unsegmented frames, which the port cut");

      // QEMU is gone: the port is down, and the others go on.
      for (let turn = 0; uplink.linkUp && turn < 100; turn++) {
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
      assertEquals(uplink.linkUp, false);
      assertEquals(
        (await guest.check(`wget -q -O - http://${HOST_IP}/file | md5sum`)).slice(0, 32),
        md5(file),
      );
      assertEquals(card.errors, []);
      assertEquals(host.errors, []);
      assertEquals(driver.broken, null);
      station.close();
      await driver.close();
    } finally {
      await guest.destroy();
      await server.close();
      network.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});

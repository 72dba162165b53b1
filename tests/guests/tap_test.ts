/**
 * A tap as a port of the switch, in a network namespace of the test's own, which has nothing else but that and its loopback:
 * the host's real ping, curl and iperf3 talk to a station of ours, and to a Linux in v86 with our card. Where taps and
 * namespaces may not be made this is ignored, loudly, but not in CI.
 */
import { assert, assertEquals } from "@std/assert";
import { createHash } from "node:crypto";
import { NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { TapBackend } from "@virtio/net/tap";
import { FetchError, PrivateApt } from "../../examples/guest/apt.ts";
import { readDeb } from "../../examples/guest/deb.ts";
import { guestFiles, restoreGuest } from "../../examples/guest/testing.ts";
import { fetchHttp, serveHttp } from "../../examples/net/host/http.ts";
import { type Station, stationOn } from "../../examples/net/host/station.ts";
import { randomBytes } from "../../examples/shared/bytes.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";
import { serveIperf3 } from "./iperf3_server.ts";
import { canTap, TestNamespace } from "../../packages/net/backends/tap_testing.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";

const HOST_IP = "10.0.0.1";
const STATION_IP = "10.0.0.2";
const GUEST_IP = "10.0.0.3";
const MIB = 2 ** 20;
const FILE_SIZE = 4 * MIB;
const SEAT: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "packed" };

for (
  const [program, name] of [
    ["ip", "iproute2"],
    ["ping", "iputils-ping"],
    ["curl", "curl"],
    ["iperf3", "iperf3"],
  ] as const
) await installTool(program, name);

const ignore = !await canTap() || !await hasTool("ping", ["-V"], "the host's ping on a tap") ||
  !await hasTool("curl", ["--version"], "the host's curl on a tap");
const hasIperf3 = !ignore &&
  await hasTool("iperf3", ["--version"], "the host's iperf3 on a tap");
const noGuest = !hasIperf3 || await guestFiles() === null;

/** What iperf3 is in the guest: where each file goes, which package it is in, and what it is called there. */
const IPERF3_FILES = [
  ["/bin/iperf3", "iperf3", /^usr\/bin\/iperf3$/],
  ["/lib/libiperf.so.0", "libiperf0", /\/libiperf\.so\.0\.[\d.]+$/],
  ["/lib/libsctp.so.1", "libsctp1", /\/libsctp\.so\.1\.[\d.]+$/],
  ["/lib/libcrypto.so.3", "libssl3", /\/libcrypto\.so\.3$/],
  ["/lib/libssl.so.3", "libssl3", /\/libssl\.so\.3$/],
  ["/lib/libc.so.6", "libc6", /\/libc\.so\.6$/],
  ["/lib/libm.so.6", "libc6", /\/libm\.so\.6$/],
  ["/lib/ld-linux.so.2", "libc6", /\/ld-linux\.so\.2$/],
] as const;

/** iperf3 for the guest, by path; null where it cannot be had, but not in CI. */
async function iperf3ForGuest(): Promise<Map<string, Uint8Array> | null> {
  const folder = await Deno.makeTempDir();
  try {
    const names = [...new Set(IPERF3_FILES.map(([, name]) => name))];
    const debs = await new PrivateApt(`${folder}/apt`, () => {}).download(names, `${folder}/debs`);
    const files = new Map<string, Uint8Array>();
    for (const [path, name, from] of IPERF3_FILES) {
      const found = await readDeb(debs[names.indexOf(name)]!, (file) => from.test(file));
      const bytes = [...found.values()][0];
      if (bytes === undefined) throw new FetchError(`The Debian package ${name} has no ${path}`);
      files.set(path, bytes);
    }
    return files;
  } catch (error) {
    if (!(error instanceof FetchError) || Deno.env.has("CI")) throw error;
    console.error(`TESTS OF IPERF3 WITH A GUEST ARE SKIPPED: ${error.message}`);
    return null;
  } finally {
    await Deno.remove(folder, { recursive: true });
  }
}

function md5(bytes: Uint8Array): string {
  return createHash("md5").update(bytes).digest("hex");
}

/** The host's network stack on the switch, and a station of ours. */
interface World {
  readonly network: Switch;
  readonly namespace: TestNamespace;
  readonly tap: TapBackend;
  readonly station: Station;
}

async function withTap(run: (world: World) => Promise<void>): Promise<void> {
  const namespace = await TestNamespace.make();
  const network = new Switch();
  const tap = TapBackend.open({ name: "tap0", namespace: namespace.path });
  try {
    network.port({ name: "tap" }).plug(tap);
    await namespace.up("tap0", HOST_IP);
    const station = stationOn(network.port({ name: "station" }), {
      mac: new Uint8Array([2, 0, 0, 0, 0, 2]),
      ip: STATION_IP,
      offload: true,
    });
    await run({ network, namespace, tap, station });
    assertEquals([tap.counters.malformed, tap.counters.overruns], [0, 0]);
    // Nothing leaves: there is no other interface, and no route but to the tap's own network.
    const interfaces = await namespace.run("ip", "-o", "link");
    assertEquals(interfaces.match(/^\d+: [^:@]+/gm)!.map((line) => line.slice(3)), ["lo", "tap0"]);
    assertEquals((await namespace.run("ip", "route", "show", "default")).trim(), "");
    station.close();
  } finally {
    await tap.close();
    network.close();
    await namespace.close();
  }
}

async function checkPing(namespace: TestNamespace, ip: string, size: number): Promise<void> {
  const text = await namespace.run("ping", "-c", "5", "-i", "0.05", "-s", `${size}`, ip);
  assert(/5 received, 0% packet loss/.test(text), text);
}

async function curl(namespace: TestNamespace, ...args: string[]): Promise<Uint8Array> {
  const { success, stdout, stderr } = await namespace.command("curl", "-sS", "-m", "60", ...args)
    .output();
  assert(success, new TextDecoder().decode(stderr));
  return stdout;
}

/** A web server of the host's, in the namespace. */
async function serveThere(namespace: TestNamespace, path: string): Promise<Deno.ChildProcess> {
  const server = namespace.command(
    Deno.execPath(),
    "eval",
    "-q",
    `const bytes = await Deno.readFile(${JSON.stringify(path)});
    Deno.serve({ hostname: "${HOST_IP}", port: 80, onListen: () => console.log("ready") },
      () => new Response(bytes, { headers: { "content-length": String(bytes.length) } }));`,
  ).spawn();
  const reader = server.stdout.getReader();
  await reader.read();
  reader.releaseLock();
  return server;
}

async function end(process: Deno.ChildProcess): Promise<void> {
  process.kill("SIGKILL");
  await process.stdout.cancel();
  await process.stderr.cancel();
  await process.status;
}

Deno.test({
  name:
    "the host's ping, curl and iperf3 reach a station of ours over a tap, and it reaches the host",
  ignore,
  fn: () =>
    withTap(async ({ namespace, tap, station }) => {
      const file = randomBytes(FILE_SIZE);
      serveHttp(station, new Map([["/file", file]]));
      await checkPing(namespace, STATION_IP, 56);
      await checkPing(namespace, STATION_IP, 1400);
      assertEquals(station.pingsAnswered, 10);
      assert(await station.ping(HOST_IP) !== null);
      const fetched = await curl(namespace, `http://${STATION_IP}/file`);
      assertEquals([fetched.length, md5(fetched)], [FILE_SIZE, md5(file)]);

      const path = await Deno.makeTempFile();
      await Deno.writeFile(path, file);
      const server = await serveThere(namespace, path);
      try {
        const back = await fetchHttp(station, HOST_IP, "/");
        assertEquals([back.length, md5(back)], [FILE_SIZE, md5(file)]);
      } finally {
        await end(server);
        await Deno.remove(path);
      }
      if (hasIperf3) {
        serveIperf3(station);
        for (const streams of ["1", "3"]) {
          const { sent, received } = await iperf3(
            namespace,
            ...["-c", STATION_IP, "-n", "32M", "-P", streams],
          );
          assert(sent >= 32 * MIB && received > sent / 2 && received <= sent);
        }
      }
      assertEquals(station.damaged, 0);
      const { gsoIn, gsoOut } = tap.counters;
      assert(gsoIn > 0 && gsoOut > 0, "frames must pass unsegmented both ways");
    }),
});

/** Bytes that iperf3 sent and received. @throws If it failed. */
async function iperf3(
  namespace: TestNamespace,
  ...args: string[]
): Promise<{ readonly sent: number; readonly received: number }> {
  const { success, stdout, stderr } = await namespace.command("iperf3", "-J", ...args).output();
  const text = new TextDecoder().decode(stdout);
  assert(success, text + new TextDecoder().decode(stderr));
  const { error, end } = JSON.parse(text);
  assertEquals(error, undefined);
  return { sent: end.sum_sent.bytes, received: end.sum_received.bytes };
}

Deno.test({
  name: "the host's ping, curl and iperf3 reach a Linux in v86 over a tap",
  ignore: noGuest,
  fn: () =>
    withTap(async ({ network, namespace, tap, station }) => {
      const programs = await iperf3ForGuest();
      const guest = await restoreGuest();
      const path = await Deno.makeTempFile();
      try {
        const card = attach(
          guest.machine,
          SEAT,
          new NetDevice({ backend: network.port({ name: "v86" }), mac: "02:00:00:00:00:03" }),
        );
        const { stats } = card.device;
        await guest.rescanPci();
        await guest.check("modprobe -a virtio_pci virtio_net");
        const served = (await guest.check(
          "for i in $(seq 50); do [ -e /sys/class/net/eth0 ] && break; usleep 100000; done; " +
            `ip addr add ${GUEST_IP}/24 dev eth0 && ip link set lo up && ip link set eth0 up && ` +
            `mkdir -p /www && dd if=/dev/urandom of=/www/file bs=64k count=${FILE_SIZE >> 16} ` +
            "2>/dev/null && httpd -h /www && md5sum /www/file",
        )).slice(0, 32);
        await checkPing(namespace, GUEST_IP, 56);
        await checkPing(namespace, GUEST_IP, 8000);
        assert(
          / 0% packet loss/.test(await guest.check(`ping -c 3 -i 0.2 -s 8000 ${HOST_IP}`)),
        );
        const fetched = await curl(namespace, `http://${GUEST_IP}/file`);
        assertEquals([fetched.length, md5(fetched)], [FILE_SIZE, served]);

        const file = randomBytes(FILE_SIZE);
        await Deno.writeFile(path, file);
        const server = await serveThere(namespace, path);
        try {
          const sum = await guest.check(`wget -q -O - http://${HOST_IP}/ | md5sum`);
          assertEquals(sum.slice(0, 32), md5(file));
        } finally {
          await end(server);
        }
        const [sent] = stats.sent;
        const [received] = stats.received;
        assert(sent!.gsoFrames > sent!.cutFrames && received!.gsoFrames > 0, "GSO both ways");
        assert(tap.counters.gsoIn > 0 && tap.counters.gsoOut > 0, "GSO both ways at the tap");

        if (programs !== null) {
          serveHttp(station, programs);
          for (const program of programs.keys()) {
            await guest.check(`wget -q -O ${program} http://${STATION_IP}${program}`);
          }
          // It listens some time after it has gone to the background: on port 0x1451.
          await guest.check(
            "chmod +x /bin/iperf3 /lib/*.so*; iperf3 -s -D; for i in $(seq 100); do " +
              "grep -qs ':1451 ' /proc/net/tcp /proc/net/tcp6 && break; usleep 100000; done",
          );
          const bytes = 32 * MIB;
          const options = ["-c", GUEST_IP, "-n", "32M"];
          const there = await iperf3(namespace, ...options);
          // The server does not wait for what is still on its way when the client has sent all.
          assert(there.sent >= bytes && there.received > bytes / 2);
          const back = await iperf3(namespace, ...options, "-R");
          assert(back.sent >= bytes && back.received >= bytes);
        }
        assertEquals(card.errors, []);
        assertEquals(stats.dropped, 0);
      } finally {
        await guest.destroy();
        await Deno.remove(path);
      }
    }),
});

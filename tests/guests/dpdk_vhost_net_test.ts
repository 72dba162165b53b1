/**
 * DPDK's own driver, in dpdk-testpmd as virtio-user, drives our network card by vhost-user: no kernel, rings that are polled, and
 * modes that Linux never uses. It answers pings. Where there is no DPDK (Debian: dpdk-dev) this is ignored, but not in CI.
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_IN_ORDER, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { NetDevice } from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { VHOST_USER_CARRIES } from "@virtio/vhost-user";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { stationOn } from "../../examples/net/host/station.ts";
import { hasTool, installTool } from "../../packages/net/backends/tool_testing.ts";
import { ServedDevices } from "./vhost_user_serve.ts";

const TESTPMD = "dpdk-testpmd";
const MRG_RXBUF = 1n << 15n;
const MAC = "02:00:00:00:00:01";
const IP = "10.0.0.1";
const CONCURRENT = 32;
const ROUNDS = 30;

await installTool(TESTPMD, "dpdk-dev");
const ignore = !await hasTool("which", [TESTPMD], "DPDK");

for (const ring of ["split", "packed"] as const) {
  for (const inOrder of [false, true]) {
    for (const mergeable of [false, true]) {
      const mode = `${ring} rings${inOrder ? ", in order" : ""}${mergeable ? ", mergeable" : ""}`;
      Deno.test({
        name: `dpdk-testpmd on our network card answers all pings: ${mode}`,
        ignore,
        async fn() {
          await using served = await ServedDevices.make();
          const network = new Switch();
          const station = stationOn(network.port({ name: "host" }), {
            mac: new Uint8Array([2, 0, 0, 0, 0, 0xfe]),
            ip: "10.0.0.254",
          });
          const device = new NetDevice({ backend: network.port({ name: "dpdk" }), mac: MAC });
          const socket = served.serve("net", device, { features: VHOST_USER_CARRIES });
          const { last: server } = served;
          const on = (yes: boolean): string => yes ? "1" : "0";
          const process = dependentCommand(TESTPMD, {
            args: [
              ...["--no-huge", "-m", "128", "--no-pci", "--no-telemetry", "-l", "0,1"],
              `--file-prefix=${socket.replaceAll(/\W/g, "")}`,
              `--vdev=net_virtio_user0,mac=${MAC},path=${socket},queue_size=256,` +
              `packed_vq=${on(ring === "packed")},in_order=${on(inOrder)},mrg_rxbuf=${
                on(mergeable)
              }`,
              ...["--", "--forward-mode=icmpecho", "--auto-start", "--total-num-mbufs=2048"],
              ...["--no-mlockall", "--stats-period=60"],
            ],
            stdin: "null",
            stdout: "null",
            stderr: "piped",
          }).spawn();
          const said = new Response(process.stderr).text();
          try {
            for (let i = 0; i < 300 && server.status.state !== "live"; i++) {
              await new Promise((resolve) => setTimeout(resolve, 50));
            }
            const { state, features } = server.status;
            assertEquals(state, "live");
            assertEquals((features & VIRTIO_F_RING_PACKED) !== 0n, ring === "packed");
            assertEquals((features & VIRTIO_F_IN_ORDER) !== 0n, inOrder);
            assertEquals((features & MRG_RXBUF) !== 0n, mergeable);
            // It forwards a moment after its rings are there.
            for (let i = 0; i < 20 && await station.ping(IP, 56, 500) === null;) i++;
            for (let round = 0; round < ROUNDS; round++) {
              const sizes = Array.from(
                { length: CONCURRENT },
                (_, i) => 8 + (i * 47 + round) % 1400,
              );
              const answers = await Promise.all(
                sizes.map((size) => station.ping(IP, size, 10_000)),
              );
              assert(answers.every((time) => time !== null), `round ${round} lost some`);
            }
            const [sent] = device.stats.sent;
            assert(sent!.frames >= ROUNDS * CONCURRENT);
            assertEquals([station.damaged, device.stats.dropped, served.errors], [0, 0, []]);
          } finally {
            try {
              process.kill("SIGTERM");
            } catch {
              // It has ended by itself.
            }
            const { code } = await process.status;
            const text = await said;
            station.close();
            network.close();
            assertEquals(code, 0, text);
          }
        },
      });
    }
  }
}

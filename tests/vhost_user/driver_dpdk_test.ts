/** Our network driver before DPDK's vhost library: dpdk-testpmd sends back what it gets. */
import { assert, assertEquals } from "@std/assert";
import { CORE_FEATURES, DeviceId, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { NetDriver, VIRTIO_NET_F_MRG_RXBUF } from "@virtio/net/driver";
import {
  FrontEndMemory,
  protocolFeatureNames,
  VhostUserTransport,
} from "@virtio/vhost-user/driver";
import { DmaPool } from "@virtio/vring/driver";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { installPackages } from "../../tools/debian.ts";

const MIB = 2 ** 20;
const PACKAGES = ["dpdk-dev", "librte-meta-all"];
const ignore = Deno.build.os !== "linux" || !await installPackages(PACKAGES);

/** What the back end leaves to the front end: a MAC address, that the link is up, one pair of queues. */
const CONFIG = new Uint8Array([2, 0, 0, 0, 0, 9, 1, 0, 1, 0]);

Deno.test({
  name: "DPDK's vhost takes our driver's frames and gives them back, split and packed",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const socket = `${folder}/socket`;
    const child = dependentCommand("dpdk-testpmd", {
      args: [
        ...["--no-huge", "-m", "256", "--no-pci", "--no-shconf", "--no-telemetry", "-l", "0,1"],
        ...["--vdev", `net_vhost0,iface=${socket},queues=1`, "--"],
        ...["--forward-mode=io", "--port-topology=loop", "--total-num-mbufs=4096", "--auto-start"],
      ],
      // It ends with its input.
      stdin: "piped",
      stdout: "null",
      stderr: "null",
    }).spawn();
    const memory = FrontEndMemory.allocate(16 * MIB);
    try {
      while (!await Deno.stat(socket).then(() => true, () => false)) {
        await new Promise((resolve) => setTimeout(resolve, 10));
      }
      const errors: Error[] = [];
      const transport = await VhostUserTransport.connect(socket, {
        deviceType: DeviceId.net,
        memory,
        config: CONFIG,
        onError: (error) => errors.push(error),
      });
      const agreed = protocolFeatureNames(transport.frontEnd.protocolFeatures);
      assert(agreed.includes("STATUS") && agreed.includes("NET_MTU"), agreed.join());
      for (const packed of [false, true]) {
        const driver = await NetDriver.open(transport, {
          dma: new DmaPool(memory.guest, 0, 16 * MIB),
          core: packed ? CORE_FEATURES : CORE_FEATURES & ~VIRTIO_F_RING_PACKED,
          // It offers commands, and leaves those to the front end.
          features: VIRTIO_NET_F_MRG_RXBUF,
        });
        assertEquals(driver.session.has(VIRTIO_F_RING_PACKED), packed);
        for (let i = 0; i < 600; i++) {
          const bytes = Uint8Array.from({ length: 60 + (i * 97) % 1455 }, (_, at) => at * i);
          const back = new Promise<Uint8Array>((resolve) => {
            driver.onFrame = (frame) => resolve(frame.bytes.slice(0, frame.length));
          });
          driver.sendBytes(bytes);
          assertEquals(await back, bytes);
        }
        await driver.close();
      }
      assertEquals(errors, []);
      await transport.close();
    } finally {
      await child.stdin.close();
      child.kill("SIGKILL");
      await child.status;
      memory.close();
      await Deno.remove(folder, { recursive: true });
    }
  },
});

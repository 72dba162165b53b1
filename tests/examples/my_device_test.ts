/** examples/my_device.ts as its user starts it: a driver of ours, in another process, uses the device that no standard knows. */
import { assertEquals, assertStringIncludes } from "@std/assert";
import { DriverSession } from "@virtio/device/driver";
import { FrontEndMemory, VhostUserTransport } from "@virtio/vhost-user/driver";
import { BufferList, DmaPool } from "@virtio/vring/driver";
import { UPPER_ID } from "../../examples/my_device.ts";

const root = new URL("../..", import.meta.url).pathname;
const MIB = 2 ** 20;

Deno.test({
  name:
    "examples/my_device.ts serves a device with an ID of its own, which answers a driver of ours",
  ignore: Deno.build.os !== "linux",
  async fn() {
    const folder = await Deno.makeTempDir({ prefix: "vu-" });
    const socket = `${folder}/upper.sock`;
    const server = new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--quiet", `${root}examples/my_device.ts`, "upper", socket],
      stdin: "null",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    const reader = server.stdout.pipeThrough(new TextDecoderStream()).getReader();
    assertStringIncludes((await reader.read()).value!, `ID ${UPPER_ID}`);
    const memory = FrontEndMemory.allocate(MIB);
    const transport = await VhostUserTransport.connect(socket, { deviceType: UPPER_ID, memory });
    try {
      const session = await DriverSession.open(transport, {
        dma: new DmaPool(memory.guest, 0, MIB / 2),
        type: UPPER_ID,
        wanted: 0n,
        queues: () => [{ index: 0, size: 64 }],
      });
      const text = new TextEncoder().encode("virtio, aber groß");
      memory.guest.write(MIB / 2, text);
      const { promise, resolve } = Promise.withResolvers<void>();
      const changed = Promise.withResolvers<void>();
      session.handlers = {
        used: () => resolve(),
        config: () => changed.resolve(),
        needsReset: () => {},
      };
      const queue = session.queue(0);
      queue.add(new BufferList().readable(MIB / 2, text.length).writable(MIB / 4 * 3, 64), 7);
      queue.enableInterrupts();
      session.publish(0);
      await promise;
      assertEquals(queue.take(), 7);
      const answer = new Uint8Array(text.length);
      memory.guest.read(MIB / 4 * 3, answer);
      assertEquals(new TextDecoder().decode(answer), "VIRTIO, ABER GROß");
      await changed.promise;
      assertEquals(session.readConfig((transport) => transport.readConfig(0, 4)), 1);
    } finally {
      await transport.close();
      memory.close();
      server.kill("SIGTERM");
    }
    assertEquals((await server.status).code, 0);
    await reader.cancel();
    assertEquals([...Deno.readDirSync(folder)].filter(({ name }) => name.endsWith(".sock")), []);
    await Deno.remove(folder, { recursive: true });
  },
});

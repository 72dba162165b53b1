/** A back end of ours is killed while requests are in flight, and started again: each of them is done once, and none is lost. */
import { assert, assertEquals } from "@std/assert";
import { BlkDriver } from "@virtio/blk/driver";
import { CORE_FEATURES, DeviceId, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { FrontEndMemory, VhostUserTransport } from "@virtio/vhost-user/driver";
import { DmaPool } from "@virtio/vring/driver";
import { dependentCommand } from "../../examples/guest/dependent.ts";

const MIB = 2 ** 20;
const BLOCK = 4096;
const WRITERS = 12;
const BLOCKS_EACH = 40;
const KILLS = 4;
const root = new URL("../..", import.meta.url).pathname;

function serve(socket: string, image: string, packed: boolean): Deno.ChildProcess {
  return dependentCommand(Deno.execPath(), {
    args: [
      ...["run", "-A", `${root}examples/serve_blk.ts`, "--json"],
      ...["--socket", socket, "--image", image, ...(packed ? ["--packed"] : [])],
    ],
    stdin: "null",
    stdout: "null",
    stderr: "inherit",
  }).spawn();
}

/** Writes in its own part of the disk, again and again, and reads what it wrote. */
async function write(driver: BlkDriver, writer: number, stop: () => boolean): Promise<Uint8Array> {
  const last = new Uint8Array(BLOCKS_EACH);
  const block = new Uint8Array(BLOCK);
  for (let i = 0; !stop(); i++) {
    const at = i % BLOCKS_EACH;
    const value = (i * 7 + writer) & 255;
    await driver.write(8 * (writer * BLOCKS_EACH + at), block.fill(value));
    last[at] = value;
    const seen = (i * 13) % Math.min(i + 1, BLOCKS_EACH);
    await driver.read(8 * (writer * BLOCKS_EACH + seen), block);
    assert(block.every((byte) => byte === last[seen]), `writer ${writer}, block ${seen}`);
    if (i % 10 === 9) await driver.flush();
  }
  return last;
}

for (const ring of ["split", "packed"] as const) {
  Deno.test({
    name:
      `Nothing is lost, and nothing done twice, when a server is killed under a load, ${ring} ring`,
    ignore: Deno.build.os !== "linux",
    fn: async () => {
      const folder = await Deno.makeTempDir({ prefix: "vu-" });
      const [socket, image] = [`${folder}/socket`, `${folder}/image`];
      await Deno.writeFile(image, new Uint8Array(4 * MIB));
      let child = serve(socket, image, ring === "packed");
      const memory = FrontEndMemory.allocate(4 * MIB);
      try {
        while (!await Deno.stat(socket).then(() => true, () => false)) {
          await new Promise((resolve) => setTimeout(resolve, 10));
        }
        const lost: Error[] = [];
        const transport = await VhostUserTransport.connect(socket, {
          deviceType: DeviceId.block,
          memory,
          reconnect: { attempts: 1200, delay: 50 },
          onError: (error) => lost.push(error),
        });
        const driver = await BlkDriver.open(transport, {
          dma: new DmaPool(memory.guest, 0, 4 * MIB),
          core: ring === "packed" ? CORE_FEATURES : CORE_FEATURES & ~VIRTIO_F_RING_PACKED,
          timeout: 60_000,
          transferSize: 16384,
        });
        assertEquals(driver.session.has(VIRTIO_F_RING_PACKED), ring === "packed");
        let stopped = false;
        const writers = Array.from({ length: WRITERS }, (_, i) => write(driver, i, () => stopped));
        const failed = Promise.all(writers).then(() => {}, (error) => error);
        // What is read here comes from the server that is there now, so every kill meets a load.
        const underWay = async (): Promise<void> => {
          await driver.read(0, new Uint8Array(512));
          await new Promise((resolve) => setTimeout(resolve, 60));
        };
        for (let kill = 0; kill < KILLS; kill++) {
          await underWay();
          child.kill("SIGKILL");
          await child.status;
          child = serve(socket, image, ring === "packed");
        }
        await underWay();
        stopped = true;
        const error = await failed;
        if (error !== undefined) throw error;
        assertEquals(driver.broken, null);
        assert(lost.length >= KILLS, `${lost.length} connections were lost`);
        await driver.flush();
        await driver.close();
        await transport.close();
        const bytes = await Deno.readFile(image);
        for (const [writer, last] of (await Promise.all(writers)).entries()) {
          last.forEach((value, at) => {
            const start = (writer * BLOCKS_EACH + at) * BLOCK;
            assert(bytes.subarray(start, start + BLOCK).every((byte) => byte === value));
          });
        }
      } finally {
        child.kill("SIGTERM");
        await child.status;
        memory.close();
        await Deno.remove(folder, { recursive: true });
      }
    },
  });
}

/** Our front end before a device that no driver of ours knows: virtiofsd, a file system (virtio 1.4, 5.11). */
import { assert, assertEquals } from "@std/assert";
import { DriverSession } from "@virtio/device/driver";
import {
  FrontEndMemory,
  protocolFeatureNames,
  VhostUserTransport,
} from "@virtio/vhost-user/driver";
import { BufferList, DmaPool } from "@virtio/vring/driver";
import { dependentCommand } from "../../examples/guest/dependent.ts";
import { installPackages } from "../../tools/debian.ts";

const PROGRAM = "/usr/lib/qemu/virtiofsd";
const VIRTIO_ID_FS = 26;
const REQUESTS = 1;
const FUSE_INIT = 26;
const FUSE_LOOKUP = 1;

const ignore = Deno.build.os !== "linux" || !await installPackages(["qemu-system-common"]) ||
  !await Deno.stat(PROGRAM).then(() => true, () => false);

/** A FUSE request: header and body. */
function request(opcode: number, unique: number, body: Uint8Array): Uint8Array {
  const bytes = new Uint8Array(40 + body.length);
  const fields = new DataView(bytes.buffer);
  fields.setUint32(0, bytes.length, true);
  fields.setUint32(4, opcode, true);
  fields.setUint32(8, unique, true);
  fields.setUint32(16, 1, true); // the root
  bytes.set(body, 40);
  return bytes;
}

Deno.test({
  name: "virtiofsd shakes hands, and finds a file by its name",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const socket = `${folder}/socket`;
    const shared = `${folder}/shared`;
    await Deno.mkdir(shared);
    await Deno.writeTextFile(`${shared}/hello`, "twelve bytes");
    const child = dependentCommand(PROGRAM, {
      args: [`--socket-path=${socket}`, "-o", `source=${shared},sandbox=chroot`, "-f"],
      stdin: "null",
      stdout: "null",
      stderr: "null",
    }).spawn();
    try {
      while (!await Deno.stat(socket).then(() => true, () => false)) {
        await new Promise((resolve) => setTimeout(resolve, 5));
      }
      const memory = FrontEndMemory.allocate(2 ** 20);
      const dma = new DmaPool(memory.guest, 0, 2 ** 20);
      const transport = await VhostUserTransport.connect(socket, {
        deviceType: VIRTIO_ID_FS,
        memory,
        queueCount: 2,
      });
      assert(protocolFeatureNames(transport.frontEnd.protocolFeatures).includes("REPLY_ACK"));
      const session = await DriverSession.open(transport, {
        dma,
        type: VIRTIO_ID_FS,
        wanted: 0n,
        queues: () => [{ index: 0, size: 16 }, { index: REQUESTS, size: 16 }],
      });
      const ask = async (bytes: Uint8Array): Promise<DataView> => {
        const queue = session.queue(REQUESTS);
        const [input, output] = [dma.allocate(bytes.length), dma.allocate(256)];
        memory.guest.write(input, bytes);
        queue.add(new BufferList().readable(input, bytes.length).writable(output, 256), 1);
        const used = new Promise<void>((resolve) => {
          const take = (): void => {
            do {
              if (queue.take() >= 0) resolve();
            } while (queue.enableInterrupts());
          };
          session.handlers = { used: take, config() {}, needsReset() {} };
        });
        session.publish(REQUESTS);
        await used;
        const answer = new Uint8Array(256);
        memory.guest.read(output, answer);
        return new DataView(answer.buffer);
      };
      const init = await ask(
        request(FUSE_INIT, 1, new Uint8Array(new Uint32Array([7, 31, 0, 0]).buffer)),
      );
      // Error, the request's number, and the version of the protocol.
      assertEquals([init.getInt32(4, true), init.getUint32(8, true)], [0, 1]);
      assertEquals(init.getUint32(16, true), 7);
      const found = await ask(request(FUSE_LOOKUP, 2, new TextEncoder().encode("hello\0")));
      assertEquals([found.getInt32(4, true), found.getUint32(8, true)], [0, 2]);
      // Size, in the attributes of what was found.
      assertEquals(found.getUint32(16 + 40 + 8, true), 12);
      const missing = await ask(request(FUSE_LOOKUP, 3, new TextEncoder().encode("nothing\0")));
      assertEquals(missing.getInt32(4, true), -2);
      await session.reset();
      await transport.close();
      memory.close();
    } finally {
      try {
        child.kill("SIGKILL");
      } catch {
        // It ends by itself when its front end is gone.
      }
      await child.status;
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** Many front ends one after another. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { EventFd, MemoryFile, UnixSocket } from "@virtio/linux";
import { VhostUserServer } from "@virtio/vhost-user";
import {
  Channel,
  encodeMemoryTable,
  encodeU64,
  encodeVringDescriptor,
  FrontEndRequest as Request,
} from "@virtio/vhost-user/protocol";
import {
  EchoDevice,
  GUEST_BASE,
  settle,
  SIZE,
  until,
  USER_BASE,
} from "../../packages/vhost-user/backend/front_testing.ts";
import { openDescriptors } from "../../packages/vhost-user/driver/testing.ts";

/** Mappings of memory files of guests. */
export const mappings = (): number =>
  Deno.readTextFileSync("/proc/self/maps").split("\n").filter((line) =>
    line.includes("memfd:virtio")
  )
    .length;

/** Front ends one after another, each of which gets as far as a request. */
export async function connectMany(count: number): Promise<void> {
  const folder = await Deno.makeTempDir();
  const socket = `${folder}/s`;
  const server = new VhostUserServer({ socket, device: new EchoDevice() });
  const memory = MemoryFile.create(SIZE);
  const event = EventFd.create();
  const one = async (): Promise<void> => {
    const channel = new Channel(UnixSocket.connect(socket));
    channel.request(Request.SET_FEATURES, encodeU64(VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX));
    channel.request(
      Request.SET_MEM_TABLE,
      encodeMemoryTable([{
        guestAddress: BigInt(GUEST_BASE),
        size: BigInt(SIZE),
        userAddress: BigInt(USER_BASE),
        offset: 0n,
      }]),
      [memory.descriptor],
    );
    const which = encodeVringDescriptor({ index: 0, none: false });
    channel.request(Request.SET_VRING_KICK, which, [event.descriptor]);
    channel.request(Request.SET_VRING_CALL, which, [event.descriptor]);
    channel.request(Request.GET_FEATURES);
    let answer = channel.receive();
    for (let i = 0; answer === null && i < 5000; i++) {
      await settle(0);
      answer = channel.receive();
    }
    assert(answer !== null, "There was no answer");
    channel.close();
  };
  await one();
  await until(() => server.status.state === "waiting", "the first to be gone");
  const descriptors = openDescriptors().length;
  const mapped = mappings();
  for (let i = 1; i < count; i++) await one();
  await until(() => server.status.state === "waiting", "the last to be gone");
  assertEquals(server.status.connections, count);
  assertEquals(openDescriptors().length, descriptors);
  assertEquals(mappings(), mapped);
  await server.close();
  memory.close();
  event.close();
  await Deno.remove(folder, { recursive: true });
}

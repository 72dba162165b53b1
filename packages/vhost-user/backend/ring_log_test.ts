import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { MemoryFile, SharedMapping } from "@virtio/linux";
import { DirtyBitmap } from "@virtio/memory";
import { ProtocolFeature as P, VHOST_F_LOG_ALL } from "../protocol/features.ts";
import { FrontEndRequest as Request } from "../protocol/messages.ts";
import * as payloads from "../protocol/payloads.ts";
import { EchoDevice, Front, GUEST_BASE } from "./front_testing.ts";

const SPLIT = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;

Deno.test("Every write of the device is in the dirty log, its used ring where the front end wants it", async () => {
  const front = new Front(new EchoDevice());
  await front.negotiate(SPLIT | VHOST_F_LOG_ALL, P.MQ | P.LOG_SHMFD);
  front.share();
  const log = MemoryFile.create(0x1000);
  const area = payloads.encodeLog({ size: 0x80n, offset: 0n });
  assertEquals((await front.ask(Request.SET_LOG_BASE, area, [log.descriptor])).request, 6);
  const mapping = new SharedMapping(log.descriptor, 0, 0x1000);
  front.setUp(0, SPLIT);
  // Where no memory is, but the log has bits.
  const logged = 0x2_0000n;
  front.send(Request.SET_VRING_ADDR, front.address(0, payloads.VHOST_VRING_F_LOG, logged));
  front.enable(0);
  front.request(0, 5);
  await front.used(0, 1);
  const pages = new Set<number>();
  new DirtyBitmap(mapping.buffer).drain((address, length) => {
    for (let at = address; at < address + length; at += 0x1000) pages.add(at);
  });
  // The used ring has no page of its own there, and the answer has.
  assertEquals([...pages].sort(), [0x2_0000, GUEST_BASE + 0x4_0000]);
  // Without the feature nothing is logged any more.
  front.send(Request.SET_FEATURES, payloads.encodeU64(SPLIT | 1n << 30n));
  await front.ask(Request.GET_FEATURES);
  // A late kick may have had the device ask for the next one once more until then.
  new DirtyBitmap(mapping.buffer).drain(() => {});
  front.request(0, 6);
  await front.used(0, 1);
  assertEquals(new DirtyBitmap(mapping.buffer).drain(() => {}), false);
  mapping.unmap();
  log.close();
  await front.close();
});

Deno.test("A log that is too short is not written beyond its end", async () => {
  const front = new Front(new EchoDevice());
  await front.negotiate(SPLIT | VHOST_F_LOG_ALL, P.MQ | P.LOG_SHMFD);
  front.share();
  const log = MemoryFile.create(0x1000);
  // Bits up to the guest's first page and no further.
  const size = GUEST_BASE / 0x1000 / 8;
  await front.ask(Request.SET_LOG_BASE, payloads.encodeLog({ size: BigInt(size), offset: 0n }), [
    log.descriptor,
  ]);
  const mapping = new SharedMapping(log.descriptor, 0, 0x1000);
  front.setUp(0, SPLIT);
  front.enable(0);
  front.request(0, 5);
  await front.used(0, 1);
  assert(new Uint8Array(mapping.buffer, 0, 0x1000).every((byte) => byte === 0));
  mapping.unmap();
  log.close();
  await front.close();
});

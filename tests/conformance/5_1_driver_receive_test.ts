/** Virtio 1.4, 5.1.9.4.2: what a network driver makes of the headers of received frames. */
import * as net from "@virtio/net";
import { Frame } from "@virtio/net";
import { NET_DRIVER_FEATURES } from "@virtio/net/driver";
import { assert, assertEquals } from "@std/assert";
import { openRig, PuppetDevice, type ReceiveOptions } from "../../packages/net/driver/testing.ts";
import { buildFrame, pattern } from "../../packages/net/offload/testing.ts";
import { plainFrame, turns } from "../../packages/net/testing.ts";

const ALL = NET_DRIVER_FEATURES;
const NEEDS = net.VIRTIO_NET_HDR_F_NEEDS_CSUM;
const VALID = net.VIRTIO_NET_HDR_F_DATA_VALID;
const RSC = net.VIRTIO_NET_HDR_F_RSC_INFO;
const TUNNEL_CSUM = 8;

async function open(features: bigint = ALL, finished = false) {
  const rig = await openRig(new PuppetDevice(features), { finished });
  const frames: Frame[] = [];
  rig.driver.onFrame = (frame) => frames.push(new Frame(frame.length).fromFrame(frame));
  /** What comes out, null if nothing. */
  const receive = async (bytes: Uint8Array, options: ReceiveOptions = {}) => {
    frames.length = 0;
    rig.device.receive(bytes, options);
    await turns();
    return frames[0] ?? null;
  };
  return { ...rig, frames, receive };
}

const payload = pattern(3000);
const partial = buildFrame({ ip: 4, payload, checksum: "partial" });
const PARTIAL = { flags: NEEDS, csumStart: 34, csumOffset: 16 } as const;
const SEGMENTS = { ...PARTIAL, gsoType: net.VIRTIO_NET_HDR_GSO_TCPV4, gsoSize: 1000 } as const;

Deno.test("5.1.9.4.2-G1: flags that the driver does not know are ignored", async () => {
  const { driver, receive } = await open();
  for (const unknown of [0x10, 0x20, 0x40, 0x80, 0xf0, TUNNEL_CSUM, RSC]) {
    const plain = await receive(plainFrame(60), { flags: unknown });
    assertEquals([plain?.flags, plain?.bytes], [0, plainFrame(60)]);
    const valid = await receive(plainFrame(60), { flags: unknown | VALID });
    assertEquals(valid?.flags, VALID);
  }
  for (const unknown of [0x10, 0x80, 0xf0]) {
    const frame = await receive(partial, { ...PARTIAL, flags: NEEDS | unknown });
    assertEquals([frame?.flags, frame?.csumStart, frame?.csumOffset], [NEEDS, 34, 16]);
  }
  await driver.close();
  // Neither does a driver know those that it did not negotiate; but an unfinished frame is none for it.
  const old = await open(net.VIRTIO_NET_F_MRG_RXBUF);
  assertEquals((await old.receive(plainFrame(60), { flags: VALID }))?.flags, 0);
  assertEquals(await old.receive(partial, PARTIAL), null);
  assertEquals(old.driver.receiveQueues[0]!.counters.dropped, 1);
  await old.driver.close();
});

Deno.test("5.1.9.4.2-G3 5.1.9.4.2-G9: there is nothing behind the fields that were negotiated", async () => {
  for (const hash of [0n, net.VIRTIO_NET_F_HASH_REPORT | net.VIRTIO_NET_F_CTRL_VQ]) {
    const { driver, receive } = await open(net.VIRTIO_NET_F_MRG_RXBUF | hash);
    // Where the offsets would stand there are bytes of the frame.
    for (const seed of [0, 0xff]) {
      const bytes = new Uint8Array(60).fill(seed);
      assertEquals((await receive(bytes))?.bytes, bytes);
    }
    await driver.close();
  }
});

Deno.test("5.1.9.4.2-G4: csum_start and csum_offset count only with NEEDS_CSUM, and not with RSC_INFO", async () => {
  for (const finished of [false, true]) {
    const { driver, receive } = await open(ALL, finished);
    const whole = buildFrame({ ip: 4, payload: pattern(200) });
    for (const flags of [0, VALID]) {
      const frame = await receive(whole, { flags, csumStart: 20, csumOffset: 3 });
      assertEquals([frame?.bytes, frame?.csumStart, frame?.csumOffset], [whole, 0, 0]);
    }
    assertEquals(await receive(partial, { ...PARTIAL, flags: NEEDS | RSC }), null);
    await driver.close();
  }
});

Deno.test("5.1.9.4.2-G5 5.1.9.4.2-G6: hdr_len may say anything", async () => {
  for (const finished of [false, true]) {
    const { driver, receive, frames } = await open(ALL, finished);
    for (const hdrLen of [0, 1, 33, 54, 55, 0xffff]) {
      const frame = await receive(partial, { ...SEGMENTS, hdrLen });
      if (finished) {
        assertEquals(frames.map(({ length }) => length - 54), [1000, 1000, 1000]);
      } else {
        assertEquals([frame?.headerLength, frame?.bytes], [54, partial]);
      }
      const plain = await receive(plainFrame(60), { hdrLen });
      assertEquals([plain?.headerLength, plain?.bytes], [0, plainFrame(60)]);
    }
    await driver.close();
  }
});

Deno.test("5.1.9.4.2-G7: a frame is said to be right only if the device says so", async () => {
  const { driver, receive } = await open();
  const wrong = buildFrame({ ip: 4, checksum: "none" });
  assertEquals((await receive(wrong))?.flags, 0);
  assertEquals((await receive(wrong, { flags: VALID }))?.flags, VALID);
  assertEquals(
    (await receive(wrong, { flags: VALID, gsoType: net.VIRTIO_NET_HDR_GSO_ECN }))?.flags,
    VALID,
  );
  assertEquals((await receive(partial, { ...PARTIAL, flags: NEEDS | VALID }))?.flags, NEEDS);
  await driver.close();
});

Deno.test("5.1.9.4.2-G8 5.1.9.4.2-G10: a frame that comes through a tunnel is not accepted, however its header is made", async () => {
  const { driver, receive } = await open();
  let dropped = 0;
  for (const tunnel of [0x20, 0x40, 0x60]) {
    for (const gsoType of [0, 1, 3, 4, 5, 0x81]) {
      for (const flags of [0, NEEDS, VALID, NEEDS | VALID]) {
        const options = { ...SEGMENTS, gsoType: gsoType | tunnel, flags };
        assertEquals(await receive(partial, options), null);
        assertEquals(driver.receiveQueues[0]!.counters.dropped, ++dropped);
      }
    }
  }
  assert(await receive(partial, SEGMENTS) !== null);
  await driver.close();
});

Deno.test("5.1.9.4.2-G11: nor is one with UDP_TUNNEL_CSUM and NEEDS_CSUM, and no tunnel", async () => {
  const { driver, receive } = await open();
  assertEquals(await receive(partial, { ...PARTIAL, flags: NEEDS | TUNNEL_CSUM }), null);
  assertEquals(await receive(partial, { ...SEGMENTS, flags: NEEDS | TUNNEL_CSUM }), null);
  assertEquals(driver.receiveQueues[0]!.counters.dropped, 2);
  assertEquals((await receive(partial, PARTIAL))?.flags, NEEDS);
  await driver.close();
});

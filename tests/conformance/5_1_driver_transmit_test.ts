/** Virtio 1.4, 5.1.9.2.1: what a network driver sends. */
import * as net from "@virtio/net";
import { Frame } from "@virtio/net";
import { NET_DRIVER_FEATURES } from "@virtio/net/driver";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { openRig, PuppetDevice, type SentFrame } from "../../packages/net/driver/testing.ts";
import { completeChecksum } from "../../packages/net/offload/checksum.ts";
import {
  buildFrame,
  type FrameSpec,
  naiveSum,
  pattern,
  viewOf,
} from "../../packages/net/offload/testing.ts";
import { plainFrame, turns } from "../../packages/net/testing.ts";

const ALL = NET_DRIVER_FEATURES;
const HOST_GSO = net.VIRTIO_NET_F_HOST_TSO4 | net.VIRTIO_NET_F_HOST_TSO6 |
  net.VIRTIO_NET_F_HOST_UFO | net.VIRTIO_NET_F_HOST_USO | net.VIRTIO_NET_F_HOST_ECN;
const CWR = 0x90;

/** A frame whose checksum is missing, and that is to be cut if `gsoType` is given. */
function unfinished(spec: FrameSpec, gsoType = 0, fields: Partial<Frame> = {}): Frame {
  const frame = new Frame().fromBytes(buildFrame({ ...spec, checksum: "partial" }));
  frame.flags = net.VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.gsoType = gsoType;
  frame.gsoSize = gsoType === 0 ? 0 : 1000;
  frame.csumStart = (spec.ip === 4 ? 34 : 54) + 4 * (spec.tags?.length ?? 0);
  frame.csumOffset = spec.transport === "udp" ? 6 : 16;
  return Object.assign(frame, fields);
}

const payload = pattern(4000);
/** Each kind of segmentation with a frame that is for it, and the feature that it needs. */
const KINDS: readonly (readonly [name: string, feature: bigint, frame: () => Frame])[] = [
  [
    "TCPV4",
    net.VIRTIO_NET_F_HOST_TSO4,
    () => unfinished({ ip: 4, payload }, net.VIRTIO_NET_HDR_GSO_TCPV4),
  ],
  [
    "TCPV6",
    net.VIRTIO_NET_F_HOST_TSO6,
    () => unfinished({ ip: 6, payload }, net.VIRTIO_NET_HDR_GSO_TCPV6),
  ],
  [
    "UDP",
    net.VIRTIO_NET_F_HOST_UFO,
    () => unfinished({ ip: 4, transport: "udp", payload }, net.VIRTIO_NET_HDR_GSO_UDP),
  ],
  [
    "UDP_L4",
    net.VIRTIO_NET_F_HOST_USO,
    () => unfinished({ ip: 4, transport: "udp", payload }, net.VIRTIO_NET_HDR_GSO_UDP_L4),
  ],
];

async function open(features: bigint) {
  const rig = await openRig(new PuppetDevice(features));
  const { driver, device } = rig;
  /** Sends, and gives what the device saw. */
  const send = async (frame: Frame): Promise<SentFrame> => {
    assert(driver.send(frame));
    await turns();
    return device.sent.at(-1)!;
  };
  const refuses = async (frame: Frame) => {
    const before = device.sent.length;
    assertThrows(() => driver.send(frame), TypeError);
    await turns();
    assertEquals(device.sent.length, before);
  };
  return { ...rig, send, refuses };
}

Deno.test("5.1.9.2.1-G1: the header of a sent frame is as long as that of a received one", async () => {
  for (const hash of [0n, net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_HASH_REPORT]) {
    const { driver, device, got, send } = await open(net.VIRTIO_NET_F_MRG_RXBUF | hash);
    assertEquals((await send(new Frame().fromBytes(plainFrame(60)))).bytes, plainFrame(60));
    device.receive(plainFrame(60));
    await turns();
    assertEquals(got, [plainFrame(60)]);
    await driver.close();
  }
});

Deno.test("5.1.9.2.1-G2: num_buffers is 0, whatever lay there before", async () => {
  for (const features of [ALL, net.VIRTIO_NET_F_MRG_RXBUF]) {
    // The memory is full of 0xee at first.
    const { driver, send } = await open(features);
    for (let i = 0; i < 70; i++) {
      const { header, headerBytes } = await send(new Frame().fromBytes(pattern(1500, 255)));
      assertEquals(header.numBuffers, 0);
      assert(headerBytes.subarray(12).every((byte) => byte === 0));
    }
    await driver.close();
  }
});

Deno.test("5.1.9.2.1-G3: without VIRTIO_NET_F_CSUM flags is 0, and frames must be whole", async () => {
  const { driver, send, refuses } = await open(ALL & ~net.VIRTIO_NET_F_CSUM);
  await refuses(unfinished({ ip: 4 }));
  const whole = new Frame().fromBytes(buildFrame({ ip: 4 }));
  const { header, bytes } = await send(whole);
  assertEquals(header.flags, 0);
  assertEquals(bytes, buildFrame({ ip: 4 }));
  // What a stack hands over finished for a receiver like this one.
  const frames: Frame[] = [];
  const short = pattern(1000);
  net.pass(unfinished({ ip: 4, payload: short }), {
    offloads: driver.offloads,
    deliver: (frame) => frames.push(new Frame().fromFrame(frame)),
  });
  const sent = await send(frames[0]!);
  assertEquals(sent.bytes, buildFrame({ ip: 4, payload: short }));
  await driver.close();
});

const NUMBERS = ["G5", "G6", "G7", "G8"];
KINDS.forEach(([name, feature, frame], i) => {
  Deno.test(`5.1.9.2.1-${NUMBERS[i]}: gso_type ${name} with its feature, and never without`, async () => {
    const able = await open(net.VIRTIO_NET_F_CSUM | feature);
    const { header } = await able.send(frame());
    assertEquals(header.gsoType, frame().gsoType);
    await able.driver.close();
    const unable = await open(ALL & ~feature);
    await unable.refuses(frame());
    await unable.driver.close();
  });
});

Deno.test("5.1.9.2.1-G9: TCP with CWR is segmented by a device that knows ECN, and the header says so", async () => {
  const spec = { ip: 4, payload, tcpFlags: CWR } as const;
  const able = await open(ALL);
  const { header } = await able.send(unfinished(spec, net.VIRTIO_NET_HDR_GSO_TCPV4));
  assertEquals(header.gsoType, net.VIRTIO_NET_HDR_GSO_TCPV4 | net.VIRTIO_NET_HDR_GSO_ECN);
  const plain = await able.send(unfinished({ ip: 4, payload }, net.VIRTIO_NET_HDR_GSO_TCPV4));
  assertEquals(plain.header.gsoType, net.VIRTIO_NET_HDR_GSO_TCPV4);
  await able.driver.close();
  const unable = await open(ALL & ~net.VIRTIO_NET_F_HOST_ECN);
  await unable.refuses(unfinished(spec, net.VIRTIO_NET_HDR_GSO_TCPV4));
  await unable.refuses(
    unfinished(spec, net.VIRTIO_NET_HDR_GSO_TCPV4 | net.VIRTIO_NET_HDR_GSO_ECN),
  );
  await unable.driver.close();
});

Deno.test("5.1.9.2.1-G10 5.1.9.2.1-G13 5.1.9.2.1-G14 5.1.9.2.1-G15 5.1.9.2.1-G16 5.1.9.2.1-G30 5.1.9.2.1-G31 5.1.9.2.1-G34: the driver never sets a bit of tunnels", async () => {
  const { driver, device, refuses } = await open(ALL);
  for (const [, , frame] of KINDS) {
    for (const tunnel of [0x20, 0x40, 0x60]) {
      for (const flags of [1, 1 | 2, 1 | 8, 1 | 2 | 8]) {
        const wrong = frame();
        wrong.gsoType |= tunnel;
        wrong.flags = flags;
        await refuses(wrong);
      }
    }
    const outer = frame();
    outer.flags |= 8;
    await refuses(outer);
  }
  const bare = new Frame().fromBytes(buildFrame({ ip: 4 }));
  bare.flags = 8;
  assert(driver.send(bare));
  await turns();
  assertEquals(device.sent.map(({ header }) => header.flags), [0]);
  await driver.close();
});

Deno.test("5.1.9.2.1-G17 5.1.9.2.1-G18 5.1.9.2.1-G19 5.1.9.2.1-G20: a partial checksum holds the pseudo header, and completing it as the header says makes it whole", async () => {
  const { driver, send, refuses } = await open(net.VIRTIO_NET_F_CSUM);
  for (const ip of [4, 6] as const) {
    for (const transport of ["tcp", "udp"] as const) {
      for (const tags of [[], [5]]) {
        const spec = { ip, transport, payload: pattern(333), tags } as const;
        const { header, bytes } = await send(unfinished(spec));
        assertEquals(header.flags, net.VIRTIO_NET_HDR_F_NEEDS_CSUM);
        const { csumStart, csumOffset } = header;
        const network = 14 + 4 * tags.length;
        // What precedes it is right already.
        if (ip === 4) assertEquals(naiveSum(bytes.subarray(network, network + 20)), 0xffff);
        const done = bytes.slice();
        assert(
          completeChecksum(viewOf(done), done.length, csumStart, csumOffset, transport === "udp"),
        );
        assertEquals(done, buildFrame(spec));
      }
    }
  }
  await refuses(unfinished({ ip: 4 }, 0, { csumStart: 60_000 }));
  await refuses(unfinished({ ip: 4 }, 0, { csumOffset: 60_000 }));
  await driver.close();
});

Deno.test("5.1.9.2.1-G21: without a segmentation feature gso_type is NONE", async () => {
  const { driver, device, send, refuses } = await open(ALL & ~HOST_GSO);
  for (const [, , frame] of KINDS) await refuses(frame());
  await send(unfinished({ ip: 4 }));
  await send(new Frame().fromBytes(plainFrame(60)));
  assertEquals(device.sent.map(({ header }) => header.gsoType), [0, 0]);
  await driver.close();
});

Deno.test("5.1.9.2.1-G22: what is to be segmented has NEEDS_CSUM and a gso_size", async () => {
  const { driver, send, refuses } = await open(ALL);
  for (const [, , frame] of KINDS) {
    const { header } = await send(frame());
    assertEquals([header.flags, header.gsoSize], [net.VIRTIO_NET_HDR_F_NEEDS_CSUM, 1000]);
    await refuses(Object.assign(frame(), { gsoSize: 0 }));
    await refuses(Object.assign(frame(), { flags: 0 }));
  }
  await driver.close();
});

Deno.test("5.1.9.2.1-G23 5.1.9.2.1-G32: VIRTIO_NET_F_GUEST_HDRLEN is accepted, and hdr_len is the length of the headers, whatever the sender says", async () => {
  const { driver, send } = await open(ALL);
  assert(driver.session.has(net.VIRTIO_NET_F_GUEST_HDRLEN));
  const sizes = [54, 74, 42, 42];
  for (const wrong of [0, 1, 54, 0xffff]) {
    for (const [i, [, , frame]] of KINDS.entries()) {
      const { header } = await send(Object.assign(frame(), { headerLength: wrong }));
      assertEquals(header.hdrLen, sizes[i]);
    }
  }
  const options = { ip: 4, payload, tcpOptions: [1, 1, 1, 1], tags: [3] } as const;
  const { header } = await send(unfinished(options, net.VIRTIO_NET_HDR_GSO_TCPV4));
  assertEquals(header.hdrLen, 18 + 20 + 24);
  await driver.close();
});

Deno.test("5.1.9.2.1-G24: else hdr_len is not less than the headers", async () => {
  const { driver, send } = await open(ALL & ~net.VIRTIO_NET_F_GUEST_HDRLEN);
  for (const [i, [, , frame]] of KINDS.entries()) {
    assert((await send(frame())).header.hdrLen >= [54, 74, 42, 42][i]!);
  }
  const small = new Frame().fromBytes(buildFrame({ ip: 4, transport: "udp" }));
  assert((await send(small)).header.hdrLen >= 42);
  const large = new Frame().fromBytes(
    buildFrame({ ip: 6, payload: pattern(900), tcpOptions: [1, 1, 1, 1] }),
  );
  assert((await send(large)).header.hdrLen >= 78);
  assert((await send(unfinished({ ip: 6 }))).header.hdrLen >= 74);
  small.gsoType = net.VIRTIO_NET_HDR_GSO_ECN;
  assert((await send(small)).header.hdrLen >= 42);
  await driver.close();
});

Deno.test("5.1.9.2.1-G33: DATA_VALID and RSC_INFO are never set", async () => {
  const { driver, send } = await open(ALL);
  const flags = net.VIRTIO_NET_HDR_F_DATA_VALID | net.VIRTIO_NET_HDR_F_RSC_INFO;
  const received = new Frame().fromBytes(buildFrame({ ip: 4 }));
  received.flags = flags;
  assertEquals((await send(received)).header.flags, 0);
  for (const [, , frame] of KINDS) {
    const { header } = await send(Object.assign(frame(), { flags: 1 | flags }));
    assertEquals(header.flags, 1);
  }
  await driver.close();
});

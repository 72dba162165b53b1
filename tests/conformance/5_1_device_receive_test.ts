/** Virtio 1.4, 5.1.9.3.2 and 5.1.9.4.1: how a network device gives packets to the driver. */
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
} from "@virtio/device";
import * as net from "@virtio/net";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { FrameLayout } from "../../packages/net/offload/parse.ts";
import { buildFrame, naiveSum, pattern } from "../../packages/net/offload/testing.ts";
import { type HeaderFields, plainFrame, type ReceivedFrame } from "../../packages/net/testing.ts";
import { PlacedNet, type SentFrame } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const TO = [2, 0, 0, 0, 0, 1];
const NEEDS_CSUM = net.VIRTIO_NET_HDR_F_NEEDS_CSUM;
const DATA_VALID = net.VIRTIO_NET_HDR_F_DATA_VALID;
const GUEST = net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_GUEST_TSO4 |
  net.VIRTIO_NET_F_GUEST_TSO6 | net.VIRTIO_NET_F_GUEST_ECN | net.VIRTIO_NET_F_GUEST_UFO |
  net.VIRTIO_NET_F_GUEST_USO4 | net.VIRTIO_NET_F_GUEST_USO6;
/** Ring features that a received packet should not depend on. */
const CORES: readonly FeatureSet[] = [
  0n,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED | VIRTIO_F_IN_ORDER,
];

async function open(place: Place, wanted: FeatureSet, core: FeatureSet = 0n) {
  const far = await PlacedNet.open(place, {}, { wanted, core });
  const { driver, run } = far;
  return {
    far,
    driver,
    run,
    /** What the driver gets of it, with buffers that are large enough. */
    receive: async (bytes: Uint8Array, header: HeaderFields = {}): Promise<ReceivedFrame[]> => {
      driver.postMany(0, driver.queue(0).free, 4500);
      far.give(bytes, header);
      await far.turn();
      return driver.frames();
    },
  };
}

/** A packet that is to be segmented, of each kind: the type, the features it needs, and the packet. */
function gso(
  payload = 3500,
): { type: number; needs: FeatureSet; bytes: Uint8Array; header: HeaderFields }[] {
  const one = (ip: 4 | 6, transport: "tcp" | "udp", type: number, needs: FeatureSet) => ({
    type,
    needs: needs | net.VIRTIO_NET_F_GUEST_CSUM,
    bytes: buildFrame({ ip, transport, to: TO, payload: pattern(payload), checksum: "partial" }),
    header: {
      flags: NEEDS_CSUM,
      gsoType: type,
      gsoSize: 1000,
      hdrLen: (ip === 4 ? 34 : 54) + (transport === "tcp" ? 20 : 8),
      csumStart: ip === 4 ? 34 : 54,
      csumOffset: transport === "tcp" ? 16 : 6,
    },
  });
  return [
    one(4, "tcp", net.VIRTIO_NET_HDR_GSO_TCPV4, net.VIRTIO_NET_F_GUEST_TSO4),
    one(6, "tcp", net.VIRTIO_NET_HDR_GSO_TCPV6, net.VIRTIO_NET_F_GUEST_TSO6),
    one(4, "udp", net.VIRTIO_NET_HDR_GSO_UDP, net.VIRTIO_NET_F_GUEST_UFO),
    one(4, "udp", net.VIRTIO_NET_HDR_GSO_UDP_L4, net.VIRTIO_NET_F_GUEST_USO4),
    one(6, "udp", net.VIRTIO_NET_HDR_GSO_UDP_L4, net.VIRTIO_NET_F_GUEST_USO6),
  ];
}
function layoutOf(bytes: Uint8Array): FrameLayout {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  return new FrameLayout().parse(view, bytes.length);
}
/** Whether the checksum of the transport is right; `from` and `at` say how it is to be completed first. */
function isRight(bytes: Uint8Array, complete?: { csumStart: number; csumOffset: number }): boolean {
  const packet = bytes.slice();
  if (complete !== undefined) {
    const { csumStart, csumOffset } = complete;
    const sum = ~naiveSum(packet.subarray(csumStart)) & 0xffff;
    packet.set([sum >> 8, sum & 255], csumStart + csumOffset);
  }
  const { networkOffset: ip, ipVersion, transportOffset, end, protocol } = layoutOf(packet);
  const addresses = ipVersion === 4
    ? packet.subarray(ip + 12, ip + 20)
    : packet.subarray(ip + 8, ip + 40);
  const body = [...packet.subarray(transportOffset, end)];
  const pseudo = [...addresses, 0, protocol, body.length >> 8, body.length & 255];
  return naiveSum([...pseudo, ...body]) === 0xffff;
}

everywhere(
  "5.1.9.3.2-D1 5.1.9.4.1-D2 5.1.9.4.1-D3: num_buffers is the number of buffers, and all but the last are full",
  async (place) => {
    for (const core of CORES) {
      await fc.assert(
        fc.asyncProperty(
          fc.array(fc.integer({ min: 12, max: 700 }), { minLength: 1, maxLength: 12 }),
          fc.integer({ min: 60, max: 2500 }),
          async (sizes, length) => {
            const { far, driver } = await open(place, net.VIRTIO_NET_F_MRG_RXBUF, core);
            for (const size of sizes) driver.post(0, [size]);
            const frame = plainFrame(length);
            far.give(frame);
            await far.turn();
            const used = driver.used[0]!.map((buffer) => buffer.used);
            const room = sizes.reduce((sum, size) => sum + size, 0);
            if (room < 12 + length) {
              assertEquals(used, []);
              return;
            }
            assertEquals(used.slice(0, -1), sizes.slice(0, used.length - 1));
            assertEquals(used.reduce((sum, one) => sum + one, 0), 12 + length);
            const count = used.length;
            const [{ header, bytes }] = driver.frames() as [ReceivedFrame];
            assertEquals(header.numBuffers, count);
            assertEquals(bytes, frame);
          },
        ),
        { numRuns: 12 },
      );
    }
  },
);

everywhere(
  "5.1.9.3.2-D2 5.1.9.4.1-D1: without MRG_RXBUF a packet takes one buffer, num_buffers is 1, and what does not fit is dropped",
  async (place) => {
    for (const core of CORES) {
      const { far, driver, run } = await open(place, 0n, core);
      for (const elements of [[1526], [12, 1514], [5, 7, 700, 814, 500]]) driver.post(0, elements);
      const frame = plainFrame(1514);
      for (let i = 0; i < 3; i++) far.give(frame);
      await far.turn();
      assertEquals(driver.used[0]!.length, 3);
      for (const { header, bytes } of driver.frames()) {
        assertEquals(header.numBuffers, 1);
        assertEquals(bytes, frame);
      }
      driver.postMany(0, 4, 1000);
      far.give(frame);
      far.give(plainFrame(988));
      await far.turn();
      const got = driver.frames();
      assertEquals(got.map(({ bytes, header }) => [bytes.length, header.numBuffers]), [[988, 1]]);
      assertEquals(run(({ device }) => device.stats.received[0]!.dropped), 1);
    }
  },
);

everywhere(
  "5.1.9.4.1-D4: all buffers of a packet are used together: the driver never sees a part of them",
  async (place) => {
    for (const core of CORES) {
      const { far, driver } = await open(place, net.VIRTIO_NET_F_MRG_RXBUF, core);
      const frame = plainFrame(3000);
      // Three of four buffers that it needs.
      driver.postMany(0, 3, 900);
      far.give(frame);
      await far.turn();
      assertEquals(driver.used[0], []);
      let seen: number[] = [];
      const { used } = driver.session.handlers!;
      driver.session.handlers!.used = (queue) => {
        used(queue);
        if (queue === 0) seen = driver.used[0]!.map((buffer) => buffer.used);
      };
      driver.post(0, [900]);
      await far.turn();
      assertEquals(seen, [900, 900, 900, 312]);
      assertEquals(driver.frames().map(({ bytes }) => bytes), [frame]);
    }
  },
);

everywhere(
  "5.1.9.4.1-D5: without GUEST_CSUM flags is 0, and the packet has its checksum",
  async (place) => {
    const { receive } = await open(place, 0n);
    for (const { bytes, header } of gso(500)) {
      const partial = { ...header, gsoType: 0, gsoSize: 0 };
      const [{ header: got, bytes: packet }] = await receive(bytes, partial) as [ReceivedFrame];
      assertEquals([got.flags, got.csumStart, got.csumOffset], [0, 0, 0]);
      assert(isRight(packet));
    }
    const full = buildFrame({ ip: 4, to: TO, payload: pattern(100) });
    for (const flags of [DATA_VALID, 0xf4, 0xf6]) {
      const [{ header, bytes }] = await receive(full, { flags }) as [ReceivedFrame];
      assertEquals(header.flags, 0);
      assertEquals(bytes, full);
    }
  },
);

everywhere(
  "5.1.9.4.1-D6 5.1.9.4.1-D7 5.1.9.4.1-D8 5.1.9.4.1-D9 5.1.9.4.1-D21: a driver gets no gso_type that it did not negotiate, but packets that were cut",
  async (place) => {
    for (const { type, needs, bytes, header } of gso()) {
      // Everything but this one, and nothing at all.
      for (
        const wanted of [
          GUEST & ~needs | net.VIRTIO_NET_F_GUEST_CSUM,
          net.VIRTIO_NET_F_GUEST_CSUM,
          0n,
        ]
      ) {
        const offered = wanted & ~net.VIRTIO_NET_F_GUEST_ECN;
        const { receive } = await open(place, offered);
        const got = await receive(bytes, header);
        assert(got.length >= 4);
        for (const packet of got) {
          assertEquals(packet.header.gsoType, net.VIRTIO_NET_HDR_GSO_NONE, `gso_type ${type}`);
          assertEquals(packet.header.gsoSize, 0);
          if (type === net.VIRTIO_NET_HDR_GSO_UDP) continue;
          const { flags } = packet.header;
          assert(isRight(packet.bytes, (flags & NEEDS_CSUM) !== 0 ? packet.header : undefined));
        }
      }
      // With what it needs it arrives as it is.
      const { receive } = await open(place, needs);
      const got = await receive(bytes, header);
      assertEquals(got.map((packet) => [packet.header.gsoType, packet.bytes.length]), [[
        type,
        bytes.length,
      ]]);
    }
  },
);

everywhere(
  "5.1.9.4.1-D10 5.1.9.4.1-D11 5.1.9.4.1-D24 5.1.9.4.1-D31 5.1.9.4.1-D34: no tunnel's bit, no RSC_INFO and no bit of IPsec is ever set, whatever a back end says",
  async (place) => {
    const { receive } = await open(place, GUEST);
    const full = buildFrame({ ip: 4, to: TO, payload: pattern(100) });
    const types = new Set<number>();
    for (let flags = 0; flags < 256; flags++) {
      for (const { header } of await receive(full, { flags, csumStart: 34, csumOffset: 16 })) {
        assertEquals(header.flags & ~(NEEDS_CSUM | DATA_VALID), 0);
      }
    }
    for (const { bytes, header } of gso()) {
      for (let gsoType = 0; gsoType < 256; gsoType++) {
        for (const packet of await receive(bytes, { ...header, gsoType })) {
          types.add(packet.header.gsoType);
          assertEquals(packet.header.flags & ~(NEEDS_CSUM | DATA_VALID), 0);
        }
      }
    }
    for (const type of types) assertEquals(type & 0x60, 0);
    assert(types.size > 5);
  },
);

everywhere(
  "5.1.9.4.1-D12: a packet with ECN is cut for a driver without GUEST_ECN, and has the ECN bit for one with it",
  async (place) => {
    for (const { bytes, header, needs } of gso().slice(0, 2)) {
      const ecn = { ...header, gsoType: header.gsoType! | net.VIRTIO_NET_HDR_GSO_ECN };
      const without = await open(place, needs);
      const cut = await without.receive(bytes, ecn);
      assertEquals(cut.length, 4);
      for (const packet of cut) assertEquals(packet.header.gsoType, net.VIRTIO_NET_HDR_GSO_NONE);
      const having = await open(place, needs | net.VIRTIO_NET_F_GUEST_ECN);
      const [whole, ...more] = await having.receive(bytes, ecn);
      assertEquals([whole!.header.gsoType, more.length], [ecn.gsoType, 0]);
    }
  },
);

everywhere(
  "5.1.9.4.1-D15 5.1.9.4.1-D16 5.1.9.4.1-D17 5.1.9.4.1-D18: with NEEDS_CSUM the stored checksum is the pseudo header's, and completing it as the header says is right",
  async (place) => {
    const { receive } = await open(place, net.VIRTIO_NET_F_GUEST_CSUM);
    for (const ip of [4, 6] as const) {
      for (const transport of ["tcp", "udp"] as const) {
        for (const tags of [[], [7]]) {
          const spec = { ip, transport, tags, to: TO, payload: pattern(333) };
          const partial = buildFrame({ ...spec, checksum: "partial" });
          const csumStart = layoutOf(partial).transportOffset;
          const csumOffset = transport === "tcp" ? 16 : 6;
          const given = { flags: NEEDS_CSUM, csumStart, csumOffset };
          const [{ header, bytes }] = await receive(partial, given) as [ReceivedFrame];
          assertEquals(header.flags, NEEDS_CSUM);
          assertEquals(bytes, partial);
          assert(isRight(bytes, header));
        }
      }
    }
    // Segments that the device made, which the driver is to complete.
    for (const { type, bytes, header } of gso()) {
      if (type === net.VIRTIO_NET_HDR_GSO_UDP) continue;
      for (const packet of await receive(bytes, header)) {
        const { flags } = packet.header;
        assert(isRight(packet.bytes, (flags & NEEDS_CSUM) !== 0 ? packet.header : undefined));
      }
    }
  },
);

everywhere("5.1.9.4.1-D22: with a gso_type NEEDS_CSUM is set, and gso_size", async (place) => {
  const { receive, run } = await open(place, GUEST);
  for (const { bytes, header } of gso()) {
    const [{ header: got }] = await receive(bytes, header) as [ReceivedFrame];
    assertEquals([got.gsoType, got.gsoSize, got.flags], [header.gsoType, 1000, NEEDS_CSUM]);
    // What lacks one of them is not passed on.
    assertEquals(await receive(bytes, { ...header, flags: 0 }), []);
  }
  assertEquals(run(({ device }) => device.stats.malformed), 5);
});

everywhere("5.1.9.4.1-D25: hdr_len is not less than the length of the headers", async (place) => {
  const { receive } = await open(place, GUEST);
  for (const { bytes, header } of gso()) {
    const [{ header: got }] = await receive(bytes, header) as [ReceivedFrame];
    assert(got.hdrLen >= layoutOf(bytes).payloadOffset);
  }
});

everywhere(
  "5.1.9.4.1-D26: DATA_VALID is not set because another driver says so: only what was found right is",
  async (place) => {
    // Two guests on one cable.
    const sender = await open(place, net.VIRTIO_NET_F_CSUM);
    const receiver = await open(place, GUEST);
    receiver.driver.postMany(0, 10, 2000);
    const frame = buildFrame({ ip: 4, to: TO, payload: pattern(100) });
    frame[60]! ^= 1;
    for (const flags of [DATA_VALID, 0xf6, 0]) {
      sender.driver.send(frame, { flags });
      await sender.far.turn();
      const [{ bytes, ...header }] = sender.far.sent() as [SentFrame];
      receiver.far.give(bytes, header);
      await receiver.far.turn();
      const [got] = receiver.driver.frames() as [ReceivedFrame];
      assertEquals(got.header.flags, 0);
      assertEquals(got.bytes, frame);
    }
    // A back end of the host's is believed: it has looked.
    receiver.far.give(buildFrame({ ip: 4, to: TO, payload: pattern(100) }), { flags: DATA_VALID });
    await receiver.far.turn();
    assertEquals(receiver.driver.frames().map(({ header }) => header.flags), [DATA_VALID]);
  },
);

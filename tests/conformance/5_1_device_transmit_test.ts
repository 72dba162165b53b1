/** Virtio 1.4, 5.1.9.2.2: what a network device does with packets that the driver sends. */
import * as net from "@virtio/net";
import { Offload } from "@virtio/net";
import { assert, assertEquals } from "@std/assert";
import { FrameLayout } from "../../packages/net/offload/parse.ts";
import { buildFrame, naiveSum, pattern } from "../../packages/net/offload/testing.ts";
import type { HeaderFields } from "../../packages/net/testing.ts";
import { PlacedNet } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const NEEDS_CSUM = net.VIRTIO_NET_HDR_F_NEEDS_CSUM;
const TUNNEL_IPV4 = 0x20;
const TUNNEL_IPV6 = 0x40;
const UDP_TUNNEL_CSUM = 8;
const OFFLOADS = net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_HOST_TSO4 | net.VIRTIO_NET_F_HOST_TSO6 |
  net.VIRTIO_NET_F_HOST_ECN | net.VIRTIO_NET_F_HOST_UFO | net.VIRTIO_NET_F_HOST_USO;

async function open(place: Place, wanted: bigint, offloads: number = Offload.all) {
  const far = await PlacedNet.open(place, { offloads }, { wanted });
  const { driver, run } = far;
  return {
    run,
    /** What the back end gets of it. */
    send: async (bytes: Uint8Array, header: HeaderFields = {}) => {
      driver.send(bytes, header);
      await far.turn();
      assertEquals(driver.used[1]!.length, 1);
      driver.used[1]!.length = 0;
      assertEquals(driver.transport.needsReset, false);
      return far.sent();
    },
  };
}
/** Whether the checksum of the transport is right. */
function isRight(bytes: Uint8Array): boolean {
  const layout = new FrameLayout().parse(
    new DataView(bytes.buffer, bytes.byteOffset, bytes.length),
    bytes.length,
  );
  const { networkOffset: ip, ipVersion, transportOffset, end, protocol } = layout;
  const addresses = ipVersion === 4 ? bytes.slice(ip + 12, ip + 20) : bytes.slice(ip + 8, ip + 40);
  const body = bytes.slice(transportOffset, end);
  const sum = naiveSum([
    ...addresses,
    ...[0, protocol],
    ...[body.length >> 8, body.length & 255],
    ...body,
    ...body.length % 2 ? [0] : [],
  ]);
  return sum === 0xffff;
}
const TSO: HeaderFields = {
  flags: NEEDS_CSUM,
  gsoType: net.VIRTIO_NET_HDR_GSO_TCPV4,
  gsoSize: 1000,
  csumStart: 34,
  csumOffset: 16,
};
const big = buildFrame({ ip: 4, payload: pattern(3500), checksum: "partial" });

everywhere("5.1.9.2.2-D1: bits of flags that are not known are ignored", async (place) => {
  const frame = buildFrame({ ip: 4, payload: pattern(100) });
  for (const wanted of [0n, OFFLOADS]) {
    const { send } = await open(place, wanted);
    for (const flags of [0x02, 0x04, 0x10, 0x20, 0x40, 0x80, 0xf6]) {
      const [sent] = await send(frame, { flags });
      assertEquals(sent?.bytes, frame);
      assertEquals(sent?.flags, 0);
    }
  }
});

everywhere(
  "5.1.9.2.2-D2: csum_start and csum_offset are not used without NEEDS_CSUM",
  async (place) => {
    const frame = buildFrame({ ip: 4, payload: pattern(100) });
    const places: HeaderFields[] = [
      { csumStart: 34, csumOffset: 16 },
      { csumStart: 0, csumOffset: 0 },
      { csumStart: 0xffff, csumOffset: 0xffff },
    ];
    for (const offloads of [Offload.all, 0]) {
      const { send } = await open(place, OFFLOADS, offloads);
      for (const place of places) {
        const [sent] = await send(frame, place);
        assertEquals(sent?.bytes, frame);
        assertEquals([sent?.flags, sent?.csumStart, sent?.csumOffset], [0, 0, 0]);
      }
    }
  },
);

everywhere(
  "5.1.9.2.2-D5 5.1.9.2.2-D6 5.1.9.2.2-D7: hdr_len is not relied on, with GUEST_HDRLEN or without: whatever it says, the same is sent",
  async (place) => {
    for (const hdrlen of [0n, net.VIRTIO_NET_F_GUEST_HDRLEN]) {
      for (const offloads of [0, Offload.all]) {
        const { send } = await open(place, OFFLOADS | hdrlen, offloads);
        const expected = (await send(big, { ...TSO, hdrLen: 54 })).map(({ bytes }) => bytes);
        assertEquals(expected.length, offloads === 0 ? 4 : 1);
        if (offloads === 0) assert(expected.every(isRight));
        for (const hdrLen of [0, 1, 14, 53, 55, 1500, 0xffff]) {
          const sent = await send(big, { ...TSO, hdrLen });
          assertEquals(sent.map(({ bytes }) => bytes), expected);
          // Nobody behind the device is told anything else than the truth.
          if (offloads !== 0) assertEquals(sent[0]!.hdrLen, 54);
        }
        const plain = buildFrame({ ip: 4, payload: pattern(100) });
        for (const hdrLen of [0, 54, 0xffff]) {
          assertEquals((await send(plain, { hdrLen })).map(({ bytes }) => bytes), [plain]);
        }
      }
    }
  },
);

everywhere(
  "5.1.9.2.2-D8 5.1.9.2.2-D10: packets with a tunnel's bits in gso_type are not accepted",
  async (place) => {
    const types = [TUNNEL_IPV4, TUNNEL_IPV6, TUNNEL_IPV4 | TUNNEL_IPV6];
    const { send, run } = await open(place, OFFLOADS);
    let dropped = 0;
    for (const tunnel of types) {
      for (const type of [0, 1, 3, 4, 5]) {
        for (const flags of [0, NEEDS_CSUM, NEEDS_CSUM | 2, NEEDS_CSUM | UDP_TUNNEL_CSUM]) {
          const header = { ...TSO, flags, gsoType: tunnel | type };
          assertEquals(await send(big, header), []);
          dropped++;
        }
      }
    }
    assertEquals(run(({ device }) => device.stats.sent[0]!.malformed), dropped);
    assertEquals((await send(big, TSO)).length, 1);
  },
);

everywhere(
  "5.1.9.2.2-D11: UDP_TUNNEL_CSUM without a tunnel's bit is not accepted",
  async (place) => {
    const { send } = await open(place, OFFLOADS);
    const frame = buildFrame({ ip: 4, transport: "udp", payload: pattern(100) });
    assertEquals(await send(frame, { flags: UDP_TUNNEL_CSUM }), []);
    assertEquals(
      await send(frame, { flags: UDP_TUNNEL_CSUM | NEEDS_CSUM, csumStart: 34, csumOffset: 6 }),
      [],
    );
    assertEquals(await send(big, { ...TSO, flags: UDP_TUNNEL_CSUM | NEEDS_CSUM }), []);
    assertEquals((await send(frame)).length, 1);
  },
);

everywhere(
  "5.1.9.2.2-D12: without NEEDS_CSUM nobody is told that the checksum is right, whatever the driver claims",
  async (place) => {
    const { send } = await open(place, OFFLOADS);
    const frame = buildFrame({ ip: 4, payload: pattern(100) });
    frame[50]! ^= 0xff;
    for (const flags of [0, net.VIRTIO_NET_HDR_F_DATA_VALID, 0xf6]) {
      const [sent] = await send(frame, { flags });
      assertEquals(sent!.bytes, frame);
      assertEquals(sent!.flags, 0);
    }
  },
);

everywhere(
  "5.1.9.2 a checksum left to the device is right when it is sent, and all segments of a packet are",
  async (place) => {
    const { send } = await open(place, OFFLOADS, 0);
    for (const ip of [4, 6] as const) {
      for (const transport of ["tcp", "udp"] as const) {
        const frame = buildFrame({ ip, transport, payload: pattern(777), checksum: "partial" });
        assert(!isRight(frame));
        const csumStart = ip === 4 ? 34 : 54;
        const csumOffset = transport === "tcp" ? 16 : 6;
        const [sent] = await send(frame, { flags: NEEDS_CSUM, csumStart, csumOffset });
        assert(isRight(sent!.bytes));
        const gsoType = transport === "udp"
          ? net.VIRTIO_NET_HDR_GSO_UDP_L4
          : ip === 4
          ? net.VIRTIO_NET_HDR_GSO_TCPV4
          : net.VIRTIO_NET_HDR_GSO_TCPV6;
        const gso = { flags: NEEDS_CSUM, gsoType, gsoSize: 100, csumStart, csumOffset };
        const segments = await send(frame, gso);
        assertEquals(segments.length, 8);
        for (const { bytes } of segments) assert(isRight(bytes));
      }
    }
  },
);

import { assert, assertEquals, assertThrows } from "@std/assert";
import { DeviceState, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import * as net from "./constants.ts";
import { NetDevice } from "./device.ts";
import { BUILT, REQUIRES } from "./settings.ts";
import { SpyBackend } from "./testing.ts";

const bit = (feature: bigint) => feature.toString(2).length - 1;

Deno.test("all that is built is offered unless told otherwise; MTU if there is one, MQ and RSS with pairs", () => {
  const { features } = new NetDevice({ backend: new SpyBackend() });
  assertEquals(
    features,
    BUILT & ~(net.VIRTIO_NET_F_MTU | net.VIRTIO_NET_F_MQ | net.VIRTIO_NET_F_RSS),
  );
  const all = new NetDevice({ backend: new SpyBackend(), mtu: 1500, queuePairs: 2 });
  assertEquals(all.features, BUILT);
  assertEquals(all.queueSizes, [256, 256, 256, 256, 64]);
});

Deno.test("what is not built is never offered", () => {
  for (
    const feature of [
      net.VIRTIO_NET_F_RSC_EXT,
      net.VIRTIO_NET_F_STANDBY,
      net.VIRTIO_NET_F_HASH_TUNNEL,
    ]
  ) {
    const device = new NetDevice({ backend: new SpyBackend(), features: ~0n });
    assertEquals(device.features & feature, 0n, `${bit(feature)}`);
  }
});

Deno.test("what depends on something that is not offered is not offered either", () => {
  const offered = (features: bigint) =>
    new NetDevice({ backend: new SpyBackend(), queuePairs: 2, features }).features;
  for (const [feature, needed] of REQUIRES) {
    assertEquals(offered(BUILT & ~needed) & feature, 0n, `${bit(feature)} without ${bit(needed)}`);
    const enough = feature | needed | net.VIRTIO_NET_F_STATUS;
    assert((offered(enough) & feature) !== 0n, `${bit(feature)} with ${bit(needed)}`);
  }
  const { VIRTIO_NET_F_CTRL_VQ: ctrl, VIRTIO_NET_F_STATUS: status } = net;
  for (
    const feature of [
      net.VIRTIO_NET_F_CTRL_RX_EXTRA,
      net.VIRTIO_NET_F_HASH_REPORT,
      net.VIRTIO_NET_F_DEVICE_STATS,
      net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS,
    ]
  ) assertEquals(offered(BUILT & ~ctrl) & feature, 0n, `${bit(feature)}`);
  assertEquals(offered(BUILT & ~status) & net.VIRTIO_NET_F_GUEST_ANNOUNCE, 0n);
  const tso = net.VIRTIO_NET_F_HOST_TSO4 | net.VIRTIO_NET_F_HOST_TSO6;
  assertEquals(offered(BUILT & ~tso) & net.VIRTIO_NET_F_HOST_ECN, 0n);
  assert((offered(BUILT & ~net.VIRTIO_NET_F_HOST_TSO6) & net.VIRTIO_NET_F_HOST_ECN) !== 0n);
  const guest = net.VIRTIO_NET_F_GUEST_TSO4 | net.VIRTIO_NET_F_GUEST_TSO6;
  assertEquals(offered(BUILT & ~guest) & net.VIRTIO_NET_F_GUEST_ECN, 0n);
  assertEquals(offered(BUILT & ~net.VIRTIO_NET_F_CTRL_VQ) & BUILT & net.VIRTIO_NET_F_MQ, 0n);
});

Deno.test("a driver that accepts a feature without what it needs is refused (5.1.3.1)", () => {
  const accepted = (features: bigint): boolean => {
    const device = new NetDevice({ backend: new SpyBackend(), queuePairs: 2, mtu: 1500 });
    const state = new DeviceState(device, {
      memory: GuestMemory.allocate(4096),
      carries: 0n,
      interrupt: { queue: () => {}, config: () => {} },
    });
    state.writeStatus(3);
    for (let word = 0; word < 4; word++) {
      state.writeDriverFeatures(
        word,
        Number(((features | VIRTIO_F_VERSION_1) >> BigInt(32 * word)) & 0xffff_ffffn),
      );
    }
    state.writeStatus(11);
    return (state.status & 8) !== 0;
  };
  for (const [feature, needed] of REQUIRES) {
    assertEquals([accepted(feature), accepted(feature | needed)], [false, true], `${bit(feature)}`);
  }
  for (
    const [ecn, csum, one, other] of [
      [
        net.VIRTIO_NET_F_GUEST_ECN,
        net.VIRTIO_NET_F_GUEST_CSUM,
        net.VIRTIO_NET_F_GUEST_TSO4,
        net.VIRTIO_NET_F_GUEST_TSO6,
      ],
      [
        net.VIRTIO_NET_F_HOST_ECN,
        net.VIRTIO_NET_F_CSUM,
        net.VIRTIO_NET_F_HOST_TSO4,
        net.VIRTIO_NET_F_HOST_TSO6,
      ],
    ] as const
  ) {
    assertEquals([accepted(ecn | csum), accepted(ecn | csum | one)], [false, true]);
    assertEquals(accepted(ecn | csum | other), true);
  }
  assertEquals(accepted(BUILT), true);
  assertEquals(accepted(0n), true);
});

Deno.test("the configuration space says what the options say", () => {
  const { config } = new NetDevice({
    backend: new SpyBackend(),
    mac: "52:54:00:12:34:56",
    mtu: 9000,
    queuePairs: 3,
    speed: 10_000,
    duplex: "full",
  });
  const { view } = config;
  assertEquals([...config.bytes.subarray(0, 6)], [0x52, 0x54, 0, 0x12, 0x34, 0x56]);
  const at = net.NetConfigOffset;
  assertEquals(view.getUint16(at.status, true), net.VIRTIO_NET_S_LINK_UP);
  assertEquals(view.getUint16(at.max_virtqueue_pairs, true), 3);
  assertEquals(view.getUint16(at.mtu, true), 9000);
  assertEquals([view.getUint32(at.speed, true), view.getUint8(at.duplex)], [10_000, 1]);
  assert(view.getUint8(at.rss_max_key_size) >= 40);
  assert(view.getUint16(at.rss_max_indirection_table_length, true) >= 128);
  assertEquals(view.getUint32(at.supported_hash_types, true), 0x1ff);
});

Deno.test("speed and duplex are unknown unless given", () => {
  const { view } = new NetDevice({ backend: new SpyBackend() }).config;
  assertEquals([view.getUint32(12, true), view.getUint8(16)], [0xffff_ffff, 0xff]);
  const half = new NetDevice({ backend: new SpyBackend(), duplex: "half" }).config.view;
  assertEquals(half.getUint8(16), 0);
});

Deno.test("a driver cannot write to the configuration space (5.1.4)", () => {
  const { config } = new NetDevice({ backend: new SpyBackend(), mac: "02:00:00:00:00:07" });
  config.write(0, 4, 0x1234);
  assertEquals(config.read(0, 4), 2);
});

Deno.test("a MAC address that is not given is random, and locally administered", () => {
  const macs = Array.from({ length: 32 }, () => new NetDevice({ backend: new SpyBackend() }).mac);
  for (const mac of macs) assertEquals(mac[0]! & 3, 2);
  assert(new Set(macs.map(String)).size > 30);
});

Deno.test("the back end's limit is the MTU unless a smaller one is given", () => {
  const backend = new SpyBackend();
  backend.maxMtu = 1400;
  const mtuOf = (device: NetDevice) => device.config.view.getUint16(10, true);
  const device = new NetDevice({ backend });
  assertEquals(mtuOf(device), 1400);
  assert((device.features & net.VIRTIO_NET_F_MTU) !== 0n);
  assertEquals(mtuOf(new NetDevice({ backend, mtu: 1280 })), 1280);
  assertThrows(() => new NetDevice({ backend, mtu: 1500 }), RangeError, "1400");
});

Deno.test("wrong options are refused with a sentence", () => {
  const backend = new SpyBackend();
  assertThrows(() => new NetDevice({} as never), TypeError, "backend");
  assertThrows(() => new NetDevice({ backend: { deliver: () => {} } } as never), TypeError);
  for (
    const options of [
      { mtu: 67 },
      { mtu: 65536 },
      { queuePairs: 0 },
      { queuePairs: 1.5 },
      { queuePairs: 1025 },
      { queueSize: 0 },
      { queueSize: 65536 },
      { speed: -1 },
      { speed: 2 ** 31 },
      { waiting: { frames: -1 } },
      { waiting: { bytes: NaN } },
      { mac: "02:00:00:00:00" },
      { mac: "01:00:00:00:00:00" },
      { mac: "zz:00:00:00:00:00" },
      { mac: new Uint8Array(5) },
      { mac: new Uint8Array([1, 0, 0, 0, 0, 0]) },
    ]
  ) assertThrows(() => new NetDevice({ backend, ...options }), RangeError);
});

/** Virtio 1.4, 5.1.4: the configuration of a network device, and what its MTU means. */
import type { Device, FeatureSet } from "@virtio/device";
import * as net from "@virtio/net";
import { NetDevice } from "@virtio/net";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { LocalTransport } from "../../packages/device/testing.ts";
import { GuestMemory } from "@virtio/memory";
import { plainFrame, SpyBackend } from "../../packages/net/testing.ts";
import { PlacedNet } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const at = net.NetConfigOffset;
const MAC = "02:00:00:00:00:01";

/** Where it is refused before it is anywhere. */
function make(options: Partial<net.NetDeviceOptions> = {}): NetDevice {
  return new NetDevice({ backend: new SpyBackend(), mac: MAC, ...options });
}
function offers(device: Device, feature: FeatureSet): boolean {
  return (device.features & feature) === feature;
}
/** Every choice of pairs and MTUs, and features with and without some of them. */
async function* devices(place: Place): AsyncGenerator<Device> {
  const without = [
    0n,
    net.VIRTIO_NET_F_CTRL_VQ,
    net.VIRTIO_NET_F_RSS,
    net.VIRTIO_NET_F_HASH_REPORT,
  ];
  for (const queuePairs of [1, 2, 16, 1024]) {
    for (const features of without) {
      for (const mtu of [{}, { mtu: 1500 }]) {
        const data = { queuePairs, queueSize: 4, features: ~features, ...mtu };
        yield (await place.open("net", data)).device;
      }
    }
  }
}

everywhere("5.1.4.1-D1: max_virtqueue_pairs is 1 to 0x8000 where MQ is offered", async (place) => {
  let offered = 0;
  for await (const device of devices(place)) {
    if (!offers(device, net.VIRTIO_NET_F_MQ)) continue;
    offered++;
    const pairs = device.config.read(at.max_virtqueue_pairs, 2);
    assert(pairs >= 1 && pairs <= 0x8000);
    assertEquals(device.queueSizes.length, 2 * pairs + 1);
  }
  assert(offered > 10);
  for (const queuePairs of [0, 1025, 0x8001, 1.5]) {
    assertThrows(() => make({ queuePairs }), RangeError);
  }
});

everywhere(
  "5.1.4.1-D2 5.1.4.1-D3: mtu is 68 to 65535 where MTU is offered, and at least 1280 unless the embedder wants less",
  async (place) => {
    for (const mtu of [68, 1280, 1500, 9000, 65535]) {
      const { device } = await place.open("net", { mtu });
      assert(offers(device, net.VIRTIO_NET_F_MTU));
      assertEquals(device.config.read(at.mtu, 2), mtu);
    }
    for (const mtu of [0, 67, 65536, -1]) assertThrows(() => make({ mtu }), RangeError);
    // Nobody asked for one: it is not offered, or is the back end's.
    assert(!offers((await place.open("net", {})).device, net.VIRTIO_NET_F_MTU));
    const { device } = await place.open("net", { maxMtu: 1500 });
    assert(offers(device, net.VIRTIO_NET_F_MTU));
    assertEquals(device.config.read(at.mtu, 2), 1500);
  },
);

everywhere(
  "5.1.4.1-D4: mtu stays as it is, through life, link changes and resets",
  async (place) => {
    const { device, driver, run } = await PlacedNet.open(place, { maxMtu: 9000, mtu: 1500 });
    run(({ device, backend }) => {
      backend.maxMtu = 1280;
      backend.onLinkChange?.();
      device.setLink(false);
      device.setLink(true);
    });
    driver.transport.writeConfig(at.mtu, 2, 68);
    assertEquals(device.config.read(at.mtu, 2), 1500);
    await driver.session.reset();
    assertEquals(device.config.read(at.mtu, 2), 1500);
  },
);

everywhere(
  "5.1.4.1-D5: once MTU was negotiated no packet reaches the driver that exceeds it, tags apart, unless it is to be segmented",
  async (place) => {
    for (const wanted of [~0n, ~net.VIRTIO_NET_F_MTU]) {
      const far = await PlacedNet.open(place, { mtu: 1500 }, { wanted });
      const { driver } = far;
      driver.postMany(0, 20, 4000);
      const tagged = (length: number) => {
        const frame = plainFrame(length);
        frame.set([0x81, 0, 0, 7], 12);
        return frame;
      };
      const frames = [plainFrame(1514), plainFrame(1515), tagged(1518), tagged(1519)];
      await driver.control(0, 0, [1]);
      for (const frame of frames) {
        far.give(frame);
        far.give(frame, { gsoType: net.VIRTIO_NET_HDR_GSO_ECN });
      }
      await far.turn();
      const right = wanted === ~0n ? [frames[0]!, frames[2]!] : frames;
      assertEquals(
        driver.frames().map(({ bytes }) => bytes),
        right.flatMap((frame) => [frame, frame]),
      );
    }
  },
);

everywhere("5.1.4.1-D6: packets of up to mtu are sent, in one piece", async (place) => {
  for (const mtu of [68, 1500, 9000, 65535]) {
    const far = await PlacedNet.open(place, { mtu });
    const { driver } = far;
    const frames = [60, mtu, mtu + 13, mtu + 14].filter((length) => length <= mtu + 14).map((
      length,
    ) => plainFrame(length));
    for (const frame of frames) {
      driver.send(frame);
      driver.send(frame, { gsoType: net.VIRTIO_NET_HDR_GSO_ECN });
      await far.turn();
    }
    const sent = far.sent();
    assertEquals(sent.map(({ bytes }) => bytes), frames.flatMap((frame) => [frame, frame]));
    assert(sent.every(({ gsoType }) => gsoType === net.VIRTIO_NET_HDR_GSO_NONE));
  }
});

everywhere(
  "5.1.4.1-D7: rss_max_key_size is at least 40 where RSS or HASH_REPORT is offered",
  async (place) => {
    let offered = 0;
    for await (const device of devices(place)) {
      const rss = net.VIRTIO_NET_F_RSS | net.VIRTIO_NET_F_HASH_REPORT;
      if ((device.features & rss) === 0n) continue;
      offered++;
      assert(device.config.read(at.rss_max_key_size, 1) >= 40);
      assert(device.config.read(at.supported_hash_types, 4) !== 0);
    }
    assert(offered > 10);
  },
);

everywhere(
  "5.1.4.1-D8: rss_max_indirection_table_length is at least 128 where RSS is offered",
  async (place) => {
    let offered = 0;
    for await (const device of devices(place)) {
      if (!offers(device, net.VIRTIO_NET_F_RSS)) continue;
      offered++;
      assert(device.config.read(at.rss_max_indirection_table_length, 2) >= 128);
    }
    assert(offered > 5);
  },
);

everywhere("5.1.4.1-D10: speed is 0 to 0x7fffffff, or unknown", async (place) => {
  assertEquals((await place.open("net", {})).device.config.read(at.speed, 4), 0xffff_ffff);
  for (const speed of [0, 10, 100_000, 0x7fff_ffff]) {
    const { device } = await place.open("net", { speed });
    assertEquals(device.config.read(at.speed, 4), speed);
  }
  for (const speed of [-1, 0x8000_0000, 0.5]) assertThrows(() => make({ speed }), RangeError);
});

// Here 5.1.4.1 says 0x00 for full and 0x01 for half duplex; 5.1.4 says the opposite, and so do all drivers.
everywhere(
  "5.1.4.1-D11: duplex is 0x01 for full, 0x00 for half, 0xff for unknown",
  async (place) => {
    for (const [duplex, value] of [[undefined, 0xff], ["full", 1], ["half", 0]] as const) {
      const { device } = await place.open("net", duplex === undefined ? {} : { duplex });
      assertEquals(device.config.read(at.duplex, 1), value);
    }
  },
);

everywhere("5.1.4.1-D12: speed and duplex do not change while the link is up", async (place) => {
  const { device, driver, run } = await PlacedNet.open(place, { speed: 1000, duplex: "full" });
  const seen: string[] = [];
  const look = () => {
    const { config } = device;
    seen.push(`${config.read(at.speed, 4)} ${config.read(at.duplex, 1)}`);
  };
  look();
  run(({ device }) => device.announce());
  look();
  run(({ device }) => {
    device.setLink(false);
    device.setLink(true);
  });
  look();
  driver.transport.writeConfig(at.speed, 4, 10);
  driver.transport.writeConfig(at.duplex, 1, 0);
  look();
  assertEquals(seen, ["1000 1", "1000 1", "1000 1", "1000 1"]);
});

everywhere(
  "5.1.4.1-D13 5.1.4.1-D14: HASH_REPORT and CTRL_RX_EXTRA are not offered without CTRL_VQ",
  async (place) => {
    for await (const device of devices(place)) {
      if (offers(device, net.VIRTIO_NET_F_CTRL_VQ)) continue;
      assert(!offers(device, net.VIRTIO_NET_F_HASH_REPORT));
      assert(!offers(device, net.VIRTIO_NET_F_CTRL_RX_EXTRA));
    }
    const { device: without } = await place.open("net", { features: ~net.VIRTIO_NET_F_CTRL_VQ });
    assert(!offers(without, net.VIRTIO_NET_F_CTRL_VQ));
    assert(
      offers(
        (await place.open("net", {})).device,
        net.VIRTIO_NET_F_HASH_REPORT | net.VIRTIO_NET_F_CTRL_RX_EXTRA,
      ),
    );
  },
);

everywhere(
  "5.1.3.1 a driver that accepts a feature without what it needs is refused",
  async (place) => {
    const pairs: [bigint, bigint][] = [
      [net.VIRTIO_NET_F_GUEST_TSO4, net.VIRTIO_NET_F_GUEST_CSUM],
      [net.VIRTIO_NET_F_GUEST_USO6, net.VIRTIO_NET_F_GUEST_CSUM],
      [net.VIRTIO_NET_F_HOST_TSO6, net.VIRTIO_NET_F_CSUM],
      [net.VIRTIO_NET_F_HOST_USO, net.VIRTIO_NET_F_CSUM],
      [net.VIRTIO_NET_F_CTRL_RX, net.VIRTIO_NET_F_CTRL_VQ],
      [net.VIRTIO_NET_F_MQ, net.VIRTIO_NET_F_CTRL_VQ],
      [net.VIRTIO_NET_F_RSS, net.VIRTIO_NET_F_CTRL_VQ],
      [net.VIRTIO_NET_F_NOTF_COAL, net.VIRTIO_NET_F_CTRL_VQ],
      [
        net.VIRTIO_NET_F_GUEST_ECN | net.VIRTIO_NET_F_GUEST_CSUM,
        net.VIRTIO_NET_F_GUEST_TSO6,
      ],
      [net.VIRTIO_NET_F_HOST_ECN | net.VIRTIO_NET_F_CSUM, net.VIRTIO_NET_F_HOST_TSO4],
    ];
    const agrees = async (features: bigint): Promise<boolean> => {
      const { device } = await place.open("net", { queuePairs: 2 });
      const transport = new LocalTransport(device, GuestMemory.allocate(2 ** 16), 1n << 32n);
      transport.writeStatus(1);
      transport.writeStatus(3);
      transport.writeDriverFeatures(features | 1n << 32n);
      transport.writeStatus(11);
      return (transport.readStatus() & 8) !== 0;
    };
    for (const [feature, needed] of pairs) {
      assertEquals([await agrees(feature), await agrees(feature | needed)], [false, true]);
    }
  },
);

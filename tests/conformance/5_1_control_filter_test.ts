/** Virtio 1.4, 5.1.9.5.1 to 5.1.9.5.4: what a network device receives, and what it does about being announced. */
import * as net from "@virtio/net";
import { assert, assertEquals } from "@std/assert";
import * as ctrl from "../../packages/net/control/constants.ts";
import { le16, macTable } from "../../packages/net/control/testing.ts";
import { plainFrame, RawNetDriver } from "../../packages/net/testing.ts";
import { PlacedNet } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const OWN = [2, 0, 0, 0, 0, 1];
const OTHER = [2, 0, 0, 0, 0, 9];
const MULTI = [1, 0, 0x5e, 0, 0, 1];
const BROADCAST = [255, 255, 255, 255, 255, 255];
const FEATURES = net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX |
  net.VIRTIO_NET_F_CTRL_RX_EXTRA | net.VIRTIO_NET_F_CTRL_MAC_ADDR;

async function open(place: Place, wanted: bigint = FEATURES) {
  const far = await PlacedNet.open(place, { mac: Uint8Array.from(OWN) }, { wanted });
  const { device, driver } = far;
  driver.postMany(0, 60, 200);
  const rx = async (command: number, value: number) =>
    (await driver.control(ctrl.VIRTIO_NET_CTRL_RX, command, [value]))[0];
  /** Which frames get through. */
  const through = async (frames: readonly Uint8Array[]) => {
    for (const frame of frames) far.give(frame);
    await far.turn();
    const got = driver.frames().map(({ bytes }) => String(bytes));
    driver.postMany(0, Math.max(1, got.length), 200);
    return frames.map((frame) => got.includes(String(frame)));
  };
  /** Which of own, other unicast, multicast and broadcast get through. */
  const seen = async () => {
    const frames = [OWN, OTHER, MULTI, BROADCAST].map((to, i) => plainFrame(60, i, to));
    return (await through(frames)).map(Number).join("");
  };
  return { far, device, driver, rx, seen, through };
}
function tagged(id: number, to = OWN): Uint8Array {
  const frame = plainFrame(64, id, to);
  frame.set([0x81, 0, id >> 8, id & 255], 12);
  return frame;
}

everywhere(
  "5.1.9.5.1.1-D1 5.1.9.5.1.1-D2 5.1.9.5.1.1-D3: PROMISC lets everything in, whatever the other modes say, until it is off",
  async (place) => {
    const { rx, seen } = await open(place);
    assertEquals(await seen(), "1001");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_PROMISC, 1), OK);
    assertEquals(await seen(), "1111");
    for (const command of [1, 2, 3, 4, 5]) {
      assertEquals(await rx(command, 1), OK);
      assertEquals(await seen(), "1111");
    }
    for (const command of [1, 2, 3, 4, 5]) assertEquals(await rx(command, 0), OK);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_PROMISC, 0), OK);
    assertEquals(await seen(), "1001");
  },
);

everywhere(
  "5.1.9.5.1.1-D4 5.1.9.5.1.1-D5: ALLMULTI lets every multicast packet in, until it is off",
  async (place) => {
    const { rx, seen, through } = await open(place);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLMULTI, 1), OK);
    assertEquals(await seen(), "1011");
    const groups = [0x01, 0x33, 0x03, 0xfd].map((first, i) =>
      plainFrame(60, i, [first, 1, 2, 3, 4, 5])
    );
    assertEquals(await through(groups), [true, true, true, true]);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLMULTI, 0), OK);
    assertEquals(await seen(), "1001");
    assertEquals(await through(groups), [false, false, false, false]);
  },
);

everywhere(
  "5.1.9.5.1.1-D6 5.1.9.5.1.1-D7: ALLUNI lets every unicast packet in, until it is off",
  async (place) => {
    const { rx, seen } = await open(place);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLUNI, 1), OK);
    assertEquals(await seen(), "1101");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLUNI, 0), OK);
    assertEquals(await seen(), "1001");
  },
);

everywhere(
  "5.1.9.5.1.1-D8 5.1.9.5.1.1-D9 5.1.9.5.1.1-D10 5.1.9.5.1.1-D11: NOMULTI keeps multicast packets out, with ALLMULTI too, but no broadcasts",
  async (place) => {
    const { driver, rx, seen } = await open(place);
    await driver.control(ctrl.VIRTIO_NET_CTRL_MAC, 0, [...macTable(), ...macTable(MULTI)]);
    assertEquals(await seen(), "1011");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOMULTI, 1), OK);
    assertEquals(await seen(), "1001");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLMULTI, 1), OK);
    assertEquals(await seen(), "1001");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOMULTI, 0), OK);
    assertEquals(await seen(), "1011");
  },
);

everywhere(
  "5.1.9.5.1.1-D12 5.1.9.5.1.1-D13 5.1.9.5.1.1-D14: NOUNI keeps unicast packets out, with ALLUNI too",
  async (place) => {
    const { rx, seen } = await open(place);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOUNI, 1), OK);
    assertEquals(await seen(), "0001");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLUNI, 1), OK);
    assertEquals(await seen(), "0001");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOUNI, 0), OK);
    assertEquals(await seen(), "1101");
  },
);

everywhere(
  "5.1.9.5.1.1-D15 5.1.9.5.1.1-D16 5.1.9.5.1.1-D17: NOBCAST keeps broadcasts out, with ALLMULTI too",
  async (place) => {
    const { rx, seen } = await open(place);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOBCAST, 1), OK);
    assertEquals(await seen(), "1000");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_ALLMULTI, 1), OK);
    assertEquals(await seen(), "1010");
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOBCAST, 0), OK);
    assertEquals(await seen(), "1011");
  },
);

everywhere(
  "5.1.9.5.1 commands whose feature was not negotiated are answered with VIRTIO_NET_ERR",
  async (place) => {
    const { rx } = await open(place, net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_PROMISC, 1), OK);
    assertEquals(await rx(ctrl.VIRTIO_NET_CTRL_RX_NOUNI, 1), ERR);
  },
);

everywhere("5.1.9.5.2.1-D1: the MAC filtering table is empty on reset", async (place) => {
  const { far, device, driver, seen } = await open(place);
  const tables = [...macTable(OTHER), ...macTable(MULTI)];
  await driver.control(ctrl.VIRTIO_NET_CTRL_MAC, ctrl.VIRTIO_NET_CTRL_MAC_TABLE_SET, tables);
  assertEquals(await seen(), "1111");
  await driver.session.reset();
  const again = await RawNetDriver.open(device, { wanted: FEATURES });
  again.postMany(0, 8, 200);
  for (const to of [OWN, OTHER, MULTI, BROADCAST]) far.give(plainFrame(60, 0, to));
  await far.turn();
  assertEquals(again.frames().map(({ bytes }) => [...bytes.subarray(0, 6)]), [OWN, BROADCAST]);
});

everywhere(
  "5.1.9.5.2.1-D2 5.1.9.5.2.1-D4: a table is in force when its command is used; what matches nothing is dropped",
  async (place) => {
    const { driver, far, seen } = await open(place);
    const { VIRTIO_NET_CTRL_MAC: cls, VIRTIO_NET_CTRL_MAC_TABLE_SET: command } = ctrl;
    assertEquals((await driver.control(cls, command, [...macTable(OTHER), ...macTable()]))[0], OK);
    assertEquals(await seen(), "1101");
    assertEquals((await driver.control(cls, command, [...macTable(), ...macTable(MULTI)]))[0], OK);
    assertEquals(await seen(), "1011");
    // Right behind the command, as soon as the driver can know of it.
    const data = [cls, command, ...macTable(), ...macTable()];
    let given = 0;
    driver.session.handlers!.used = (queue) => {
      if (queue !== driver.controlQueue) return;
      far.give(plainFrame(60, given++, MULTI));
    };
    driver.add(driver.controlQueue, data, [], [1]);
    await far.turn();
    assertEquals([given, driver.queue(0).take()], [1, -1]);
  },
);

everywhere(
  "5.1.9.5.2.1-D3: the configuration shows the address that the driver set when the command is used, if MAC was negotiated",
  async (place) => {
    for (const mac of [true, false]) {
      const wanted = mac ? FEATURES : FEATURES & ~net.VIRTIO_NET_F_MAC;
      const { far, device, driver } = await open(place, wanted);
      const shown: number[][] = [];
      driver.session.handlers!.used = (queue) => {
        if (queue === driver.controlQueue) shown.push([...device.config.bytes.subarray(0, 6)]);
      };
      driver.add(
        driver.controlQueue,
        [ctrl.VIRTIO_NET_CTRL_MAC, ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, ...OTHER],
        [],
        [1],
      );
      await far.turn();
      assertEquals(shown, [mac ? OTHER : OWN]);
      assertEquals(driver.queue(driver.controlQueue).take() >= 0, true);
      const { driver: other, seen } = await open(place, wanted);
      await other.control(ctrl.VIRTIO_NET_CTRL_MAC, ctrl.VIRTIO_NET_CTRL_MAC_ADDR_SET, OTHER);
      assertEquals(await seen(), "0101");
    }
  },
);

everywhere("5.1.9.5.3.1-D1: without CTRL_VLAN every tagged packet is accepted", async (place) => {
  const { through } = await open(place);
  const ids = [0, 1, 7, 100, 4094, 4095];
  assertEquals(await through(ids.map((id) => tagged(id))), ids.map(() => true));
});

everywhere(
  "5.1.9.5.3.1-D2: with CTRL_VLAN tagged packets are accepted whose VLAN is in the table, others are dropped, untagged ones are not touched",
  async (place) => {
    const { driver, through } = await open(place, FEATURES | net.VIRTIO_NET_F_CTRL_VLAN);
    const vlan = async (command: number, id: number) =>
      (await driver.control(ctrl.VIRTIO_NET_CTRL_VLAN, command, le16(id)))[0];
    const ids = [1, 7, 31, 32, 4095];
    const frames = [...ids.map((id) => tagged(id)), plainFrame(60, 9, OWN)];
    assertEquals(await through(frames), [false, false, false, false, false, true]);
    for (const id of [7, 32, 4095]) assertEquals(await vlan(ctrl.VIRTIO_NET_CTRL_VLAN_ADD, id), OK);
    assertEquals(await through(frames), [false, true, false, true, true, true]);
    assertEquals(await vlan(ctrl.VIRTIO_NET_CTRL_VLAN_DEL, 32), OK);
    assertEquals(await through(frames), [false, true, false, false, true, true]);
    assertEquals(await through([tagged(7, OTHER)]), [false]);
  },
);

everywhere(
  "5.1.9.5.4.2-D1: VIRTIO_NET_S_ANNOUNCE is cleared before the acknowledgement is used",
  async (place) => {
    const wanted = FEATURES | net.VIRTIO_NET_F_STATUS | net.VIRTIO_NET_F_GUEST_ANNOUNCE;
    const { far, device, driver } = await open(place, wanted);
    const status = () => device.config.view.getUint16(net.NetConfigOffset.status, true);
    assertEquals(status(), net.VIRTIO_NET_S_LINK_UP);
    assert(far.run(({ device }) => device.announce()));
    assertEquals(status(), net.VIRTIO_NET_S_LINK_UP | net.VIRTIO_NET_S_ANNOUNCE);
    assertEquals(driver.transport.configInterrupts > 0, true);
    const seen: number[] = [];
    driver.session.handlers!.used = (queue) => {
      if (queue === driver.controlQueue) seen.push(status());
    };
    const command = [ctrl.VIRTIO_NET_CTRL_ANNOUNCE, ctrl.VIRTIO_NET_CTRL_ANNOUNCE_ACK];
    driver.add(driver.controlQueue, command, [], [1]);
    await far.turn();
    assertEquals(seen, [net.VIRTIO_NET_S_LINK_UP]);
  },
);

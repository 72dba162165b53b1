/** Virtio 1.4, 5.1.9.5.10: how often a network device notifies its driver. */
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET } from "@virtio/device";
import * as net from "@virtio/net";
import { assertEquals } from "@std/assert";
import * as ctrl from "../../packages/net/control/constants.ts";
import { le16, le32 } from "../../packages/net/control/testing.ts";
import { plainFrame, RawNetDriver } from "../../packages/net/testing.ts";
import { PlacedNet } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const FEATURES = net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_MQ |
  net.VIRTIO_NET_F_NOTF_COAL | net.VIRTIO_NET_F_VQ_NOTF_COAL;
const PAIRS = 2;

async function open(place: Place, core = VIRTIO_F_RING_RESET) {
  const far = await PlacedNet.open(place, { queuePairs: PAIRS }, { wanted: FEATURES, core });
  const { driver } = far;
  for (let pair = 0; pair < PAIRS; pair++) driver.postMany(2 * pair, 40, 200);
  const command = (number: number, data: readonly number[], result = 0) =>
    driver.control(ctrl.VIRTIO_NET_CTRL_NOTF_COAL, number, data, result);
  const { transport } = driver;
  /** Interrupts that something makes, of any queue. */
  const interrupts = async (action: () => void | Promise<unknown>): Promise<number> => {
    const before = transport.queueInterrupts;
    await action();
    await far.turn();
    return transport.queueInterrupts - before;
  };
  return {
    far,
    device: far.device,
    driver,
    /** Time goes by for the device. */
    pass: (microseconds: number) => far.run(({ clock }, us) => clock.pass(us), microseconds),
    interrupts,
    receive: (count = 1) => {
      for (let i = 0; i < count; i++) far.give(plainFrame(60, i));
    },
    setAll: async (transmit: boolean, packets: number, usecs: number) =>
      (await command(transmit ? 0 : 1, [...le32(packets), ...le32(usecs)]))[0],
    set: async (queue: number, packets: number, usecs: number, reserved = 0) =>
      (await command(2, [
        ...[...le16(queue), ...le16(reserved)],
        ...[...le32(packets), ...le32(usecs)],
      ]))[0],
    get: async (queue: number, reserved = 0) => {
      const bytes = await command(3, [...le16(queue), ...le16(reserved)], 8);
      if (bytes[0] !== OK) return null;
      const view = new DataView(bytes.buffer);
      return [view.getUint32(1, true), view.getUint32(5, true)];
    },
    setPairs: (pairs: number) => driver.control(ctrl.VIRTIO_NET_CTRL_MQ, 0, le16(pairs)),
  };
}

everywhere("5.1.9.5.10.6-D1: reserved is ignored", async (place) => {
  const { set, get } = await open(place);
  for (const reserved of [0, 1, 0xffff]) {
    assertEquals(await set(0, 5 + reserved, 6, reserved), OK);
    assertEquals(await get(0, reserved), [5 + reserved, 6]);
  }
});

everywhere(
  "5.1.9.5.10.6-D2 5.1.9.5.10.6-D3: a command that cannot be done is answered with VIRTIO_NET_ERR",
  async (place) => {
    const { driver, get, set } = await open(place);
    await set(0, 7, 8);
    for (const [command, length] of [[0, 7], [0, 9], [1, 4], [1, 0], [2, 11], [2, 13], [4, 8]]) {
      const data = new Array(length).fill(0);
      const [ack] = await driver.control(ctrl.VIRTIO_NET_CTRL_NOTF_COAL, command!, data);
      assertEquals(ack, ERR);
    }
    assertEquals(await get(0), [7, 8]);
  },
);

everywhere(
  "5.1.9.5.10.6-D4: VQ_SET and VQ_GET of a virtqueue that is no enabled transmit or receive virtqueue fail",
  async (place) => {
    const { set, get, setPairs } = await open(place);
    for (const queue of [2, 3, 4, 5, 0xffff]) {
      assertEquals([await set(queue, 1, 1), await get(queue)], [ERR, null]);
    }
    await setPairs(2);
    for (const queue of [2, 3]) {
      assertEquals([await set(queue, 1, 1), await get(queue)], [OK, [1, 1]]);
    }
    // The control queue is neither.
    for (const queue of [4, 5, 0xffff]) {
      assertEquals([await set(queue, 1, 1), await get(queue)], [ERR, null]);
    }
  },
);

everywhere(
  "5.1.9.5.10.6-D5 5.1.9.5.10.6-D6: a queue that was disabled and is enabled again has the parameters of its kind, or 0",
  async (place) => {
    const { set, get, setAll, setPairs, driver } = await open(place);
    const again = async () => {
      await setPairs(1);
      await setPairs(2);
    };
    await setPairs(2);
    for (const queue of [2, 3]) await set(queue, 7, 8);
    await again();
    assertEquals([await get(2), await get(3)], [[0, 0], [0, 0]]);
    await setAll(true, 3, 4);
    for (const queue of [2, 3]) await set(queue, 7, 8);
    await again();
    assertEquals([await get(2), await get(3)], [[0, 0], [3, 4]]);
    await setAll(false, 5, 6);
    for (const queue of [2, 3]) await set(queue, 7, 8);
    await again();
    assertEquals([await get(2), await get(3)], [[5, 6], [3, 4]]);
    // Disabled by a reset of the virtqueue.
    for (const queue of [0, 1]) await set(queue, 7, 8);
    for (const queue of [0, 1]) await driver.session.resetQueue(queue);
    assertEquals([await get(0), await get(1)], [[5, 6], [3, 4]]);
  },
);

everywhere(
  "5.1.9.5.10.6-D7: a notification comes with the last of max_packets, or with the first tick of the device's clock after max_usecs",
  async (place) => {
    for (const core of [0n, VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX]) {
      const { setAll, receive, interrupts, pass, driver } = await open(place, core);
      assertEquals(await interrupts(() => receive(1)), 1);
      await setAll(false, 5, 1000);
      assertEquals(await interrupts(() => receive(4)), 0);
      assertEquals(await interrupts(() => receive(1)), 1);
      assertEquals(await interrupts(() => receive(3)), 0);
      assertEquals(await interrupts(() => pass(999)), 0);
      assertEquals(await interrupts(() => pass(1)), 1);
      assertEquals(await interrupts(() => pass(10_000)), 0);
      assertEquals(driver.frames().length, 9);
      // The transmit queue has parameters of its own.
      const send = () => void driver.send(plainFrame(60));
      assertEquals(await interrupts(send), 1);
      await setAll(true, 2, 1000);
      assertEquals(await interrupts(send), 0);
      assertEquals(await interrupts(send), 1);
    }
  },
);

everywhere(
  "5.1.9.5.10.1 with max_packets or max_usecs of 0 a notification follows every packet",
  async (place) => {
    const { setAll, receive, interrupts } = await open(place);
    for (const [packets, usecs] of [[0, 1000], [5, 0]] as const) {
      await setAll(false, packets, usecs);
      for (let i = 0; i < 3; i++) assertEquals(await interrupts(() => receive(1)), 1);
    }
  },
);

everywhere("5.1.9.5.10.4 new parameters make a notification due at once", async (place) => {
  const { setAll, receive, interrupts } = await open(place);
  await setAll(false, 15, 1000);
  assertEquals(await interrupts(() => receive(10)), 0);
  // One of the two is the command's own.
  assertEquals(await interrupts(() => setAll(false, 11, 1000)), 1);
  assertEquals(await interrupts(() => setAll(false, 8, 1000)), 2);
});

everywhere(
  "5.1.9.5.10.6-D8: nothing is notified while the driver suppresses it, though the conditions are met",
  async (place) => {
    for (const core of [0n, VIRTIO_F_RING_PACKED, VIRTIO_F_EVENT_IDX]) {
      const { setAll, receive, interrupts, pass, driver } = await open(place, core);
      await setAll(false, 3, 1000);
      const queue = driver.queue(0);
      queue.disableInterrupts();
      // With an event index the driver says so by asking for nothing new after what it has seen.
      assertEquals(await interrupts(() => receive(1)), 0);
      if (core === VIRTIO_F_EVENT_IDX) continue;
      assertEquals(await interrupts(() => receive(2)), 0);
      assertEquals(await interrupts(() => receive(1)), 0);
      assertEquals(await interrupts(() => pass(5000)), 0);
    }
  },
);

everywhere("5.1.9.5.10.6-D9: after a reset all parameters are 0", async (place) => {
  const { setAll, set, driver, device, setPairs } = await open(place);
  await setPairs(2);
  await setAll(false, 5, 6);
  await setAll(true, 5, 6);
  await set(2, 7, 8);
  await driver.session.reset();
  const again = await RawNetDriver.open(device, { wanted: FEATURES });
  await again.control(ctrl.VIRTIO_NET_CTRL_MQ, 0, le16(2));
  for (const queue of [0, 1, 2, 3]) {
    const data = [...le16(queue), 0, 0];
    const bytes = await again.control(ctrl.VIRTIO_NET_CTRL_NOTF_COAL, 3, data, 8);
    assertEquals([...bytes], [OK, 0, 0, 0, 0, 0, 0, 0, 0]);
  }
});

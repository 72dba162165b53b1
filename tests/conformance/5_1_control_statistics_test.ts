/** Virtio 1.4, 5.1.9.5.11: the statistics that a network device gives its driver. */
import * as net from "@virtio/net";
import { assert, assertEquals } from "@std/assert";
import * as ctrl from "../../packages/net/control/constants.ts";
import { le16, statsEntry } from "../../packages/net/control/testing.ts";
import { plainFrame, UNTOUCHED } from "../../packages/net/testing.ts";
import { PlacedNet } from "./placed_net.ts";
import { everywhere, type Place } from "./places.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const FEATURES = net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX |
  net.VIRTIO_NET_F_DEVICE_STATS | net.VIRTIO_NET_F_MQ;
const CVQ = 1n << 32n;

async function open(place: Place, wanted: bigint = FEATURES) {
  const far = await PlacedNet.open(place, { queuePairs: 2 }, { wanted });
  const { driver } = far;
  const get = (entries: readonly number[][], room = 1000) =>
    driver.control(
      ctrl.VIRTIO_NET_CTRL_STATS,
      ctrl.VIRTIO_NET_CTRL_STATS_GET,
      entries.flat(),
      room,
    );
  const query = async () => {
    const bytes = await driver.control(
      ctrl.VIRTIO_NET_CTRL_STATS,
      ctrl.VIRTIO_NET_CTRL_STATS_QUERY,
      [],
      8,
    );
    assertEquals(bytes[0], OK);
    return new DataView(bytes.buffer).getBigUint64(1, true);
  };
  return { far, driver, get, query };
}
function counters(bytes: Uint8Array, count: number, from = 1): bigint[] {
  const view = new DataView(bytes.buffer, bytes.byteOffset);
  return Array.from({ length: count }, (_, i) => view.getBigUint64(from + 8 + 8 * i, true));
}

everywhere(
  "5.1.9.5.11.12-D1: VIRTIO_NET_CTRL_STATS_QUERY is answered with all types that can be had",
  async (place) => {
    const basic = CVQ | 0x10001n;
    assertEquals(await (await open(place)).query(), basic);
    const { query, get } = await open(
      place,
      FEATURES | net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_HOST_TSO4 |
        net.VIRTIO_NET_F_GUEST_TSO6,
    );
    const all = await query();
    assertEquals(all, basic | 0x70007n);
    for (let bit = 0n; bit < 64n; bit++) {
      if ((all & 1n << bit) === 0n) continue;
      const queue = bit === 32n ? 4 : bit >= 16n ? 1 : 0;
      assertEquals((await get([statsEntry(queue, 1n << bit)]))[0], OK);
    }
  },
);

everywhere(
  "5.1.9.5.11.12-D2 5.1.9.5.11.12-D3: anything wrong in what is asked for fails the whole command",
  async (place) => {
    const { get } = await open(place);
    const good = statsEntry(0, 1n);
    const bad = [
      // Beyond the last queue.
      statsEntry(5, 1n),
      statsEntry(0xfffe, 1n),
      // Types that there are not.
      statsEntry(0, 1n << 4n),
      statsEntry(0, 1n << 63n),
      statsEntry(4, 1n << 33n),
      // Types of other queues.
      statsEntry(0, 1n << 16n),
      statsEntry(1, 1n),
      statsEntry(1, CVQ),
      statsEntry(4, 1n),
      // Types whose feature was not negotiated.
      statsEntry(0, 1n << 1n),
      statsEntry(0, 1n << 2n),
      statsEntry(1, 1n << 17n),
      statsEntry(1, 1n << 18n),
    ];
    for (const entry of bad) {
      for (const entries of [[entry], [good, entry], [entry, good], [good, entry, good]]) {
        const bytes = await get(entries, 200);
        assertEquals(bytes[0], ERR);
        assertEquals(bytes.subarray(1).every((byte) => byte === UNTOUCHED), true);
      }
    }
    assertEquals((await get([good, good]))[0], OK);
  },
);

everywhere(
  "5.1.9.5.11.12-D4 5.1.9.5.11.12-D5: each reply has its type, its virtqueue, and its size with the header",
  async (place) => {
    const { get } = await open(
      place,
      FEATURES | net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_HOST_TSO4 |
        net.VIRTIO_NET_F_GUEST_TSO6,
    );
    const sizes = [[0, 0, 56], [1, 0, 40], [2, 0, 40], [16, 1, 56], [17, 1, 24], [18, 1, 56], [
      ...[32, 4, 24],
    ]] as const;
    for (const [type, queue, size] of sizes) {
      const bytes = await get([statsEntry(queue, 1n << BigInt(type))]);
      assertEquals([...bytes.subarray(0, 9)], [
        ...[OK, type, 0],
        ...le16(queue),
        ...[0, 0],
        ...le16(size),
      ]);
      assertEquals(bytes.subarray(1 + size).every((byte) => byte === UNTOUCHED), true);
    }
    const bytes = await get([statsEntry(0, 7n), statsEntry(3, 0x70000n), statsEntry(4, CVQ)]);
    const view = new DataView(bytes.buffer);
    const seen: number[][] = [];
    for (let at = 1; bytes[at] !== UNTOUCHED;) {
      seen.push([view.getUint8(at), view.getUint16(at + 2, true)]);
      at += view.getUint16(at + 6, true);
    }
    assertEquals(seen, [[0, 0], [1, 0], [2, 0], [16, 3], [17, 3], [18, 3], [32, 4]]);
  },
);

everywhere(
  "5.1.9.5.11.12-D6: a result buffer of any size is filled as far as there are statistics, and no further",
  async (place) => {
    const { get, driver, far } = await open(place);
    const whole = (await get([statsEntry(1, 1n << 16n), statsEntry(3, 1n << 16n)])).slice(0, 113);
    for (const room of [1, 7, 8, 55, 56, 57, 100, 112, 113, 500]) {
      driver.add(
        driver.controlQueue,
        [8, 1, ...statsEntry(1, 1n << 16n), ...statsEntry(3, 1n << 16n)],
        [],
        [1 + room],
      );
      await far.turn();
      const { bytes, used } = driver.used[driver.controlQueue]!.shift()!;
      const filled = Math.min(room, 112);
      assertEquals(used, 1 + filled);
      assertEquals([...bytes.subarray(0, 1 + filled)], [...whole.subarray(0, 1 + filled)]);
      assertEquals(bytes.subarray(1 + filled).every((byte) => byte === UNTOUCHED), true);
    }
  },
);

everywhere("5.1.9.5.11.12-D7: a counter that overflows wraps around to zero", async (place) => {
  const { get, far, driver } = await open(place);
  // The largest number below 2^64 that the counter can be; a frame of 2,048 bytes is what is missing.
  far.run(({ device }) => void (device.stats.sent[0]!.bytes = 2 ** 64 - 2048));
  const entry = [statsEntry(1, 1n << 16n)];
  assertEquals(counters(await get(entry), 6)[2], 2n ** 64n - 2048n);
  driver.send(plainFrame(2048));
  await far.turn();
  assertEquals(counters(await get(entry), 6)[2], 0n);
});

everywhere(
  "5.1.9.5.11.3 5.1.9.5.11.4 5.1.9.5.11.5: what is counted is what happened",
  async (place) => {
    const { get, driver, far } = await open(place);
    const before = counters(await get([statsEntry(0, 1n)]), 6);
    driver.postMany(0, 3, 200);
    for (let i = 0; i < 3; i++) far.give(plainFrame(100, i));
    await far.turn();
    driver.send(plainFrame(300));
    // Too short to be a frame.
    driver.send(plainFrame(60).subarray(0, 5));
    await far.turn();
    const [kicks, packets, bytes, interrupts, drops, overruns] = counters(
      await get([statsEntry(0, 1n)]),
      6,
    );
    assertEquals([packets, bytes, drops, overruns], [3n, 300n, 0n, 0n]);
    assertEquals(kicks! - before[0]!, 1n);
    assert(interrupts! > before[3]!);
    const sent = counters(await get([statsEntry(1, 1n << 16n)]), 6);
    assertEquals([sent[1], sent[2], sent[4], sent[5]], [1n, 300n, 1n, 1n]);
    const commands = counters(await get([statsEntry(4, CVQ)]), 2);
    assertEquals(commands, [4n, 4n]);
    await get([statsEntry(9, 1n)]);
    assertEquals(counters(await get([statsEntry(4, CVQ)]), 2), [6n, 5n]);
  },
);

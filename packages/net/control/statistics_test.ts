/** Device statistics: which there are, and what the driver gets when it asks. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import * as net from "../constants.ts";
import * as ctrl from "./constants.ts";
import { ALL_FEATURES, ControlRig, le16, le64, statsEntry, UNTOUCHED } from "./testing.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const STATS = ctrl.VIRTIO_NET_CTRL_STATS;
const CVQ = 1n << 32n;
const RX = 0x7n;
const TX = 0x70000n;

function query(rig: ControlRig): bigint {
  const { ack, result, used } = rig.send([STATS, 0], { room: 9 });
  assertEquals([ack, used], [OK, 9]);
  return new DataView(Uint8Array.from(result).buffer).getBigUint64(0, true);
}
function get(rig: ControlRig, entries: readonly number[][], room = 4000) {
  return rig.send([STATS, 1, ...entries.flat()], { room: room + 1 });
}
/** A reply as the standard lays it out. */
function reply(type: number, queue: number, ...counters: number[]): number[] {
  return [
    ...[type, 0],
    ...le16(queue),
    ...[0, 0],
    ...le16(8 + 8 * counters.length),
    ...counters.flatMap((counter) => le64(BigInt(counter))),
  ];
}
/** The replies of a pair's queues, from the host's counters. */
const replies: Record<number, (rig: ControlRig, queue: number) => number[]> = {
  0: (rig, queue) => {
    const { packets, bytes, drops, dropOverruns } = rig.host.received[queue >> 1]!;
    return reply(0, queue, 1000 + queue, packets, bytes, 2000 + queue, drops, dropOverruns);
  },
  1: (rig, queue) => {
    const { csumValid, needsCsum, csumNone, csumBad } = rig.host.received[queue >> 1]!;
    return reply(1, queue, csumValid, needsCsum, csumNone, csumBad);
  },
  2: (rig, queue) => {
    const rx = rig.host.received[queue >> 1]!;
    const { gsoPackets, gsoBytes, gsoPacketsCoalesced, gsoBytesCoalesced } = rx;
    return reply(2, queue, gsoPackets, gsoBytes, gsoPacketsCoalesced, gsoBytesCoalesced);
  },
  16: (rig, queue) => {
    const { packets, bytes, drops, dropMalformed } = rig.host.sent[queue >> 1]!;
    return reply(16, queue, 1000 + queue, packets, bytes, 2000 + queue, drops, dropMalformed);
  },
  17: (rig, queue) => {
    const { csumNone, needsCsum } = rig.host.sent[queue >> 1]!;
    return reply(17, queue, csumNone, needsCsum);
  },
  18: (rig, queue) => {
    const tx = rig.host.sent[queue >> 1]!;
    const { gsoPackets, gsoBytes, gsoSegments, gsoSegmentsBytes } = tx;
    return reply(
      ...[18, queue] as const,
      ...[gsoPackets, gsoBytes, gsoSegments, gsoSegmentsBytes],
      ...[tx.gsoPacketsNoseg, tx.gsoBytesNoseg],
    );
  },
};

Deno.test("the types that can be had follow from the features", () => {
  assertEquals(query(new ControlRig()), CVQ | RX | TX);
  const { VIRTIO_NET_F_DEVICE_STATS: only } = net;
  const types: [bigint, bigint][] = [
    [0n, CVQ | 0x10001n],
    [net.VIRTIO_NET_F_GUEST_CSUM, CVQ | 0x10003n],
    [net.VIRTIO_NET_F_CSUM, CVQ | 0x30001n],
    [net.VIRTIO_NET_F_GUEST_TSO4, CVQ | 0x10005n],
    [net.VIRTIO_NET_F_GUEST_TSO6, CVQ | 0x10005n],
    [net.VIRTIO_NET_F_HOST_TSO4, CVQ | 0x50001n],
    [net.VIRTIO_NET_F_HOST_TSO6, CVQ | 0x50001n],
    [net.VIRTIO_NET_F_HOST_USO, CVQ | 0x50001n],
    [net.VIRTIO_NET_F_HOST_UFO | net.VIRTIO_NET_F_GUEST_UFO, CVQ | 0x10001n],
  ];
  for (const [features, expected] of types) {
    const rig = new ControlRig(only | features);
    assertEquals(query(rig), expected);
    for (let bit = 0n; bit < 64n; bit++) {
      const queue = bit === 32n ? 2 : bit >= 16n && bit < 32n ? 1 : 0;
      const can = (expected & 1n << bit) !== 0n;
      assertEquals(get(rig, [statsEntry(queue, 1n << bit)]).ack, can ? OK : ERR, `bit ${bit}`);
    }
  }
});

Deno.test("every type of every queue, in one command and in many", () => {
  const rig = new ControlRig();
  const all: number[] = [];
  const entries: number[][] = [];
  for (let queue = 0; queue < 8; queue++) {
    const first = (queue & 1) * 16;
    const both = [first, first + 1, first + 2].map((type) => replies[type]!(rig, queue)).flat();
    const { ack, result, used } = get(rig, [statsEntry(queue, queue & 1 ? TX : RX)]);
    assertEquals([ack, used], [OK, 1 + both.length]);
    assertEquals(result.slice(0, both.length), both);
    all.push(...both);
    entries.push(statsEntry(queue, queue & 1 ? TX : RX, [9, 9, 9, 9, 9, 9]));
  }
  const { ack, result, used } = get(rig, entries);
  assertEquals([ack, used], [OK, 1 + all.length]);
  assertEquals(result.slice(0, all.length), all);
});

Deno.test("the control queue counts the command that asks, and those that succeeded", () => {
  const rig = new ControlRig();
  rig.ack(99, 99);
  rig.ack(ctrl.VIRTIO_NET_CTRL_RX, 0, 1);
  const first = get(rig, [statsEntry(8, CVQ)]);
  assertEquals(first.result.slice(0, 24), reply(32, 8, 3, 2));
  assertEquals(get(rig, [statsEntry(8, CVQ | 1n)]).ack, ERR);
  assertEquals(get(rig, [statsEntry(8, CVQ)]).result.slice(0, 24), reply(32, 8, 5, 3));
  // A reset of the device does not reset its counters.
  rig.control.reset(ALL_FEATURES);
  assertEquals(get(rig, [statsEntry(8, CVQ)]).result.slice(0, 24), reply(32, 8, 6, 4));
});

Deno.test("with one pair the control queue is queue 2, whatever the device could do", () => {
  const rig = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_MQ & ~net.VIRTIO_NET_F_RSS);
  assertEquals(rig.control.queue, 2);
  assertEquals(get(rig, [statsEntry(2, CVQ)]).result.slice(0, 24), reply(32, 2, 1, 1));
  assertEquals(get(rig, [statsEntry(2, 1n)]).ack, ERR);
  assertEquals(get(rig, [statsEntry(3, 0n)]).ack, ERR);
});

Deno.test("one wrong entry fails the whole command", () => {
  const rig = new ControlRig();
  const good = statsEntry(0, RX);
  const bad = [
    statsEntry(9, 0n),
    statsEntry(0xffff, 1n),
    statsEntry(0, 1n << 16n),
    statsEntry(1, 1n),
    statsEntry(0, CVQ),
    statsEntry(8, 1n),
    statsEntry(0, 1n << 3n),
    statsEntry(0, 1n << 63n),
    good.slice(0, -1),
    [...good, 0],
  ];
  for (const entry of bad) {
    for (const entries of [[entry], [good, entry]]) {
      const { ack, result, used } = get(rig, entries);
      assertEquals([ack, used], [ERR, 1]);
      assertEquals(result.every((byte) => byte === UNTOUCHED), true);
    }
  }
  assertEquals(get(rig, [bad[0]!, good]).ack, ERR);
});

Deno.test("a result that does not fit fills its room, no more; nothing asked for is nothing answered", () => {
  const rig = new ControlRig();
  const whole = get(rig, [statsEntry(0, RX), statsEntry(1, TX)]).result.slice(0, 272);
  for (let room = 0; room <= 280; room++) {
    const { ack, result, used } = get(rig, [statsEntry(0, RX), statsEntry(1, TX)], room);
    const filled = Math.min(room, 272);
    assertEquals([ack, used], [OK, 1 + filled]);
    assertEquals(result.slice(0, filled), whole.slice(0, filled));
    assertEquals(result.slice(filled).every((byte) => byte === UNTOUCHED), true);
  }
  for (const entries of [[], [statsEntry(0, 0n)]]) {
    const { ack, used } = get(rig, entries);
    assertEquals([ack, used], [OK, 1]);
  }
});

Deno.test("a driver may ask four times for each queue, not more", () => {
  const rig = new ControlRig(ALL_FEATURES, 1);
  assertEquals(get(rig, Array.from({ length: 12 }, () => statsEntry(0, 1n))).ack, OK);
  assertEquals(get(rig, Array.from({ length: 13 }, () => statsEntry(0, 1n))).ack, ERR);
});

Deno.test("bad queries; no statistics without the feature", () => {
  const rig = new ControlRig();
  assertEquals(rig.send([STATS, 0, 0], { room: 9 }).ack, ERR);
  assertEquals(rig.send([STATS, 0], { room: 8 }).ack, ERR);
  assertEquals(rig.send([STATS, 2], { room: 9 }).ack, ERR);
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_DEVICE_STATS);
  assertEquals(without.send([STATS, 0], { room: 9 }).ack, ERR);
  assertEquals(get(without, [statsEntry(0, 1n)]).ack, ERR);
});

Deno.test("counters of 64 bits begin again at zero", () => {
  fc.assert(fc.property(fc.integer({ min: 0, max: 70 }), fc.nat({ max: 1000 }), (bits, more) => {
    const rig = new ControlRig();
    const value = 2 ** bits + more;
    rig.host.received[0]!.bytes = value;
    const { result } = get(rig, [statsEntry(0, 1n)]);
    const view = new DataView(Uint8Array.from(result).buffer);
    assertEquals(view.getBigUint64(24, true), BigInt.asUintN(64, BigInt(value)));
  }));
});

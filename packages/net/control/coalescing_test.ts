/** How often the driver is notified: the parameters, and when a notification is due. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import * as net from "../constants.ts";
import * as ctrl from "./constants.ts";
import { ALL_FEATURES, ControlRig, hashConfig, le16, le32, rssConfig } from "./testing.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;
const COAL = ctrl.VIRTIO_NET_CTRL_NOTF_COAL;

function setAll(rig: ControlRig, command: number, packets: number, usecs: number): number {
  return rig.ack(COAL, command, le32(packets), le32(usecs));
}
function set(rig: ControlRig, queue: number, packets: number, usecs: number, reserved = 0): number {
  return rig.ack(COAL, 2, le16(queue), le16(reserved), le32(packets), le32(usecs));
}
function get(rig: ControlRig, queue: number): number[] | null {
  const { ack, result, used } = rig.send([COAL, 3, ...le16(queue), 0xff, 0xff], { room: 9 });
  assertEquals(used, ack === OK ? 9 : 1);
  if (ack !== OK) return null;
  const view = new DataView(Uint8Array.from(result).buffer);
  return [view.getUint32(0, true), view.getUint32(4, true)];
}
function withPairs(pairs: number): ControlRig {
  const rig = new ControlRig();
  rig.ack(ctrl.VIRTIO_NET_CTRL_MQ, 0, le16(pairs));
  return rig;
}

Deno.test("the last parameters count, whichever command set them", () => {
  const rig = withPairs(2);
  assertEquals([0, 1, 2, 3].map((queue) => get(rig, queue)), [[0, 0], [0, 0], [0, 0], [0, 0]]);
  assertEquals(setAll(rig, 1, 10, 20), OK);
  assertEquals([0, 1, 2, 3].map((queue) => get(rig, queue)), [[10, 20], [0, 0], [10, 20], [0, 0]]);
  assertEquals(set(rig, 0, 11, 21, 0xffff), OK);
  assertEquals([get(rig, 0), get(rig, 2)], [[11, 21], [10, 20]]);
  assertEquals(set(rig, 1, 12, 22), OK);
  assertEquals([get(rig, 1), get(rig, 3)], [[12, 22], [0, 0]]);
  assertEquals(setAll(rig, 0, 0xffff_ffff, 0xffff_fffe), OK);
  assertEquals([get(rig, 1), get(rig, 3), get(rig, 0)], [
    [0xffff_ffff, 0xffff_fffe],
    [0xffff_ffff, 0xffff_fffe],
    [11, 21],
  ]);
  rig.control.reset(ALL_FEATURES);
  assertEquals([get(rig, 0), get(rig, 1)], [[0, 0], [0, 0]]);
});

Deno.test("queues that are not enabled, and those that are none, cannot be set or asked about", () => {
  const rig = withPairs(2);
  for (const queue of [4, 5, 6, 7, 8, 9, 0xffff]) {
    assertEquals(set(rig, queue, 1, 1), ERR);
    assertEquals(get(rig, queue), null);
  }
  for (const data of [[], [0], [0, 0, 0], [0, 0, 0, 0, 0]]) {
    assertEquals(rig.send([COAL, 3, ...data], { room: 9 }).ack, ERR);
  }
  assertEquals(rig.send([COAL, 3, 0, 0, 0, 0], { room: 8 }).ack, ERR);
  for (const length of [0, 7, 9]) {
    assertEquals(rig.ack(COAL, 0, new Array(length).fill(0)), ERR);
    assertEquals(rig.ack(COAL, 1, new Array(length).fill(0)), ERR);
  }
  for (const length of [0, 4, 11, 13]) {
    assertEquals(rig.ack(COAL, 2, new Array(length).fill(0)), ERR);
  }
  assertEquals(rig.ack(COAL, 4, new Array(12).fill(0)), ERR);
});

Deno.test("each command needs its feature", () => {
  const all = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_VQ_NOTF_COAL);
  assertEquals([setAll(all, 0, 1, 1), setAll(all, 1, 1, 1)], [OK, OK]);
  assertEquals([set(all, 0, 1, 1), get(all, 0)], [ERR, null]);
  const single = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_NOTF_COAL);
  assertEquals([setAll(single, 0, 1, 1), setAll(single, 1, 1, 1)], [ERR, ERR]);
  assertEquals([set(single, 0, 1, 2), get(single, 0)], [OK, [1, 2]]);
});

Deno.test("a queue that is enabled again has the parameters of its kind", () => {
  const rig = withPairs(3);
  setAll(rig, 0, 5, 6);
  set(rig, 3, 1, 2);
  set(rig, 2, 3, 4);
  set(rig, 0, 7, 8);
  rig.ack(ctrl.VIRTIO_NET_CTRL_MQ, 0, le16(1));
  rig.ack(ctrl.VIRTIO_NET_CTRL_MQ, 0, le16(2));
  assertEquals([0, 2, 3].map((queue) => get(rig, queue)), [[7, 8], [0, 0], [5, 6]]);
  setAll(rig, 1, 9, 10);
  set(rig, 2, 3, 4);
  rig.ack(ctrl.VIRTIO_NET_CTRL_MQ, 2, hashConfig());
  assertEquals(get(rig, 2), [3, 4]);
  // By a table too: the second receive queue goes, and comes back.
  rig.ack(ctrl.VIRTIO_NET_CTRL_MQ, 1, rssConfig({ table: [0], maxTxVq: 2 }));
  assertEquals(get(rig, 2), null);
  rig.ack(ctrl.VIRTIO_NET_CTRL_MQ, 1, rssConfig({ table: [1], maxTxVq: 2 }));
  assertEquals(get(rig, 2), [9, 10]);
  // A virtqueue that was reset.
  set(rig, 0, 7, 8);
  rig.control.coalescing.reenable(0);
  assertEquals(get(rig, 0), [9, 10]);
});

Deno.test("without both parameters every packet is due", () => {
  const rig = new ControlRig();
  const { coalescing } = rig.control;
  for (const [packets, usecs] of [[0, 0], [10, 0], [0, 10]] as const) {
    set(rig, 0, packets, usecs);
    assertEquals(coalescing.count(0, 1), true);
    assertEquals(rig.clock.timers.size, 0);
  }
});

Deno.test("a notification is due with the last packet, or when time is over, whichever comes first; then it begins anew", () => {
  const rig = withPairs(2);
  const { coalescing } = rig.control;
  setAll(rig, 1, 15, 10);
  for (let round = 0; round < 3; round++) {
    for (let i = 0; i < 14; i++) assertEquals(coalescing.count(0, 1), false);
    assertEquals(coalescing.count(0, 1), true);
  }
  assertEquals(rig.clock.timers.size, 0);
  assertEquals(coalescing.count(0, 14), false);
  rig.clock.pass(6);
  // Counted apart from the first queue.
  assertEquals(coalescing.count(2, 14), false);
  assertEquals(rig.host.notified, []);
  rig.clock.pass(4);
  assertEquals(rig.host.notified, [0]);
  assertEquals([coalescing.waiting(0), coalescing.waiting(2)], [0, 14]);
  rig.clock.pass(6);
  assertEquals(rig.host.notified, [0, 2]);
  rig.clock.pass(1000);
  assertEquals(rig.host.notified, [0, 2]);
  assertEquals(coalescing.count(0, 20), true);
  assertEquals(coalescing.count(1, 1), true);
});

Deno.test("time counts from the first packet, not from the last", () => {
  const rig = new ControlRig();
  set(rig, 0, 100, 10);
  for (let i = 0; i < 9; i++) {
    rig.control.coalescing.count(0, 1);
    rig.clock.pass(1);
  }
  assertEquals(rig.host.notified, []);
  rig.clock.pass(1);
  assertEquals(rig.host.notified, [0]);
});

Deno.test("new parameters may make a notification due at once, or put it off", () => {
  const rig = new ControlRig();
  const { coalescing } = rig.control;
  setAll(rig, 0, 15, 100);
  coalescing.count(1, 10);
  setAll(rig, 0, 11, 100);
  assertEquals(rig.host.notified, []);
  setAll(rig, 0, 10, 100);
  assertEquals(rig.host.notified, [1]);
  assertEquals([coalescing.waiting(1), rig.clock.timers.size], [0, 0]);
  setAll(rig, 0, 8, 100);
  assertEquals(rig.host.notified, [1]);
  for (const [packets, usecs] of [[0, 100], [100, 0]] as const) {
    rig.host.notified = [];
    set(rig, 1, 15, 100);
    coalescing.count(1, 1);
    set(rig, 1, packets, usecs);
    assertEquals(rig.host.notified, [1]);
  }
  rig.host.notified = [];
  set(rig, 1, 15, 1000);
  coalescing.count(1, 1);
  set(rig, 1, 15, 20);
  rig.clock.pass(20);
  assertEquals(rig.host.notified, [1]);
});

Deno.test("nothing is notified after a reset, or of a queue that stopped", () => {
  const rig = withPairs(2);
  const { coalescing } = rig.control;
  setAll(rig, 1, 15, 100);
  coalescing.count(0, 1);
  coalescing.count(2, 1);
  assertEquals(coalescing.forget(2), true);
  assertEquals(coalescing.forget(2), false);
  assertEquals(rig.clock.timers.size, 1);
  rig.control.reset(ALL_FEATURES);
  assertEquals(rig.clock.timers.size, 0);
  rig.clock.pass(1000);
  assertEquals(rig.host.notified, []);
});

Deno.test("whatever is done, no packet waits longer than allowed, and no more than allowed wait", () => {
  const step = fc.oneof(
    fc.record({ kind: fc.constant("count" as const), n: fc.integer({ min: 1, max: 5 }) }),
    fc.record({ kind: fc.constant("pass" as const), n: fc.integer({ min: 1, max: 30 }) }),
    fc.record({ kind: fc.constant("set" as const), n: fc.integer({ min: 0, max: 20 }) }),
  );
  fc.assert(fc.property(fc.array(step, { maxLength: 60 }), (steps) => {
    const rig = new ControlRig();
    const { coalescing } = rig.control;
    let waiting = 0;
    let since = 0;
    let max = 0;
    for (const { kind, n } of steps) {
      rig.host.notified = [];
      let due = false;
      if (kind === "count") {
        if (waiting === 0) since = rig.clock.now;
        waiting += n;
        due = coalescing.count(0, n);
        assertEquals(due, max === 0 || waiting >= max);
      } else if (kind === "pass") {
        rig.clock.pass(n);
      } else {
        max = n;
        since = rig.clock.now;
        set(rig, 0, n, 25);
      }
      if (due || rig.host.notified.length > 0) {
        assertEquals(waiting > 0, true);
        waiting = 0;
      }
      assertEquals(coalescing.waiting(0), waiting);
      assertEquals(waiting === 0 || waiting < max && rig.clock.now - since < 25, true);
    }
  }));
});

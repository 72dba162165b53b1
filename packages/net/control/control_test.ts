/** Commands as a whole: framing, answers, what is wrong with them, and state that is saved and restored. */
import { assertEquals, assertNotEquals, assertThrows } from "@std/assert";
import { VirtqueueError } from "@virtio/vring";
import fc from "fast-check";
import * as net from "../constants.ts";
import { Offload } from "../sink.ts";
import * as ctrl from "./constants.ts";
import { CONTROL_LIMITS } from "./control.ts";
import {
  ALL_FEATURES,
  commandChain,
  ControlRig,
  hashConfig,
  le16,
  le32,
  le64,
  macTable,
  rssConfig,
  statsEntry,
  UNTOUCHED,
} from "./testing.ts";

const { VIRTIO_NET_ERR: ERR, VIRTIO_NET_OK: OK } = ctrl;

/** A right command of each kind: bytes, and room for the answer. */
const COMMANDS: readonly (readonly [bytes: readonly number[], room: number])[] = [
  [[0, 0, 1], 1],
  [[0, 4, 1], 1],
  [[1, 0, ...macTable([2, 3, 4, 5, 6, 7]), ...macTable([3, 3, 3, 3, 3, 3])], 1],
  [[1, 1, 2, 2, 2, 2, 2, 2], 1],
  [[2, 0, ...le16(100)], 1],
  [[2, 1, ...le16(100)], 1],
  [[3, 0], 1],
  [[4, 0, ...le16(3)], 1],
  [[4, 1, ...rssConfig()], 1],
  [[4, 2, ...hashConfig()], 1],
  [[5, 0, ...le64(net.VIRTIO_NET_F_GUEST_CSUM)], 1],
  [[6, 0, ...le32(5), ...le32(6)], 1],
  [[6, 1, ...le32(7), ...le32(8)], 1],
  [[6, 2, ...le16(0), ...le16(0), ...le32(9), ...le32(10)], 1],
  [[6, 3, ...le16(0), ...le16(0)], 9],
  [[8, 0], 9],
  [[8, 1, ...statsEntry(0, 7n), ...statsEntry(1, 0x70000n)], 300],
];

function state(rig: ControlRig): unknown {
  const { commands: _, successes: __, ...rest } = rig.control.save();
  return structuredClone(rest);
}

Deno.test("a command is the same in any framing", () => {
  const cuts = fc.array(fc.integer({ min: 1, max: 9 }), { maxLength: 40 });
  fc.assert(
    fc.property(fc.constantFrom(...COMMANDS), cuts, cuts, (command, readable, writable) => {
      const [bytes, room] = command;
      const one = new ControlRig();
      const other = new ControlRig();
      const whole = one.send(bytes, { room });
      assertEquals(whole.ack, OK);
      assertEquals(other.send(bytes, { room, readable, writable }), whole);
      assertEquals(state(other), state(one));
    }),
  );
});

Deno.test("a command that is a byte longer or shorter is wrong, and changes nothing", () => {
  for (const [bytes, room] of COMMANDS) {
    const rig = new ControlRig();
    const before = state(rig);
    for (let length = 0; length < bytes.length; length++) {
      // Statistics of one queue rather than two.
      if (bytes[0] === 8 && (length - 2) % 16 === 0 && bytes[1] === 1) continue;
      const { ack, used } = rig.send(bytes.slice(0, length), { room });
      assertEquals([ack, used], [ERR, 1], `${bytes} cut at ${length}`);
    }
    assertEquals(rig.send([...bytes, 0], { room }).ack, ERR, `${bytes} and more`);
    assertEquals(state(rig), before);
  }
});

Deno.test("only ack is written where there is no result, however much room there is", () => {
  const rig = new ControlRig();
  const { ack, result, used } = rig.send([0, 0, 1], { room: 20 });
  assertEquals([ack, used], [OK, 1]);
  assertEquals(result.every((byte) => byte === UNTOUCHED), true);
});

Deno.test("without any feature no command is known", () => {
  const rig = new ControlRig(net.VIRTIO_NET_F_CTRL_VQ);
  const before = state(rig);
  for (const [bytes, room] of COMMANDS) {
    const { ack, used } = rig.send(bytes, { room });
    assertEquals([ack, used], [ERR, 1]);
  }
  assertEquals(state(rig), before);
  assertEquals([rig.host.macs, rig.host.announcements, rig.host.notified], [[], 0, []]);
});

Deno.test("each command is known with its own feature alone", () => {
  const needs: [bigint, number[]][] = [
    [net.VIRTIO_NET_F_CTRL_RX, [0, 2]],
    [net.VIRTIO_NET_F_CTRL_RX_EXTRA, [1]],
    [net.VIRTIO_NET_F_CTRL_MAC_ADDR, [3]],
    [net.VIRTIO_NET_F_CTRL_VLAN, [4, 5]],
    [net.VIRTIO_NET_F_GUEST_ANNOUNCE, [6]],
    [net.VIRTIO_NET_F_MQ, [7]],
    [net.VIRTIO_NET_F_RSS, [8]],
    [net.VIRTIO_NET_F_HASH_REPORT, [9]],
    [net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | net.VIRTIO_NET_F_GUEST_CSUM, [10]],
    [net.VIRTIO_NET_F_NOTF_COAL, [11, 12]],
    [net.VIRTIO_NET_F_VQ_NOTF_COAL, [13, 14]],
    [net.VIRTIO_NET_F_DEVICE_STATS, [15]],
  ];
  for (const [features, known] of needs) {
    const rig = new ControlRig(features);
    const acks = COMMANDS.map(([bytes, room]) => rig.send(bytes, { room }).ack);
    assertEquals(acks.flatMap((ack, i) => ack === OK ? [i] : []), known);
  }
});

Deno.test("a command without room for ack cannot be answered", () => {
  const rig = new ControlRig();
  const before = state(rig);
  const { chain } = commandChain(Uint8Array.of(0, 0, 1), { room: 0 });
  const error = assertThrows(() => rig.control.handle(chain), VirtqueueError);
  assertEquals(error.clause, "5.1.9.5");
  assertEquals(state(rig), before);
  assertEquals(rig.control.commands, 0);
});

Deno.test("classes and commands that there are not", () => {
  const rig = new ControlRig();
  const before = state(rig);
  const known = new Set(COMMANDS.map(([bytes]) => bytes[0]));
  for (let cls = 0; cls < 256; cls++) {
    for (const command of known.has(cls) ? [7, 100, 255] : [0, 1, 2, 255]) {
      for (const data of [[], [1], [1, 0], [1, 1, 1, 1, 1, 1], [1, 0, 0, 0, 0, 0, 0, 0]]) {
        assertEquals(rig.ack(cls, command, data), ERR);
      }
    }
  }
  assertEquals(state(rig), before);
});

Deno.test("announce: the device is told", () => {
  const rig = new ControlRig();
  assertEquals(rig.ack(3, 0), OK);
  assertEquals(rig.host.announcements, 1);
  assertEquals(rig.ack(3, 1), ERR);
  assertEquals(rig.ack(3, 0, 0), ERR);
  assertEquals(rig.host.announcements, 1);
});

Deno.test("offloads: at first what was negotiated, then what the driver switches on of it", () => {
  const rig = new ControlRig();
  const all = ALL_FEATURES & (net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_GUEST_TSO4 |
    net.VIRTIO_NET_F_GUEST_TSO6 | net.VIRTIO_NET_F_GUEST_ECN | net.VIRTIO_NET_F_GUEST_UFO |
    net.VIRTIO_NET_F_GUEST_USO4 | net.VIRTIO_NET_F_GUEST_USO6);
  const set = (bits: bigint) => rig.ack(5, 0, le64(bits));
  assertEquals(rig.control.offloads, Offload.all);
  assertEquals(set(0n), OK);
  assertEquals(rig.control.offloads, 0);
  const { VIRTIO_NET_F_GUEST_CSUM: csum } = net;
  const bits: [bigint, number][] = [
    [csum, Offload.csum],
    [csum | net.VIRTIO_NET_F_GUEST_TSO4, Offload.csum | Offload.tso4],
    [csum | net.VIRTIO_NET_F_GUEST_TSO6, Offload.csum | Offload.tso6],
    [csum | net.VIRTIO_NET_F_GUEST_UFO, Offload.csum | Offload.ufo],
    [csum | net.VIRTIO_NET_F_GUEST_USO4, Offload.csum | Offload.uso4],
    [csum | net.VIRTIO_NET_F_GUEST_USO6, Offload.csum | Offload.uso6],
    // Of no use without what they need.
    [csum | net.VIRTIO_NET_F_GUEST_ECN, Offload.csum],
    [all & ~csum, 0],
    [
      csum | net.VIRTIO_NET_F_GUEST_TSO6 | net.VIRTIO_NET_F_GUEST_ECN,
      Offload.csum | Offload.tso6 | Offload.ecn,
    ],
    [all, Offload.all],
  ];
  for (const [mask, offloads] of bits) {
    assertEquals(set(mask), OK);
    assertEquals(rig.control.offloads, offloads);
  }
  for (const bad of [1n, 1n << 6n, 1n << 46n, 1n << 63n, all | 1n << 17n]) {
    assertEquals(set(bad), ERR);
    assertEquals(rig.control.offloads, Offload.all);
  }
  assertEquals(rig.ack(5, 1, le64(0n)), ERR);
  set(0n);
  rig.control.reset(ALL_FEATURES);
  assertEquals(rig.control.offloads, Offload.all);
});

Deno.test("offloads that were not negotiated cannot be switched on", () => {
  const negotiated = net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_GUEST_USO4 |
    net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
  const rig = new ControlRig(negotiated);
  assertEquals(rig.control.offloads, Offload.csum | Offload.uso4);
  assertEquals(rig.ack(5, 0, le64(net.VIRTIO_NET_F_GUEST_TSO4)), ERR);
  assertEquals(rig.ack(5, 0, le64(net.VIRTIO_NET_F_GUEST_USO6)), ERR);
  assertEquals(rig.ack(5, 0, le64(net.VIRTIO_NET_F_GUEST_USO4)), OK);
  const without = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS);
  assertEquals(without.ack(5, 0, le64(0n)), ERR);
  assertEquals(without.control.offloads, Offload.all);
});

/** Bytes that are more often nearly right than not. */
const anyCommand = fc.oneof(
  fc.array(fc.integer({ min: 0, max: 255 }), { minLength: 1, maxLength: 120 }),
  fc.tuple(
    fc.constantFrom(...COMMANDS),
    fc.array(fc.tuple(fc.nat({ max: 200 }), fc.integer({ min: 0, max: 255 })), { maxLength: 3 }),
    fc.integer({ min: -2, max: 2 }),
  ).map(([[bytes], changes, more]) => {
    const changed = [...bytes, 0, 0].slice(0, Math.max(1, bytes.length + more));
    for (const [at, value] of changes) changed[at % changed.length] = value;
    return changed;
  }),
);

Deno.test("any bytes are answered, never throw, and change nothing unless they are done", () => {
  fc.assert(
    fc.property(
      fc.array(fc.tuple(anyCommand, fc.integer({ min: 1, max: 40 })), { maxLength: 12 }),
      (commands) => {
        const rig = new ControlRig();
        for (const [bytes, room] of commands) {
          const before = state(rig);
          const { ack, used } = rig.send(bytes, { room });
          assertEquals(ack === OK || ack === ERR, true);
          if (ack === OK) continue;
          assertEquals(used, 1);
          assertEquals(state(rig), before);
        }
        // Whatever was done can be saved, and restored.
        const saved = structuredClone(rig.control.save());
        const other = new ControlRig();
        other.control.restore(saved);
        assertEquals(other.control.save(), saved);
        assertEquals(other.control.offloads, rig.control.offloads);
        for (const spec of [{}, { ip: 6 as const }, { to: [3, 3, 3, 3, 3, 3], tags: [100] }]) {
          assertEquals(other.accepts(spec), rig.accepts(spec));
        }
        const { steering } = rig.control;
        const [pair, hash] = [steering.pairOf(rig.frame({})), steering.hashValue];
        if (steering.rss) assertEquals(other.control.steering.pairOf(other.frame({})), pair);
        else other.control.steering.pairOf(other.frame({}));
        assertEquals(other.control.steering.hashValue, hash);
      },
    ),
    { numRuns: 300 },
  );
});

/** A state with something in every part of it. */
function busy(): ControlRig {
  const rig = new ControlRig(ALL_FEATURES, 4, { macEntries: 2 });
  for (const [bytes, room] of COMMANDS) if (bytes[0] !== 2) rig.send(bytes, { room });
  rig.send([4, 1, ...rssConfig({ table: [3, 2], maxTxVq: 2 })]);
  rig.ack(2, 0, le16(100));
  rig.ack(0, 0, 0);
  rig.ack(0, 4, 0);
  rig.ack(6, 2, le16(1), le16(0), le32(3), le32(4));
  return rig;
}

Deno.test("a restored control queue behaves as the saved one", () => {
  const rig = busy();
  const saved = structuredClone(rig.control.save());
  const other = new ControlRig(ALL_FEATURES, 4, { macEntries: 2 });
  other.control.restore(saved);
  assertEquals(other.control.offloads, Offload.csum);
  assertEquals(other.accepts({ to: [2, 2, 2, 2, 2, 2] }), true);
  assertEquals(other.accepts({ to: [2, 3, 4, 5, 6, 7] }), true);
  assertEquals(other.accepts({ to: [3, 3, 3, 3, 3, 3] }), true);
  assertEquals(other.accepts({ to: [2, 3, 4, 5, 6, 8] }), false);
  assertEquals(other.accepts({ to: [2, 2, 2, 2, 2, 2], tags: [100] }), true);
  assertEquals(other.accepts({ to: [2, 2, 2, 2, 2, 2], tags: [101] }), false);
  assertEquals(other.control.steering.pairOf(other.frame({ ip: "arp" })), 0);
  const pair = rig.control.steering.pairOf(rig.frame({}));
  assertEquals(other.control.steering.pairOf(other.frame({})), pair);
  assertNotEquals(other.control.steering.hashValue, 0);
  assertEquals(other.control.steering.hashValue, rig.control.steering.hashValue);
  assertEquals([other.control.pairs, other.control.enabled(3), other.control.enabled(5)], [
    ...[4, true],
    false,
  ]);
  assertEquals([other.control.coalescing.maxPackets(1), other.control.coalescing.maxUsecs(1)], [
    ...[3, 4],
  ]);
  // Queues that are enabled later have the parameters of all.
  other.ack(4, 0, le16(1));
  other.ack(4, 0, le16(4));
  assertEquals(other.control.coalescing.maxPackets(5), 5);
  assertEquals(other.control.coalescing.maxPackets(6), 7);
  assertEquals(other.control.commands, rig.control.commands + 2);
});

Deno.test("what does not fit stays so when it is restored", () => {
  const rig = new ControlRig(ALL_FEATURES, 1, { macEntries: 2 });
  const many = macTable([2, 1, 1, 1, 1, 1], [2, 1, 1, 1, 1, 2], [2, 1, 1, 1, 1, 3]);
  rig.ack(1, 0, many, macTable());
  const other = new ControlRig(ALL_FEATURES, 1, { macEntries: 2 });
  other.control.restore(structuredClone(rig.control.save()));
  assertEquals(other.accepts({ to: [2, 9, 9, 9, 9, 9] }), true);
  assertEquals(other.accepts({ to: [3, 9, 9, 9, 9, 9] }), false);
});

/** Every place in a saved state, as a path. */
function* paths(value: unknown, path: (string | number)[] = []): Generator<(string | number)[]> {
  yield path;
  if (typeof value !== "object" || value === null) return;
  for (const key of Object.keys(value)) {
    yield* paths((value as Record<string, unknown>)[key], [...path, key]);
  }
}
function put(value: unknown, path: readonly (string | number)[], what: unknown): unknown {
  if (path.length === 0) return what;
  const copy = structuredClone(value) as Record<string, unknown>;
  const [key, ...rest] = path as [string, ...string[]];
  copy[key] = put(copy[key], rest, what);
  return copy;
}

Deno.test("a saved state with anything wrong in any place is refused, and changes nothing", () => {
  const saved = busy().control.save();
  const rig = new ControlRig(ALL_FEATURES, 4, { macEntries: 2 });
  const before = rig.control.save();
  const wrong = [
    undefined,
    null,
    -1,
    0.5,
    2 ** 40 + 0.5,
    NaN,
    "1",
    [],
    {},
    [undefined],
    new Array(3),
    -1n,
    1n << 20n,
  ];
  let tried = 0;
  for (const path of paths(saved)) {
    for (const what of wrong) {
      const bad = put(saved, path, what);
      // An empty list is right in some places.
      if (
        Array.isArray(what) && what.length === 0 && /unicast|multicast|vlans/.test(path.at(-1) + "")
      ) {
        continue;
      }
      assertThrows(
        () => rig.control.restore(bad),
        TypeError,
        "malformed",
        `${path.join(".")} = ${String(what)}`,
      );
      tried++;
    }
  }
  assertEquals(tried > 1000, true);
  assertEquals(rig.control.save(), before);
  rig.control.restore(saved);
  assertEquals(rig.control.save(), saved);
});

Deno.test("a saved state that no driver could have brought about is refused", () => {
  const saved = busy().control.save();
  const rig = new ControlRig(ALL_FEATURES, 4, { macEntries: 2 });
  const { filter, steering, coalescing } = saved;
  const { config } = steering;
  const group = [3, 3, 3, 3, 3, 3];
  const station = [2, 3, 3, 3, 3, 3];
  const bad: unknown[] = [
    { ...saved, version: 2 },
    { ...saved, guestOffloads: 1n },
    { ...saved, successes: saved.commands + 1 },
    { ...saved, filter: { ...filter, modes: 64 } },
    { ...saved, filter: { ...filter, overflow: 4 } },
    { ...saved, filter: { ...filter, mac: [1, 2, 3, 4, 5] } },
    { ...saved, filter: { ...filter, mac: [256, 2, 3, 4, 5, 6] } },
    { ...saved, filter: { ...filter, unicast: [group] } },
    { ...saved, filter: { ...filter, multicast: [station] } },
    { ...saved, filter: { ...filter, unicast: [station, station, station] } },
    { ...saved, filter: { ...filter, vlans: [4096] } },
    { ...saved, filter: { ...filter, vlans: new Array(4097).fill(1) } },
    { ...saved, steering: { ...steering, pairs: 0 } },
    { ...saved, steering: { ...steering, pairs: 5 } },
    { ...saved, steering: { ...steering, config: { ...config, hashTypes: 0x200 } } },
    { ...saved, steering: { ...steering, config: { ...config, key: new Array(41).fill(1) } } },
    { ...saved, steering: { ...steering, config: { ...config, key: [] } } },
    { ...saved, steering: { ...steering, config: { ...config, table: [1, 1, 1] } } },
    { ...saved, steering: { ...steering, config: { ...config, table: [4] } } },
    { ...saved, steering: { ...steering, config: { ...config, table: new Array(256).fill(1) } } },
    { ...saved, steering: { ...steering, config: { ...config, unclassified: 4 } } },
    { ...saved, steering: { ...steering, config: { ...config, transmitPairs: 0 } } },
    { ...saved, steering: { ...steering, config: { ...config, transmitPairs: 5 } } },
    { ...saved, coalescing: { ...coalescing, queues: [...coalescing.queues, 1] } },
    { ...saved, coalescing: { ...coalescing, defaults: [1, 2, 3] } },
    { ...saved, coalescing: { ...coalescing, defaults: [1, 2, 3, 2 ** 32] } },
  ];
  for (const one of bad) assertThrows(() => rig.control.restore(one), TypeError, "malformed");
  // Of a device with more pairs than were negotiated here.
  const single = new ControlRig(ALL_FEATURES & ~net.VIRTIO_NET_F_MQ & ~net.VIRTIO_NET_F_RSS);
  assertThrows(() => single.control.restore(saved), TypeError, "malformed");
});

Deno.test("the largest tables that are asked for by default fit", () => {
  const rig = new ControlRig(ALL_FEATURES, 1);
  const table = Array.from({ length: CONTROL_LIMITS.macEntries }, (_, i) => [2, 0, 0, 0, i, 9]);
  assertEquals(rig.ack(1, 0, macTable(...table), macTable()), OK);
  assertEquals(table.every((to) => rig.accepts({ to })), true);
  assertEquals(rig.accepts({ to: [2, 0, 0, 0, 0, 8] }), false);
  const longest = new Array(CONTROL_LIMITS.tableLength).fill(0);
  assertEquals(rig.ack(4, 1, rssConfig({ table: longest, maxTxVq: 1 })), OK);
});

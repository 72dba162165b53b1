/** The switch, one rule at a time. */
import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import {
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_UDP,
} from "../constants.ts";
import { Frame } from "../frame.ts";
import { buildFrame } from "../offload/testing.ts";
import { type FrameSink, Offload } from "../sink.ts";
import { Switch, type SwitchPort } from "./switch.ts";
import { BROADCAST, collect, envelope, GROUP, letter, station } from "./switch_testing.ts";

/** The drops of a port that are not 0. */
function drops(port: SwitchPort): Record<string, number> {
  return Object.fromEntries(Object.entries(port.counters.drops).filter(([, count]) => count > 0));
}

Deno.test("who was heard gets frames alone; groups and strangers are sent to all but the sender", () => {
  const network = new Switch();
  const ports = [0, 1, 2].map(() => network.port());
  const got = ports.map((port) => collect(port));
  const counts = (): number[] => got.map((each) => each.splice(0).length);
  ports[0]!.send(letter({ to: 2, from: 1 }));
  assertEquals(counts(), [0, 1, 1], "a stranger");
  ports[1]!.send(letter({ to: 1, from: 2 }));
  assertEquals(counts(), [1, 0, 0]);
  ports[0]!.send(letter({ to: 2, from: 1 }));
  assertEquals(counts(), [0, 1, 0]);
  for (const to of [BROADCAST, GROUP]) {
    ports[0]!.send(letter({ to, from: 1 }));
    assertEquals(counts(), [0, 1, 1]);
  }
  // Two stations behind one port: the port is not told what it knows.
  ports[0]!.send(letter({ to: 1, from: 3 }));
  assertEquals(counts(), [0, 0, 0]);
  assertEquals(drops(ports[0]!), { filtered: 1 });
  ports[2]!.send(letter({ to: 2, from: 1 }));
  assertEquals(counts(), [0, 1, 0]);
  assertEquals(ports[2]!.counters.moves, 1);
  ports[1]!.send(letter({ to: 1, from: 2 }));
  assertEquals(counts(), [0, 0, 1], "it has moved");
  const { framesIn, bytesIn, framesOut, bytesOut, flooded } = ports[0]!.counters;
  assertEquals([framesIn, bytesIn, framesOut, bytesOut, flooded], [5, 300, 1, 60, 3]);
  assertEquals(network.size, 3);
});

Deno.test("a station that was not heard for long is a stranger", () => {
  let now = 0;
  const network = new Switch({ age: 10, clock: () => now });
  const [a, b, c] = [network.port(), network.port(), network.port()];
  const got = collect(c);
  collect(b);
  a.send(letter({ to: BROADCAST, from: 1 }));
  got.length = 0;
  now = 10_000;
  b.send(letter({ to: 1, from: 2 }));
  assertEquals(got.length, 0);
  now = 10_001;
  assertEquals([...network.stations()].map(({ mac }) => mac), ["02:00:00:00:00:02"]);
  b.send(letter({ to: 1, from: 2 }));
  assertEquals(got.length, 1);
});

Deno.test("frames that no switch passes on are dropped and counted", () => {
  const network = new Switch();
  const [a, b] = [network.port(), network.port()];
  const got = collect(b);
  a.send(new Frame().fromBytes(new Uint8Array(13)));
  a.send(letter({ to: 2, from: [0, 0, 0, 0, 0, 0] }));
  a.send(letter({ to: 2, from: [3, 0, 0, 0, 0, 1] }));
  a.send(letter({ to: [1, 0x80, 0xc2, 0, 0, 0], from: 1 }));
  a.send(letter({ to: [1, 0x80, 0xc2, 0, 0, 15], from: 1 }));
  assertEquals(drops(a), { short: 1, source: 2, reserved: 2 });
  assertEquals(got.length, 0);
  a.send(letter({ to: [1, 0x80, 0xc2, 0, 0, 16], from: 1 }));
  a.send(letter({ to: 2, from: [0, 0, 0, 0, 0, 1] }));
  a.send(new Frame().fromBytes(new Uint8Array([...station(2), ...station(1), 8, 0])));
  assertEquals(got.length, 3);
});

Deno.test("frames to several ports are limited by the sender's rate, others are not", () => {
  let now = 0;
  const network = new Switch({ clock: () => now });
  const a = network.port({ flood: { rate: 10, burst: 20 } });
  const b = network.port();
  const got = collect(b);
  collect(a);
  for (let i = 0; i < 100; i++) a.send(letter({ to: i % 2 === 0 ? BROADCAST : 77, from: 1 }));
  assertEquals(got.length, 20);
  assertEquals(drops(a), { flood: 80 });
  now = 1000;
  for (let i = 0; i < 100; i++) a.send(letter({ to: GROUP, from: 1 }));
  assertEquals(got.length, 30);
  b.send(letter({ to: BROADCAST, from: 2 }));
  for (let i = 0; i < 100; i++) a.send(letter({ to: 2, from: 1 }));
  assertEquals(got.length, 130);
  assertEquals(a.counters.flooded, 200);
});

Deno.test("isolated ports reach only those that are not", () => {
  const network = new Switch();
  const ports = [true, true, false, false].map((isolated) => network.port({ isolated }));
  const got = ports.map((port) => collect(port));
  const reached = (from: number, to: number | readonly number[]): number[] => {
    ports[from]!.send(letter({ to, from: from + 1 }));
    return got.flatMap((each, i) => each.splice(0).map(() => i));
  };
  for (let i = 0; i < 4; i++) {
    const others = [0, 1, 2, 3].filter((j) => j !== i && (i >= 2 || j >= 2));
    assertEquals(reached(i, BROADCAST), others);
  }
  for (let i = 0; i < 4; i++) {
    for (let j = 0; j < 4; j++) {
      assertEquals(reached(i, j + 1), i === j || i < 2 && j < 2 ? [] : [j]);
    }
  }
});

Deno.test("a locked address is its port's alone", () => {
  const network = new Switch();
  const a = network.port({ mac: "02:00:00:00:00:01", name: "a" });
  const b = network.port();
  const c = network.port();
  const got = [a, b, c].map((port) => collect(port));
  a.send(letter({ to: 9, from: 8 }));
  b.send(letter({ to: 9, from: 1 }));
  assertEquals([drops(a), drops(b)], [{ spoofed: 1 }, { spoofed: 1 }]);
  assertEquals(network.size, 0);
  // It is known although it was never heard.
  b.send(letter({ to: 1, from: 2 }));
  assertEquals(got.map((each) => each.length), [1, 0, 0]);
  a.send(letter({ to: 2, from: 1 }));
  assertEquals(got.map((each) => each.length), [1, 1, 0]);
  assertThrows(
    () => network.port({ mac: new Uint8Array(station(1)) }),
    RangeError,
    "02:00:00:00:00:01 belongs to a already",
  );
  // Who had it before it was locked does not keep it.
  const d = network.port({ mac: "02:00:00:00:00:02" });
  const atD = collect(d);
  a.send(letter({ to: 2, from: 1 }));
  assertEquals([atD.length, got[1]!.length], [1, 1]);
  d.close();
  a.close();
  b.send(letter({ to: 9, from: 1 }));
  assertEquals(drops(b), { spoofed: 1 }, "free again");
  assertEquals(network.port({ mac: "02:00:00:00:00:01" }).index, a.index);
});

Deno.test("a port that is down passes nothing, and the device sees it", () => {
  const network = new Switch();
  const a = network.port({ up: false });
  const b = network.port();
  const got = [collect(a), collect(b)];
  const seen: boolean[] = [];
  a.onLinkChange = () => seen.push(a.linkUp);
  a.send(letter({ to: BROADCAST, from: 1 }));
  b.send(letter({ to: BROADCAST, from: 2 }));
  assertEquals(got, [[], []]);
  assertEquals(drops(a), { down: 1 });
  a.up = true;
  a.up = true;
  a.send(letter({ to: BROADCAST, from: 1 }));
  assertEquals(got[1]!.length, 1);
  assertEquals(network.size, 2);
  a.up = false;
  assertEquals(network.size, 1, "who was behind it is forgotten");
  b.send(letter({ to: 1, from: 2 }));
  assertEquals(got[0]!.length, 0);
  a.up = true;
  a.close();
  a.close();
  a.up = false;
  assertEquals(seen, [true, false, true, false]);
  assert(!a.linkUp && a.closed);
  a.send(letter({ to: BROADCAST, from: 1 }));
  assertEquals(got[1]!.length, 1);
  network.close();
  assertEquals(network.ports, []);
});

Deno.test("the largest packet of a port counts no Ethernet header and no tags, and segments for themselves", () => {
  const network = new Switch();
  const a = network.port();
  const b = network.port({ maxMtu: 1500 });
  let got: number[] = [];
  b.listen((frame) => got.push(frame.length), Offload.all);
  assertEquals(b.maxMtu, 1500);
  const tried = (frame: Frame): boolean => {
    got = [];
    a.send(frame);
    return got.length > 0;
  };
  for (const tags of [[], [5], [5, 6]]) {
    assert(tried(letter({ to: 2, from: 1, tags, size: 1500 })));
    assert(!tried(letter({ to: 2, from: 1, tags, size: 1501 })));
  }
  const gso = (gsoSize: number): Frame => {
    const frame = new Frame().fromBytes(
      buildFrame({ ip: 4, transport: "tcp", payload: new Uint8Array(9000), checksum: "partial" }),
    );
    frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
    frame.headerLength = 54;
    frame.gsoSize = gsoSize;
    frame.csumStart = 34;
    frame.csumOffset = 16;
    return frame;
  };
  assert(tried(gso(1460)));
  assert(!tried(gso(1461)));
  const ufo = (gsoSize: number): Frame => {
    const frame = new Frame().fromBytes(
      buildFrame({ ip: 4, transport: "udp", payload: new Uint8Array(9000), checksum: "partial" }),
    );
    frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
    frame.gsoType = VIRTIO_NET_HDR_GSO_UDP;
    frame.headerLength = 42;
    frame.gsoSize = gsoSize;
    frame.csumStart = 34;
    frame.csumOffset = 6;
    return frame;
  };
  assert(tried(ufo(1480)));
  assert(!tried(ufo(1481)));
  assertEquals(drops(b), { long: 5 });
});

Deno.test("unsegmented frames stay so for who takes them, also among several receivers", () => {
  const network = new Switch();
  const a = network.port();
  const whole = collect(network.port(), Offload.all);
  const cut = collect(network.port());
  const half = collect(network.port(), Offload.csum);
  const bytes = buildFrame({
    ip: 4,
    transport: "tcp",
    payload: new Uint8Array(3000).fill(7),
    checksum: "partial",
  });
  const frame = new Frame().fromBytes(bytes);
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
  frame.headerLength = 54;
  frame.gsoSize = 1000;
  frame.csumStart = 34;
  frame.csumOffset = 16;
  a.send(frame);
  assertEquals(whole, [bytes]);
  assertEquals(cut.map((each) => each.length), [1054, 1054, 1054]);
  assertEquals(half.map((each) => each.length), [1054, 1054, 1054]);
  // A header that lies is found out where somebody would have to act on it.
  frame.csumStart = 60_000;
  a.send(frame);
  assertEquals([whole.length, cut.length], [2, 3]);
  assertEquals(network.ports.map((port) => drops(port)), [
    {},
    {},
    { malformed: 1 },
    { malformed: 1 },
  ]);
});

Deno.test("answers at once, also by the very frame that came, are sent after what they answer", () => {
  const network = new Switch();
  const ports = [0, 1, 2].map(() => network.port());
  const log: string[] = [];
  ports.forEach((port, i) => {
    port.listen((frame) => {
      const left = frame.view.getUint8(20);
      log.push(`${i} gets ${left} from ${frame.view.getUint8(11)}`);
      if (left === 0 || i === 2) return;
      const answer = new Frame().fromFrame(frame);
      answer.buffer.set(BROADCAST);
      answer.buffer.set(station(i + 1), 6);
      answer.buffer[20] = left - 1;
      port.send(answer);
    });
  });
  ports[0]!.send(letter({ to: BROADCAST, from: 1, fill: 2 }));
  assertEquals(log, [
    "1 gets 2 from 1",
    "2 gets 2 from 1",
    "0 gets 1 from 2",
    "2 gets 1 from 2",
    "1 gets 0 from 1",
    "2 gets 0 from 1",
  ]);
});

Deno.test("what a port sent before it went down does not come after it", () => {
  const network = new Switch();
  const [a, b] = [network.port(), network.port()];
  const got = collect(a);
  b.listen(() => {
    b.send(letter({ to: 1, from: 2 }));
    b.up = false;
  });
  a.send(letter({ to: 2, from: 1 }));
  assertEquals([got.length, network.size], [0, 1]);
  assertEquals(drops(b), { down: 1 });
});

Deno.test("what a closed port sent is not its successor's", () => {
  const network = new Switch();
  const [a, b] = [network.port(), network.port()];
  const got = collect(a);
  b.listen(() => {
    b.send(letter({ to: 1, from: 2 }));
    b.close();
    assertStrictEquals(network.port({ name: "next" }).index, b.index);
  });
  a.send(letter({ to: 2, from: 1 }));
  assertEquals(got.length, 0);
  assertEquals(network.ports.map(({ name }) => name), ["port0", "next"]);
  assertEquals(network.ports[1]!.counters.framesIn, 0);
  assertEquals([...network.stations()].map(({ port }) => port.name), ["port0"]);
});

Deno.test("a port that floods the switch with addresses takes no more than its share, and hides nobody", () => {
  const network = new Switch({ maxStations: 1000 });
  const attacker = network.port({ maxStations: 100, flood: { rate: Infinity } });
  const [a, b] = [network.port(), network.port()];
  const atAttacker = collect(attacker);
  const atB = collect(b);
  a.send(letter({ to: BROADCAST, from: 1 }));
  b.send(letter({ to: BROADCAST, from: 2 }));
  atAttacker.length = 0;
  const frame = letter({ to: 99, from: 3 });
  for (let i = 0; i < 5000; i++) {
    frame.view.setUint32(7, i);
    attacker.send(frame);
    assert(network.size <= 102);
  }
  assertEquals(attacker.counters.unlearned, 4900);
  atB.length = 0;
  a.send(letter({ to: 2, from: 1 }));
  assertEquals([atB.length, atAttacker.length], [1, 0], "still one alone gets it");
});

Deno.test("answers that multiply without end are dropped at a bound, and counted", () => {
  const network = new Switch();
  const [a, b] = [network.port(), network.port()];
  a.send(letter({ to: 2, from: 1 }));
  b.send(letter({ to: 1, from: 2 }));
  for (const [port, to, from] of [[a, 2, 1], [b, 1, 2]] as const) {
    const answer = letter({ to, from });
    port.listen(() => {
      port.send(answer);
      port.send(answer);
    });
  }
  const start = performance.now();
  a.send(letter({ to: 2, from: 1 }));
  assert(performance.now() - start < 2000);
  const overruns = [a, b].reduce((sum, port) => sum + port.counters.drops.overrun, 0);
  assert(overruns > 0);
  network.close();
});

Deno.test("whoever throws costs nobody else a frame", () => {
  const errors: [unknown, SwitchPort][] = [];
  const told = new Switch({ onError: (error, port) => errors.push([error, port]) });
  const untold = new Switch();
  for (const network of [told, untold]) {
    const a = network.port();
    const b = network.port({ vlan: 0 });
    const got = collect(network.port());
    b.listen(() => {
      throw new Error("out of order");
    });
    if (network === told) {
      a.send(letter({ to: BROADCAST, from: 1 }));
      assertEquals(errors.map(([error, port]) => [String(error), port]), [
        ["Error: out of order", b],
      ]);
    } else assertThrows(() => a.send(letter({ to: BROADCAST, from: 1 })), Error, "out of order");
    assertEquals(got.length, 1);
    assertEquals(drops(b), { error: 1 });
    b.connect(null);
    a.send(letter({ to: BROADCAST, from: 1 }));
    assertEquals(got.length, 2);
    assertEquals(drops(b), { error: 1, down: 1 });
  }
});

Deno.test("a tap sees both directions, tags as they are on the wire", () => {
  const network = new Switch();
  const log: string[] = [];
  const a = network.port({
    vlan: 5,
    tap: (frame, direction, queue) => log.push(`${direction} ${frame.length} ${queue}`),
  });
  const b = network.port({ trunk: { vlans: [5] } });
  a.listen(() => {});
  b.listen(() => {});
  a.send(letter({ to: 2, from: 1 }));
  b.send(letter({ to: 1, from: 2, tags: [5] }));
  assertEquals(log, ["sent 60 0", "received 60 0"]);
  a.tap = null;
  a.send(letter({ to: 2, from: 1 }));
  assertEquals(log.length, 2);
});

Deno.test("a frame for one receiver is not fetched from the sender's memory", () => {
  const network = new Switch();
  const [a, b, c] = [network.port(), network.port(), network.port()];
  const sink: FrameSink = { offloads: 0, deliver: () => {} };
  for (const port of [a, b, c]) port.connect(sink);
  b.send(letter({ to: BROADCAST, from: 2 }));
  let held = 0;
  const frame = letter({ to: 2, from: 1 });
  frame.hold = () => void held++;
  a.send(frame);
  assertEquals(held, 0);
  frame.buffer.set(BROADCAST);
  a.send(frame);
  assertEquals(held, 1, "but for several it is, once");
});

Deno.test("options that make no sense are refused with a sentence", () => {
  const network = new Switch({ maxPorts: 2 });
  assertThrows(() => new Switch({ maxPorts: 0 }), RangeError, "maxPorts");
  assertThrows(() => new Switch({ maxStations: 1 << 21 }), RangeError, "maxStations");
  assertThrows(() => new Switch({ age: 0 }), RangeError, "age");
  assertThrows(() => network.port({ maxMtu: 67 }), RangeError, "maxMtu");
  assertThrows(() => network.port({ maxStations: -1 }), RangeError, "maxStations");
  assertThrows(() => network.port({ vlan: 4095 }), RangeError, "VLAN");
  assertThrows(() => network.port({ trunk: { vlans: [0] } }), RangeError, "VLAN");
  assertThrows(() => network.port({ vlan: 1, trunk: {} }), TypeError, "not both");
  assertThrows(() => network.port({ flood: { rate: 0 } }), RangeError, "rate");
  assertThrows(() => network.port({ mac: "01:00:5e:00:00:01" }), RangeError, "group");
  network.port();
  network.port();
  assertThrows(() => network.port(), RangeError, "2 ports at most");
  assertEquals(envelope({ to: 1, from: 2 }).length, 60);
});

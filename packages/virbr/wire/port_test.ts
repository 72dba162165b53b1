import { assert, assertEquals, assertThrows } from "@std/assert";
import { Frame } from "@virtio/net";
import { TestGuest } from "../ip/guest_testing.ts";
import { Virbr } from "../virbr.ts";
import type { VirbrPortOptions } from "./port.ts";

const MBIT = 125_000;
/** What is let through at once: a quarter of a second's, or four of the largest frames. */
const BURST = 4 * 65_550;

function world(first: VirbrPortOptions, second: VirbrPortOptions = {}, network = {}) {
  let now = 0;
  const net = new Virbr({ clock: () => now, ...network });
  const [a, b] = [first, second].map((options, i) =>
    new TestGuest(
      net.port({ name: `guest${i}`, ...options }),
      `52:54:00:00:00:0${i + 1}`,
      net.mac,
      `192.168.122.${10 + i}`,
    )
  );
  return { net, a: a!, b: b!, pass: (seconds: number) => now += 1000 * seconds };
}

/** Sends frames of 1,000 bytes to the other one. @returns Bytes that arrive. */
function flood(from: TestGuest, to: TestGuest, count: number): number {
  const frame = from.ipv4(17, to.ip, from.udp(1, 2, to.ip, new Uint8Array(1000 - 42)));
  frame.set(to.mac);
  assertEquals(frame.length, 1000);
  let arrived = 0;
  for (let i = 0; i < count; i++) {
    from.send(frame);
    arrived += to.frames.splice(0).reduce((sum, { bytes }) => sum + bytes.length, 0);
  }
  return arrived;
}

for (
  const [name, make] of [
    ["sends", () => world({ sendRate: 8 * MBIT })],
    ["receives", () => world({}, { receiveRate: 8 * MBIT })],
    ["does, where the network says so", () => world({}, {}, { sendRate: 8 * MBIT })],
  ] as const
) {
  Deno.test(`what a guest ${name} is limited to so many bytes a second`, () => {
    const { net, a, b, pass } = make();
    b.send(b.ipv4(17, a.ip, b.udp(1, 2, a.ip, new Uint8Array(4))));
    assertEquals(Math.floor(flood(a, b, 1000) / 1000), Math.floor(BURST / 1000));
    pass(0.1);
    assertEquals(Math.round(flood(a, b, 1000) / 1000), 100);
    // What was not used gathers, but no more than that.
    pass(60);
    assertEquals(Math.floor(flood(a, b, 1000) / 1000), Math.floor(BURST / 1000));
    const [first, second] = [a.port.stats.drops.limited, b.port.stats.drops.limited];
    assert(first + second > 2000, `${first} ${second}`);
    return net.close();
  });
}

Deno.test("the other direction, and the other guest, are not limited with it", () => {
  const { net, a, b } = world({ sendRate: MBIT });
  flood(a, b, 1000);
  assertEquals(flood(b, a, 2000), 2_000_000);
  return net.close();
});

Deno.test("the largest frames pass a limit, and are counted by their bytes", () => {
  const { net, a, b } = world({ sendRate: MBIT });
  const bytes = new Uint8Array(65_549);
  bytes.set(a.ipv4(17, b.ip, a.udp(1, 2, b.ip, new Uint8Array(4))));
  const frame = new Frame().fromBytes(bytes);
  const limited: number[] = [];
  for (let i = 0; i < 6; i++) {
    a.port.deliver(frame);
    limited.push(a.port.stats.drops.limited);
  }
  assertEquals(limited, [0, 0, 0, 0, 1, 2]);
  return net.close();
});

Deno.test("a rate that is none is refused, with what to do", () => {
  const net = new Virbr();
  assertThrows(() => net.port({ sendRate: 0 }), RangeError, "sendRate must be at least 1000");
  assertThrows(() => net.port({ receiveRate: NaN }), RangeError, "receiveRate");
  assertThrows(() => new Virbr({ sendRate: -1 }), RangeError, "sendRate");
  return net.close();
});

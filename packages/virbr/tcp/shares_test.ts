import { assertEquals } from "@std/assert";
import type { Guest, Path } from "../ip/packet.ts";
import type { Connection } from "./connection.ts";
import { TcpEngine } from "./engine.ts";
import { RingPool } from "./ring.ts";
import { RingShares } from "./shares.ts";
import { TestTiming } from "./timing_testing.ts";
import { ipv4, packetOf, TestEnd, testGuest, TestIp } from "./wire_testing.ts";

const BUFFER = 65_536;
const GATEWAY = ipv4(192, 0, 2, 1);

/** A guest with a TCP of its own, whose segments go to the gateway, and come from it. */
class TestStation {
  readonly guest: Guest;
  readonly tcp: TcpEngine;
  readonly address: Path["source"];

  constructor(number: number, port: string, timing: TestTiming, gateway: () => TcpEngine) {
    this.guest = { ...testGuest(`02:00:00:00:00:0${number}`), port };
    this.address = ipv4(192, 168, 122, number);
    const ip = new TestIp(1500, ({ source, destination }, bytes) => {
      timing.after(1, () => gateway().receive(packetOf(this.guest, source, destination, bytes)));
    });
    this.tcp = new TcpEngine(ip, { timing, bufferSize: BUFFER });
  }

  connect(): TestEnd {
    return new TestEnd((handler) =>
      this.tcp.connect(this.guest, this.address, GATEWAY, 80, () => handler)!
    );
  }
}

Deno.test("guests that fill every buffer they can get leave some for those of other ports", () => {
  const timing = new TestTiming();
  const hostile = new TestStation(2, "hostile", timing, () => gateway);
  const accomplice = new TestStation(3, "hostile", timing, () => gateway);
  const honest = new TestStation(4, "honest", timing, () => gateway);
  const stations = [hostile, accomplice, honest];
  const ip = new TestIp(1500, ({ guest, source, destination }, bytes) => {
    const station = stations.find((each) => each.guest === guest)!;
    timing.after(1, () => station.tcp.receive(packetOf(guest, source, destination, bytes)));
  });
  const gateway = new TcpEngine(ip, { timing, bufferSize: BUFFER, maxBuffers: 24 * BUFFER });
  const ends = new Map<Guest, TestEnd[]>();
  gateway.incoming = (connection: Connection) => {
    let accepted = false;
    const end = new TestEnd((handler) => {
      accepted = connection.accept(handler);
      return connection;
    });
    const { guest } = connection.path;
    // Nobody reads what the hostile ones say.
    if (guest !== honest.guest) end.greed = 0;
    if (accepted) ends.set(guest, [...ends.get(guest) ?? [], end]);
  };
  const stalled: TestEnd[] = [];
  for (const station of [hostile, accomplice]) {
    for (let i = 0; i < 20; i++) {
      const end = station.connect();
      end.send(new Uint8Array(3 * BUFFER));
      stalled.push(end);
    }
    timing.pass(2_000);
  }
  // Half of all, and those that came by another address of the same port got nothing.
  assertEquals([ends.get(hostile.guest)?.length, ends.get(accomplice.guest)], [6, undefined]);
  assertEquals(gateway.bufferBytes, 12 * BUFFER);
  assertEquals(ends.get(hostile.guest)!.map((end) => end.connection.readableBytes), [
    ...new Array(6).fill(BUFFER),
  ]);

  const bytes = new Uint8Array(5 * BUFFER).map((_, i) => i % 251);
  const good = [honest.connect(), honest.connect(), honest.connect()];
  for (const end of good) end.send(bytes, true);
  timing.pass(5_000);
  const theirs = ends.get(honest.guest) ?? [];
  assertEquals(theirs.length, 3);
  for (const end of theirs) {
    assertEquals(end.got, bytes);
    end.send(bytes, true);
  }
  timing.pass(5_000);
  for (const end of good) assertEquals([end.reason, end.got], ["finished", bytes]);

  // What the hostile ones held can be had again, though the guest is behind another port now.
  (hostile.guest as { port: string }).port = "moved";
  for (const end of ends.get(hostile.guest)!) end.connection.release();
  assertEquals(gateway.bufferBytes, 0);
  accomplice.connect();
  timing.pass(5);
  assertEquals([ends.get(accomplice.guest)?.length, gateway.bufferBytes], [1, 2 * BUFFER]);
  for (const { tcp } of stations) tcp.close();
  gateway.close();
});

Deno.test("the more want all, the smaller their shares, and the next one still gets something", () => {
  const shares = new RingShares(new RingPool(4096, 120));
  const greedy = (holder: string): number => {
    let count = 0;
    while (shares.take(holder) !== null) count += 2;
    return count;
  };
  assertEquals(["a", "b", "c", "d"].map(greedy), [60, 30, 16, 8]);
  assertEquals(shares.bytes, 114 * 4096);
});

/** The way of a TCP segment through the gateway allocates nothing, either direction; measured as `tests/allocation` does. */
import { assert } from "@std/assert";
import { Frame, Offload } from "@virtio/net";
import { Virbr } from "../virbr.ts";
import { TestGuest } from "./guest_testing.ts";
import { type IpPacket, IpProtocol, type Path } from "./packet.ts";

const BATCH = 5000;
/** Seconds until a window must be clean: code that is not compiled yet allocates. */
const PATIENCE = 20;
/** Less than any object. */
const CLEAN = 0.5;

function bytesPerPacket(batch: () => void, patience = PATIENCE): number {
  let least = Infinity;
  const end = performance.now() + 1000 * patience;
  for (let window = 0; least > CLEAN && (window < 20 || performance.now() < end); window++) {
    const before = Deno.memoryUsage().heapUsed;
    batch();
    const grown = Deno.memoryUsage().heapUsed - before;
    // What is less was collected, so something was allocated.
    least = Math.min(least, grown < 0 ? Infinity : grown / BATCH);
  }
  return least;
}

/** A guest that sends segments, and a transport that answers each with one. */
function world(six: boolean, plant: (() => void) | null = null) {
  const net = new Virbr({ ipv6: "fd00:1::/64" });
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac, "192.168.122.9");
  guest.ip6 = "fd00:1::5";
  let got = 0;
  guest.port.connect({ offloads: Offload.all, deliver: () => void got++ });
  let path: Path | null = null;
  const { output } = net.ip;
  net.ip.transport(IpProtocol.tcp, {
    receive(packet: IpPacket): void {
      path ??= output.path(packet.guest, packet.destination, packet.source, IpProtocol.tcp);
      plant?.();
      if (!output.begin(path)) return;
      output.view.setUint8(output.start + 12, 5 << 4);
      output.finish(20 + 4000, 16, 1448);
    },
  });
  const segment = new Uint8Array(20 + 4000);
  segment[12] = 5 << 4;
  const bytes = six ? guest.ipv6(6, "2001:db8::1", segment) : guest.ipv4(6, "203.0.113.1", segment);
  const frame = new Frame().fromBytes(bytes);
  frame.flags = 1;
  frame.csumStart = six ? 54 : 34;
  frame.csumOffset = 16;
  frame.gsoType = six ? 4 : 1;
  frame.gsoSize = 1448;
  return { send: () => guest.port.deliver(frame), got: () => got };
}

for (const six of [false, true]) {
  Deno.test(`0 bytes are allocated for a segment and its answer, IPv${six ? 6 : 4}`, () => {
    const { send, got } = world(six);
    const bytes = bytesPerPacket(() => {
      for (let i = 0; i < BATCH; i++) send();
    });
    assert(got() >= BATCH && got() % BATCH === 0, `${got()} answers`);
    assert(bytes <= CLEAN, `${bytes} bytes a packet`);
  });
}

Deno.test("an allocation that is planted in the way of segments is found", () => {
  const kept: number[][] = [];
  const { send } = world(false, () => {
    kept.length = 0;
    kept.push([1, 2]);
  });
  const bytes = bytesPerPacket(() => {
    for (let i = 0; i < BATCH; i++) send();
  }, 2);
  assert(bytes > CLEAN, `${bytes} bytes a packet`);
});

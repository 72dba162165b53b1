/** Bytes through a wire whose ends take as much as they like, whenever they like. */
import fc from "fast-check";
import { assert, assertEquals } from "@std/assert";
import { Wire, type WireMessage } from "./wire.ts";

const WINDOW = 64 * 1024;

/** Two ends, the messages between them, and what came out at the far one. */
function joined(room: { left: number }) {
  const toFar: WireMessage[] = [];
  const toNear: WireMessage[] = [];
  const got: number[] = [];
  let drained = 0;
  const near = new Wire({
    post: (message) => void toFar.push(message),
    take: () => 0,
    drained: () => void drained++,
  });
  const far = new Wire({
    post: (message) => void toNear.push(message),
    take: (bytes, offset, length) => {
      const count = Math.min(length, room.left);
      room.left -= count;
      got.push(...bytes.subarray(offset, offset + count));
      return count;
    },
    drained: () => {},
  });
  /** Messages arrive. */
  const turn = (): void => {
    for (const message of toFar.splice(0)) far.heard(message);
    for (const message of toNear.splice(0)) near.heard(message);
  };
  return { near, far, got, turn, drained: () => drained };
}

Deno.test("wire: all bytes arrive in order, whatever the ends take at a time", () => {
  fc.assert(fc.property(
    fc.array(fc.tuple(fc.nat(3000), fc.nat(3000)), { minLength: 1, maxLength: 60 }),
    (steps) => {
      const room = { left: 0 };
      const { near, far, got, turn } = joined(room);
      const sent: number[] = [];
      for (const [length, takes] of steps) {
        const bytes = Uint8Array.from({ length }, (_, i) => (sent.length + i) & 0xff);
        const count = near.send(bytes, 0, length);
        sent.push(...bytes.subarray(0, count));
        bytes.fill(0);
        room.left = takes;
        turn();
        far.pump();
        turn();
      }
      room.left = Infinity;
      far.pump();
      assertEquals(got, sent);
    },
  ));
});

Deno.test("wire: no more than a window is under way, and who was refused is told of room once", () => {
  const room = { left: 0 };
  const { near, far, turn, got, drained } = joined(room);
  const bytes = new Uint8Array(WINDOW + 10);
  assertEquals(near.send(bytes, 0, bytes.length), WINDOW);
  assertEquals(near.send(bytes, 0, 10), 0);
  turn();
  assertEquals([got.length, drained()], [0, 0]);
  room.left = 100;
  far.pump();
  turn();
  assertEquals([got.length, drained()], [100, 1]);
  assertEquals(near.send(bytes, 0, 50), 50);
  turn();
  room.left = Infinity;
  far.pump();
  turn();
  assertEquals([got.length, drained()], [WINDOW + 50, 1]);
  assert(near.send(bytes, 0, WINDOW) === WINDOW);
});

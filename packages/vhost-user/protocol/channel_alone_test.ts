import { assert, assertEquals, assertThrows } from "@std/assert";
import { closeDescriptor, EventFd, isDescriptor, UnixSocket } from "@virtio/linux";
import { Channel } from "./channel.ts";
import { ProtocolError } from "./errors.ts";

Deno.test("Another version, a payload that no message has, and too many descriptors are refused", () => {
  const event = EventFd.create();
  for (
    const [words, descriptors] of [
      [[1, 0, 0], 0],
      [[1, 2, 0], 0],
      [[1, 1, 1 << 20], 0],
      [[1, 1, 0xffff_ffff], 0],
      [[1, 1, 0], 9],
      [[1, 1, 0], 100],
    ] as const
  ) {
    const [raw, socket] = UnixSocket.pair();
    const channel = new Channel(socket);
    raw.send(
      new Uint8Array(new Uint32Array(words).buffer),
      Array.from({ length: descriptors }, () => event.descriptor),
    );
    const before = [...Deno.readDirSync("/proc/self/fd")].length;
    assertThrows(() => channel.receive(), ProtocolError);
    channel.close();
    // The channel's socket is gone, and nothing else stayed.
    assertEquals([...Deno.readDirSync("/proc/self/fd")].length, before - 1);
    raw.close();
  }
  event.close();
});

Deno.test("A message that comes byte by byte is whole at its last byte; one that never is leaves nothing open", () => {
  const [raw, socket] = UnixSocket.pair();
  const channel = new Channel(socket);
  const event = EventFd.create();
  const bytes = new Uint8Array([12, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]);
  for (let i = 0; i < bytes.length; i++) {
    assertEquals(channel.receive(), null);
    raw.send(bytes.subarray(i, i + 1), i === 0 ? [event.descriptor] : []);
  }
  const message = channel.receive()!;
  const first = message.take(0);
  message.close();
  assert(isDescriptor(first));
  closeDescriptor(first);
  raw.send(bytes.subarray(0, 15), [event.descriptor]);
  assertEquals(channel.receive(), null);
  assert(channel.partial);
  // The lowest free number is given out first, so the descriptor has this one.
  assert(isDescriptor(first));
  channel.close();
  assertEquals(isDescriptor(first), false);
  raw.close();
  event.close();
});

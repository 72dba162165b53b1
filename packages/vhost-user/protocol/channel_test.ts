import { assert, assertEquals, assertThrows } from "@std/assert";
import fc from "fast-check";
import { EventFd, isDescriptor, UnixSocket } from "@virtio/linux";
import { Channel } from "./channel.ts";
import { ProtocolError } from "./errors.ts";
import {
  BackEndRequest,
  checkReply,
  checkRequest,
  FrontEndRequest,
  frontEndRequests,
} from "./messages.ts";
import * as payloads from "./payloads.ts";

function pair(): [Channel, Channel] {
  const [a, b] = UnixSocket.pair();
  return [new Channel(a), new Channel(b)];
}

Deno.test("A message arrives with its payload and its descriptors, and what is not taken is closed", () => {
  const [front, back] = pair();
  const event = EventFd.create();
  front.request(
    FrontEndRequest.SET_VRING_KICK,
    payloads.encodeVringDescriptor({ index: 3, none: false }),
    [event.descriptor],
    true,
  );
  const message = back.receive()!;
  assertEquals(message.request, 12);
  assert(message.needsReply && !message.isReply);
  assertEquals(payloads.decodeVringDescriptor(message.payload), { index: 3, none: false });
  assertEquals(message.descriptorCount, 1);
  const descriptor = message.descriptor(0);
  new EventFd(descriptor).signal();
  assert(event.take());
  message.close();
  assertEquals(isDescriptor(descriptor), false);
  back.reply(message.request, payloads.encodeU64(0n));
  assert(front.receive()!.isReply);
  event.close();
  front.close();
  assertEquals(back.receive(), null);
  assert(back.ended);
  back.close();
});

Deno.test("A peer that reads nothing is given up before much waits for it", () => {
  const [front, back] = pair();
  assertThrows(() => {
    for (let i = 0; i < 100_000; i++) back.reply(1, payloads.encodeU64(1n));
  }, ProtocolError);
  front.close();
  back.close();
});

Deno.test("What waits for room is sent in order when there is some", () => {
  const [front, back] = pair();
  let sent = 0n;
  while (!back.sending) back.reply(1, payloads.encodeU64(sent++));
  for (let i = 0; i < 10; i++) back.reply(1, payloads.encodeU64(sent++));
  let expected = 0n;
  while (expected < sent) {
    const message = front.receive();
    if (message === null) back.flush();
    else assertEquals(payloads.decodeU64(message.payload), expected++);
  }
  assertEquals(back.sending, false);
  front.close();
  back.close();
});

Deno.test("Payloads come back as they were written", () => {
  const u64 = fc.bigInt(0n, (1n << 64n) - 1n);
  const u32 = fc.nat(0xffff_ffff);
  const region = fc.record({ guestAddress: u64, size: u64, userAddress: u64, offset: u64 });
  const check = <T>(
    arbitrary: fc.Arbitrary<T>,
    encode: (value: T) => Uint8Array,
    decode: (bytes: Uint8Array) => T,
  ) =>
    fc.assert(fc.property(arbitrary, (value) => assertEquals(decode(encode(value)), value)), {
      numRuns: 50,
    });
  check(u64, payloads.encodeU64, payloads.decodeU64);
  check(
    fc.record({ index: u32, value: u32 }),
    payloads.encodeVringState,
    payloads.decodeVringState,
  );
  check(
    fc.record({ index: u32, flags: u32, descriptors: u64, used: u64, available: u64, log: u64 }),
    payloads.encodeVringAddress,
    payloads.decodeVringAddress,
  );
  check(
    fc.array(region, { maxLength: 8 }),
    payloads.encodeMemoryTable,
    payloads.decodeMemoryTable,
  );
  check(region, payloads.encodeRegion, payloads.decodeRegion);
  check(fc.record({ size: u64, offset: u64 }), payloads.encodeLog, payloads.decodeLog);
  check(
    fc.record({ offset: u32, flags: u32, bytes: fc.uint8Array({ maxLength: 256 }) }),
    payloads.encodeConfig,
    payloads.decodeConfig,
  );
  check(
    fc.record({ size: u64, offset: u64, queues: fc.nat(0xffff), queueSize: fc.nat(0xffff) }),
    payloads.encodeInflight,
    payloads.decodeInflight,
  );
});

Deno.test("Counts inside of payloads are held against their bytes", () => {
  const table = payloads.encodeMemoryTable([]);
  new DataView(table.buffer).setUint32(0, 1, true);
  assertThrows(() => payloads.decodeMemoryTable(table), ProtocolError);
  const long = new Uint8Array(8 + 9 * 32);
  new DataView(long.buffer).setUint32(0, 9, true);
  assertThrows(() => payloads.decodeMemoryTable(long), ProtocolError);
  const config = payloads.encodeConfig({ offset: 0, flags: 0, bytes: new Uint8Array(8) });
  new DataView(config.buffer).setUint32(4, 9, true);
  assertThrows(() => payloads.decodeConfig(config), ProtocolError);
  assertThrows(() => payloads.decodeLog(new Uint8Array(8)), ProtocolError);
  assertThrows(() => payloads.decodeVringDescriptor(payloads.encodeU64(0x200n)), ProtocolError);
});

Deno.test("The table holds every message's size and number of descriptors against it", () => {
  const { SET_MEM_TABLE, GET_INFLIGHT_FD, SET_INFLIGHT_FD, GET_CONFIG } = FrontEndRequest;
  checkRequest(SET_MEM_TABLE, 72, 1);
  assertThrows(() => checkRequest(SET_MEM_TABLE, 7, 0), ProtocolError);
  assertThrows(() => checkRequest(SET_MEM_TABLE, 72, 9), ProtocolError);
  checkRequest(SET_INFLIGHT_FD, 24, 1);
  assertThrows(() => checkRequest(SET_INFLIGHT_FD, 24, 0), ProtocolError);
  assertThrows(() => checkRequest(GET_INFLIGHT_FD, 24, 1), ProtocolError);
  checkReply(GET_INFLIGHT_FD, "inflight", 24, 1);
  checkReply(GET_CONFIG, "config", 0, 0);
  checkReply(FrontEndRequest.SET_OWNER, "u64", 8, 0);
  assertThrows(() => checkReply(FrontEndRequest.SET_OWNER, "u64", 8, 1), ProtocolError);
  assertEquals(frontEndRequests.get(24), GET_CONFIG);
  assertEquals(BackEndRequest.CONFIG_CHANGE_MSG.id, 2);
});

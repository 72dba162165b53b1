/** A frame: its head is its own; the rest goes from memory to memory, however both sides cut it. */
import { assertEquals, assertThrows } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { type Chain, openQueue } from "@virtio/vring";
import { placeQueue, rawDriver } from "../vring/testing/raw_driver.ts";
import fc from "fast-check";
import {
  ETHERNET_HEADER_SIZE,
  Frame,
  HEAD_SIZE,
  MAX_FRAME_SIZE,
  NetDevice,
  Offload,
  VIRTIO_NET_F_MRG_RXBUF,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "./mod.ts";
import { LoopbackBackend } from "./backends/loopback.ts";
import { plainFrame, RawNetDriver, turns } from "./testing.ts";

const DATA = 0x10000;

/** A guest's memory with one chain in it, cut at the given places. */
function guest(lengths: readonly number[], write: boolean): { memory: GuestMemory; chain: Chain } {
  const memory = GuestMemory.allocate(0x40000);
  const config = placeQueue(64, 0, "split");
  const driver = rawDriver(memory, config, 0n);
  let address = DATA;
  driver.send(lengths.map((length) => {
    const at = address;
    address += length;
    return { address: at, length, write };
  }));
  return { memory, chain: openQueue(memory, config, 0n).pop()! };
}

const cuts = fc.array(fc.integer({ min: 1, max: 700 }), { minLength: 1, maxLength: 12 });
const sum = (numbers: readonly number[]) => numbers.reduce((a, b) => a + b, 0);

Deno.test("a frame goes from one guest's memory to another's, however each of them cut it", () => {
  fc.assert(fc.property(cuts, cuts, fc.boolean(), fc.nat(), (sent, room, hold, seed) => {
    const sender = guest(sent, false);
    const bytes = sender.memory.regions[0]!.bytes.subarray(DATA, DATA + sum(sent));
    bytes.forEach((_, i) => bytes[i] = (i * 31 + seed) & 0xff);
    const receiver = guest(room, true);
    const frame = new Frame().fromChain(sender.chain.reader);
    assertEquals(frame.length, bytes.length);
    if (hold) frame.hold();
    // In pieces: a receiver with several buffers.
    let copied = 0;
    for (const piece of [1, 300, 5000, 100_000]) {
      copied += frame.copyTo(receiver.chain.writer, piece);
    }
    const expected = Math.min(sum(sent), sum(room));
    assertEquals(copied, expected);
    assertEquals(receiver.chain.written, expected);
    const got = receiver.memory.regions[0]!.bytes.subarray(DATA, DATA + expected);
    assertEquals(got.slice(), bytes.slice(0, expected));
  }));
});

Deno.test("what the sender changes in the head after it was read is not passed on", () => {
  const sender = guest([1000], false);
  const memory = sender.memory.regions[0]!.bytes;
  const frame = new Frame().fromChain(sender.chain.reader);
  memory.fill(7, DATA, DATA + 1000);
  const receiver = guest([1000], true);
  frame.copyTo(receiver.chain.writer, 1000);
  const got = receiver.memory.regions[0]!.bytes.subarray(DATA, DATA + 1000);
  assertEquals(got.slice(0, HEAD_SIZE), new Uint8Array(HEAD_SIZE));
  assertEquals(got.slice(HEAD_SIZE), new Uint8Array(1000 - HEAD_SIZE).fill(7));
});

Deno.test("a held frame can be read again, another one only before its rest was passed on", () => {
  const sender = guest([1000], false);
  sender.memory.regions[0]!.bytes.fill(5, DATA, DATA + 1000);
  const frame = new Frame().fromChain(sender.chain.reader);
  const first = guest([100, 1000], true);
  assertEquals(frame.copyTo(first.chain.writer, 100), 100);
  frame.rewind();
  assertEquals(frame.copyTo(first.chain.writer, 900), 900);
  assertThrows(() => frame.rewind(), TypeError, "hold()");
  const other = new Frame().fromChain(guest([1000], false).chain.reader);
  other.hold();
  assertEquals(other.copyTo(guest([1000], true).chain.writer, 1000), 1000);
  other.rewind();
  assertEquals(other.copyTo(guest([1000], true).chain.writer, 1000), 1000);
});

Deno.test("a frame copies another, header and all", () => {
  const sender = guest([600], false);
  sender.memory.regions[0]!.bytes.fill(9, DATA, DATA + 600);
  const frame = new Frame().fromChain(sender.chain.reader);
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  frame.csumStart = 34;
  frame.csumOffset = 16;
  const copy = new Frame(600).fromFrame(frame);
  assertEquals(copy.bytes, new Uint8Array(600).fill(9));
  assertEquals([copy.flags, copy.csumStart, copy.csumOffset], [
    VIRTIO_NET_HDR_F_NEEDS_CSUM,
    34,
    16,
  ]);
  copy.plain();
  assertEquals(copy.needs, 0);
});

Deno.test("what does not fit is refused", () => {
  const small = new Frame(HEAD_SIZE);
  assertThrows(() => small.fromBytes(new Uint8Array(HEAD_SIZE + 1)), RangeError);
  assertThrows(() => small.fromChain(guest([HEAD_SIZE + 1], false).chain.reader), RangeError);
  assertThrows(() => small.setLength(HEAD_SIZE + 1), RangeError);
  assertThrows(() => small.setLength(-1), RangeError);
  assertEquals(new Frame().capacity, MAX_FRAME_SIZE);
});

Deno.test("what a receiver must be able to do follows from the header", () => {
  const frame = new Frame().fromBytes(new Uint8Array(60));
  assertEquals(frame.needs, 0);
  frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
  assertEquals(frame.needs, Offload.csum);
  frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
  assertEquals(frame.needs, Offload.csum | Offload.tso4);
  frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV6 | VIRTIO_NET_HDR_GSO_ECN;
  assertEquals(frame.needs, Offload.csum | Offload.tso6 | Offload.ecn);
  frame.gsoType = VIRTIO_NET_HDR_GSO_UDP;
  assertEquals(frame.needs, Offload.csum | Offload.ufo);
  frame.gsoType = VIRTIO_NET_HDR_GSO_UDP_L4;
  assertEquals(frame.needs, Offload.csum | Offload.uso4);
  frame.view.setUint16(12, 0x8100);
  frame.view.setUint16(16, 0x86dd);
  assertEquals(frame.needs, Offload.csum | Offload.uso6);
  frame.view.setUint16(12, 0x86dd);
  assertEquals(frame.needs, Offload.csum | Offload.uso6);
  frame.setLength(ETHERNET_HEADER_SIZE - 1);
  assertEquals(frame.needs, Offload.csum | Offload.uso4);
});

Deno.test("a frame that lies in one place goes into one place, or stays once it is held", () => {
  for (const length of [14, HEAD_SIZE, HEAD_SIZE + 1, 2000]) {
    const region = GuestMemory.allocate(0x4000).regions[0]!;
    const bytes = plainFrame(length);
    region.bytes.set(bytes, 100);
    const frame = new Frame();
    frame.fromPlace(region, 100, length);
    assertEquals([frame.length, frame.headLength], [length, Math.min(length, HEAD_SIZE)]);
    // The head is a copy that no driver changes, the rest is still the sender's.
    region.bytes.fill(7, 100, 100 + HEAD_SIZE);
    frame.copyInto(region, 0x2003);
    assertEquals(region.bytes.slice(0x2003, 0x2003 + length), bytes);
    assertEquals(region.bytes[0x2003 + length], 0);
    if (length > HEAD_SIZE) {
      assertThrows(() => frame.rewind(), TypeError, "hold()");
      frame.hold();
    }
    frame.rewind();
    region.bytes.fill(9, 0, 0x1000);
    frame.copyInto(region, 0x3001);
    assertEquals(region.bytes.slice(0x3001, 0x3001 + length), bytes);
    assertEquals(frame.bytes, bytes);
  }
  const small = new Frame(300);
  const region = GuestMemory.allocate(0x1000).regions[0]!;
  assertThrows(() => small.fromPlace(region, 0, 301), RangeError, "does not fit");
});

Deno.test("a long frame that lies in one place goes into merged buffers", async () => {
  const device: NetDevice = new NetDevice({
    backend: new LoopbackBackend(),
    mac: "02:00:00:00:00:01",
  });
  const driver = await RawNetDriver.open(device, { wanted: VIRTIO_NET_F_MRG_RXBUF });
  for (const size of [100, 200, 13, 300, 400, 2000]) driver.post(0, [size]);
  driver.send(plainFrame(2000));
  await turns(1);
  assertEquals(driver.frames().map(({ bytes }) => bytes), [plainFrame(2000)]);
});

/** What a guest says that no good stack would: the gateway stays where it is. */
import { assert, assertEquals } from "@std/assert";
import { payloadOf, RawGuest, sackOption, synOptions } from "./raw_testing.ts";
import { ACK, FIN, RST, SYN } from "./segment.ts";
import { TestEnd, testGuest } from "./wire_testing.ts";

function bytesOf(length: number): Uint8Array {
  return new Uint8Array(length).map((_, i) => i * 7 + (i >> 8));
}

Deno.test("a segment that is none is not looked at", () => {
  const raw = new RawGuest();
  raw.send({ flags: SYN, headerSize: 60 });
  raw.send({ flags: SYN, headerSize: 16 });
  assertEquals([raw.asked.length, raw.engine.counters.segmentsIn], [0, 0]);
  raw.send({ flags: SYN, checksumGood: false });
  assertEquals([raw.asked.length, raw.engine.counters.segmentsIn], [0, 0]);
  assertEquals(raw.take(), []);
});

Deno.test("options that lead nowhere end the options, not the segment", () => {
  for (const options of [[2, 0, 5, 180], [2, 1, 5, 180], [3, 9, 1, 1], [1, 1, 1, 2]]) {
    const raw = new RawGuest();
    raw.ask(options);
    assertEquals(raw.asked.length, 1);
  }
});

Deno.test("a reset to nobody is not answered, anything else is", () => {
  const raw = new RawGuest();
  raw.engine.incoming = null;
  raw.send({ flags: RST });
  raw.send({ flags: RST | ACK, ack: 5 });
  assertEquals(raw.take(), []);
  raw.send({ flags: ACK, ack: 77 });
  raw.send({ flags: SYN, seq: 100 });
  assertEquals(
    raw.take().map(({ segment: { flags, seq, ack } }) => [flags, seq, ack]),
    [[RST, 77, 0], [RST | ACK, 0, 101]],
  );
});

Deno.test("a handshake is completed by the number that it began with, and by no other", () => {
  const raw = new RawGuest();
  const end = raw.accept(raw.ask());
  const { seq } = raw.take()[0]!.segment;
  raw.seq++;
  for (const wrong of [0, -1, 2, 1000, -100_000]) {
    raw.send({ flags: ACK, ack: (seq + wrong) | 0 });
    const answers = raw.take().map(({ segment }) => [segment.flags, segment.seq]);
    assertEquals(answers, [[RST, (seq + wrong) | 0]]);
    assert(!end.isOpen);
  }
  raw.send({ flags: ACK, ack: (seq + 1) | 0 });
  assert(end.isOpen);
});

Deno.test("a guest that is asked answers with the number that it was asked with", () => {
  const raw = new RawGuest();
  const end = new TestEnd((handler) =>
    raw.engine.connect(raw.guest, raw.gateway, raw.address, raw.port, () => handler)!
  );
  const [syn] = raw.take();
  raw.peerPort = syn!.segment.sourcePort;
  const wrong = (syn!.segment.seq + 500) | 0;
  raw.send({ flags: SYN | ACK, ack: wrong, options: synOptions(1460, 7, true) });
  assertEquals(raw.take().map(({ segment: { flags, seq } }) => [flags, seq]), [[RST, wrong]]);
  raw.send({ flags: RST | ACK, ack: wrong });
  assertEquals([end.isOpen, end.reason], [false, null]);
  raw.send({
    flags: SYN | ACK,
    ack: (syn!.segment.seq + 1) | 0,
    options: synOptions(1460, 7, true),
  });
  assert(end.isOpen);
});

Deno.test("a SYN that comes again, since the answer to it was lost, is answered again", () => {
  const raw = new RawGuest();
  raw.accept(raw.ask());
  const first = raw.take();
  raw.send({ flags: SYN, ack: 0, options: synOptions(1460, 7, true) });
  const again = raw.take();
  assertEquals(again.map(({ segment }) => segment.flags), [SYN | ACK]);
  assertEquals(again[0]!.segment.seq, first[0]!.segment.seq);
});

Deno.test("a handshake that nobody completes is given up, and so is a guest that acknowledges nothing", () => {
  const raw = new RawGuest();
  const silent = raw.accept(raw.ask());
  raw.timing.pass(600_000);
  assertEquals([silent.reason, raw.engine.bufferBytes], ["timeout", 0]);
  assert(raw.take().length < 20);
  raw.port++;
  const deaf = raw.connect();
  deaf.send(bytesOf(100));
  raw.timing.pass(600_000);
  assertEquals([deaf.reason, raw.engine.bufferBytes], ["timeout", 0]);
  assert(raw.take().length < 20);
});

Deno.test("what was never sent cannot be acknowledged", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  end.send(bytesOf(100), true);
  raw.take();
  raw.send({ flags: ACK, ack: (raw.ack + 5000) | 0 });
  assertEquals(end.connection.unacknowledged, 100);
  assertEquals(raw.take().map(({ segment }) => segment.flags), [ACK]);
  // The end is acknowledged by its own number, not by that of the last byte.
  raw.send({ flags: ACK, ack: (raw.ack + 100) | 0 });
  raw.send({ flags: FIN | ACK, ack: (raw.ack + 100) | 0 });
  assertEquals(end.reason, null);
  raw.send({ flags: ACK, seq: raw.seq + 1, ack: (raw.ack + 101) | 0 });
  assertEquals(end.reason, "finished");
});

Deno.test("two who disagree do not talk for ever", () => {
  const raw = new RawGuest();
  raw.connect();
  for (let i = 0; i < 100; i++) raw.send({ flags: ACK, seq: (raw.seq - 100_000) | 0 });
  assertEquals(raw.take().length, 1);
  raw.timing.pass(100);
  raw.send({ flags: ACK, seq: (raw.seq - 100_000) | 0 });
  assertEquals(raw.take().length, 1);
});

Deno.test("a station that has another's address now does not go on with its connections", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  const other = testGuest("02:00:00:00:00:06");
  raw.send({ flags: ACK, payload: bytesOf(10), guest: other });
  assertEquals([end.reason, end.got.length], ["gone", 0]);
  assertEquals(raw.take().map(({ segment }) => segment.flags), [RST]);
});

Deno.test("what was said before the end of it all is not said again, wherever the end was said to be", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  const bytes = bytesOf(100);
  const at = (offset: number, length: number, flags = ACK): void =>
    raw.send({ flags, seq: (raw.seq + offset) | 0, payload: bytes.slice(offset, offset + length) });
  at(100, 0, FIN | ACK);
  at(50, 0, FIN | ACK);
  at(60, 20, FIN | ACK);
  // Nothing lies behind the end.
  raw.send({ flags: ACK, seq: (raw.seq + 100) | 0, payload: new Uint8Array(50) });
  assertEquals([end.got.length, end.ended], [0, false]);
  at(0, 60);
  at(60, 40);
  assertEquals([end.got, end.ended], [bytes, true]);
  at(0, 100);
  assertEquals(end.got, bytes);
});

Deno.test("a gap is told at once, with what came behind it", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  const payload = bytesOf(100);
  const start = (raw.seq + 200) | 0;
  raw.send({ flags: ACK, seq: start, payload });
  const { segment } = raw.take()[0]!;
  assertEquals([segment.ack, segment.sackCount], [raw.seq, 1]);
  assertEquals([...segment.sack.subarray(0, 2)], [start, (start + 100) | 0]);
  assertEquals(end.got.length, 0);
});

Deno.test("room is told when it is worth it, and then at once", () => {
  const raw = new RawGuest({ bufferSize: 4096 });
  const end = raw.connect();
  end.greed = 0;
  raw.send({ flags: ACK, payload: bytesOf(4096) });
  const answers = raw.take();
  assertEquals(answers.at(-1)!.segment.window, 0);
  end.greed = 1;
  for (let i = 0; i < 100; i++) end.readable();
  assertEquals(raw.take(), [], "each byte is not told");
  end.greed = 3000;
  end.readable();
  const [told] = raw.take();
  assertEquals(told!.segment.ack, (raw.seq + 4096) | 0);
  assertEquals(told!.segment.window, 3100);
});

Deno.test("a guest that says that it holds what was never sent causes nothing", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  end.send(bytesOf(14_000));
  const sent = payloadOf(raw.take());
  assertEquals(sent, 14_000);
  const beyond = (raw.ack + 50_000) | 0;
  for (let i = 0; i < 5; i++) {
    const more = (beyond + 10_000 * (i + 1)) | 0;
    raw.send({ flags: ACK, options: sackOption(beyond, more) });
  }
  assertEquals([payloadOf(raw.take()), raw.engine.counters.repeated], [0, 0]);
  // What it really holds makes the rest come again.
  raw.send({ flags: ACK, options: sackOption((raw.ack + 1460) | 0, (raw.ack + 14_000) | 0) });
  const [again] = raw.take();
  assertEquals([again!.segment.seq, again!.segment.length], [raw.ack, 1460]);
});

/** What the gateway sends, when, and in which pieces, to guests of all kinds. */
import { assert, assertEquals } from "@std/assert";
import { payloadOf, RawGuest, sackOption, synOptions } from "./raw_testing.ts";
import { ACK } from "./segment.ts";

const MANY = new Uint8Array(200_000).map((_, i) => i);

Deno.test("segments are as large as the guest takes, but no dust", () => {
  for (const [mss, piece] of [[500, 500], [1460, 1460], [9000, 1460], [1, 64], [0, 536]]) {
    const raw = new RawGuest();
    const end = raw.connect(synOptions(mss!, 7, true));
    end.send(MANY);
    const answers = raw.take();
    assert(answers.length > 0);
    for (const { segment, gsoSize } of answers) {
      if (gsoSize === 0) assert(segment.length <= piece!);
      else assertEquals(gsoSize, piece);
    }
    // Ten segments, until the guest answers (RFC 6928).
    assertEquals(payloadOf(answers), 10 * piece!);
  }
});

Deno.test("windows are scaled if the guest can, and as far as may be", () => {
  for (const scale of [null, 0, 7, 14, 40]) {
    const raw = new RawGuest();
    const connection = raw.ask(synOptions(1460, scale, true));
    const end = raw.accept(connection);
    const { segment } = raw.take()[0]!;
    assertEquals(segment.windowScale >= 0, scale !== null);
    raw.seq++;
    raw.ack = (segment.seq + 1) | 0;
    raw.window = 1;
    raw.send({ flags: ACK });
    end.send(MANY);
    const sent = payloadOf(raw.take());
    const takes = 1 << Math.min(14, scale ?? 0);
    assertEquals(sent, Math.min(14_600, takes), `${scale}`);
    if (scale === null) {
      raw.send({ flags: ACK, payload: new Uint8Array(3000) });
      assertEquals(raw.take().at(-1)!.segment.window, 65_535, "ours are not scaled then either");
    }
  }
});

Deno.test("a window that an old segment tells, which was overtaken, does not count", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  const payload = new Uint8Array(10);
  raw.send({ flags: ACK, seq: (raw.seq + 10) | 0, payload, window: 0 });
  raw.send({ flags: ACK, seq: raw.seq, payload, window: 5000 });
  raw.take();
  end.send(MANY);
  assertEquals(payloadOf(raw.take()), 0);
  raw.send({ flags: ACK, seq: (raw.seq + 20) | 0, window: 5000 });
  assert(payloadOf(raw.take()) > 0);
});

Deno.test("a little room is not filled by little segments", () => {
  const raw = new RawGuest();
  raw.window = 2000;
  const end = raw.connect(synOptions(1460, null, true));
  end.send(MANY);
  assertEquals(raw.take().map(({ segment }) => segment.length), [1460]);
});

Deno.test("answers are waited for at least 200 ms, then twice as long each time", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  let acked = 0;
  // It answers within a millisecond.
  for (let i = 0; i < 20; i++) {
    end.send(MANY.subarray(0, 100));
    raw.timing.pass(1);
    acked += payloadOf(raw.take());
    raw.send({ flags: ACK, ack: (raw.ack + acked) | 0 });
  }
  assertEquals([acked, end.connection.unacknowledged], [2000, 0]);
  raw.ack = (raw.ack + acked) | 0;
  end.send(MANY.subarray(0, 100));
  raw.take();
  for (const wait of [200, 400, 800, 1600]) {
    raw.timing.pass(wait - 5);
    assertEquals(raw.take(), [], `${wait}`);
    raw.timing.pass(5);
    assertEquals(raw.take().map(({ segment }) => [segment.seq, segment.length]), [[raw.ack, 100]]);
  }
});

Deno.test("the answer to what was sent twice measures nothing", () => {
  const raw = new RawGuest();
  const end = raw.connect();
  end.send(MANY.subarray(0, 14_600));
  raw.take();
  raw.timing.pass(500);
  raw.send({ flags: ACK, options: sackOption((raw.ack + 1460) | 0, (raw.ack + 14_600) | 0) });
  assertEquals(payloadOf(raw.take()), 1460, "what is missing is sent again");
  raw.timing.pass(400);
  raw.ack = (raw.ack + 14_600) | 0;
  raw.send({ flags: ACK });
  end.send(MANY.subarray(0, 100));
  raw.take();
  // A second, as nothing is known; with 900 ms measured it would be more than two.
  raw.timing.pass(1005);
  assertEquals(payloadOf(raw.take()), 100);
});

import { assert, assertEquals, assertStrictEquals, assertThrows } from "@std/assert";
import { Frame } from "./frame.ts";
import { verifyChecksum } from "./offload/checksum.ts";
import { FrameLayout } from "./offload/parse.ts";
import { buildFrame, pattern } from "./offload/testing.ts";
import { pass } from "./pass.ts";
import { type FrameSink, Offload } from "./sink.ts";

const { csum, tso4, tso6, ecn, ufo, uso4, uso6 } = Offload;

class Sink implements FrameSink {
  readonly got: Frame[] = [];
  constructor(readonly offloads: number) {}
  deliver(frame: Frame): void {
    assertEquals(frame.needs & ~this.offloads, 0);
    this.got.push(new Frame().fromFrame(frame));
  }
  get lengths(): number[] {
    return this.got.map(({ length }) => length);
  }
}

interface Shape {
  readonly ip: 4 | 6;
  readonly transport: "tcp" | "udp";
  readonly gsoType: number;
  readonly tags?: readonly number[];
}

function make(shape: Shape, payload: number, gsoSize: number): Frame {
  const bytes = buildFrame({ ...shape, payload: pattern(payload), checksum: "partial" });
  const frame = new Frame().fromBytes(bytes);
  frame.flags = 1;
  frame.gsoType = shape.gsoType;
  frame.gsoSize = gsoSize;
  frame.csumStart = 14 + 4 * (shape.tags?.length ?? 0) + (shape.ip === 4 ? 20 : 40);
  frame.csumOffset = shape.transport === "tcp" ? 16 : 6;
  return frame;
}

function isRight(frame: Frame): boolean {
  return verifyChecksum(frame.view, new FrameLayout().parse(frame.view, frame.length));
}

Deno.test("a frame that the sink takes is passed on as it is, unread", () => {
  const frame = make({ ip: 4, transport: "tcp", gsoType: 1 }, 3000, 1000);
  const got: Frame[] = [];
  const tally = { frames: 0, bytes: 0 };
  assert(pass(frame, { offloads: csum | tso4, deliver: (frame) => got.push(frame) }, tally));
  assertStrictEquals(got[0], frame);
  assertEquals(tally, { frames: 0, bytes: 0 });
});

Deno.test("every type is cut for a sink that takes none, with right checksums", () => {
  const cases: [Shape, number[]][] = [
    [{ ip: 4, transport: "tcp", gsoType: 1 }, [1054, 1054, 554]],
    [{ ip: 4, transport: "tcp", gsoType: 0x81 }, [1054, 1054, 554]],
    [{ ip: 6, transport: "tcp", gsoType: 4, tags: [5] }, [1078, 1078, 578]],
    [{ ip: 4, transport: "udp", gsoType: 5 }, [1042, 1042, 542]],
    [{ ip: 6, transport: "udp", gsoType: 5 }, [1062, 1062, 562]],
  ];
  for (const [shape, lengths] of cases) {
    const frame = make(shape, 2500, 1000);
    const before = [...frame.bytes];
    const sink = new Sink(0);
    const tally = { frames: 0, bytes: 0 };
    assert(pass(frame, sink, tally));
    assertEquals(sink.lengths, lengths);
    assertEquals(tally, { frames: 3, bytes: lengths.reduce((sum, n) => sum + n, 0) });
    assert(sink.got.every((frame) => frame.needs === 0 && isRight(frame)));
    // The sender's frame is as it was: others may be given it too.
    assertEquals([...frame.bytes], before);
    assertEquals([frame.flags, frame.gsoType, frame.gsoSize], [1, shape.gsoType, 1000]);
  }
});

Deno.test("UDP is cut into fragments where that was asked for", () => {
  const sink = new Sink(csum | uso4 | uso6 | tso4);
  assert(pass(make({ ip: 4, transport: "udp", gsoType: 3 }, 2500, 1000), sink));
  assertEquals(sink.lengths, [1034, 1034, 34 + 508]);
  assert(sink.got.every(({ needs }) => needs === 0));
});

Deno.test("one missing ability is enough to cut; checksums are left to a sink that can complete them", () => {
  const cases: [Shape, number][] = [
    [{ ip: 4, transport: "tcp", gsoType: 0x81 }, csum | tso4],
    [{ ip: 4, transport: "tcp", gsoType: 1 }, csum | tso6 | ecn],
    [{ ip: 6, transport: "tcp", gsoType: 4 }, csum | tso4],
    [{ ip: 4, transport: "udp", gsoType: 5 }, csum | uso6 | ufo],
    [{ ip: 6, transport: "udp", gsoType: 5 }, csum | uso4 | ufo],
  ];
  for (const [shape, offloads] of cases) {
    const sink = new Sink(offloads);
    pass(make(shape, 2500, 1000), sink);
    assertEquals(sink.got.length, 3);
    for (const frame of sink.got) {
      assertEquals(frame.needs, csum);
      assertEquals(frame.headerLength, frame.csumStart + (shape.transport === "tcp" ? 20 : 8));
      const finished = new Sink(0);
      pass(frame, finished);
      assert(isRight(finished.got[0]!));
    }
  }
});

Deno.test("a checksum is completed in a copy", () => {
  for (const transport of ["tcp", "udp"] as const) {
    for (const size of [0, 1, 1000, 1460]) {
      const frame = make({ ip: 4, transport, gsoType: 0 }, size, 0);
      const before = [...frame.bytes];
      const sink = new Sink(0);
      assert(pass(frame, sink));
      assert(isRight(sink.got[0]!));
      assertEquals([...frame.bytes], before);
      const { flags, csumStart, csumOffset, headerLength } = sink.got[0]!;
      assertEquals([flags, csumStart, csumOffset, headerLength], [0, 0, 0, 0]);
    }
  }
});

Deno.test("a checksum of UDP is never 0, that of another protocol may be", () => {
  // All ones sum up to the complement of 0.
  for (const [csumOffset, checksum] of [[6, 0xffff], [10, 0]] as const) {
    const bytes = buildFrame({
      ip: 4,
      transport: "udp",
      payload: new Uint8Array(8),
      checksum: "none",
    });
    bytes.fill(0, 34);
    bytes.set([0xff, 0xff], 34);
    const frame = new Frame().fromBytes(bytes);
    frame.flags = 1;
    frame.csumStart = 34;
    frame.csumOffset = csumOffset;
    const sink = new Sink(0);
    pass(frame, sink);
    assertEquals(sink.got[0]!.view.getUint16(34 + csumOffset), checksum);
  }
});

Deno.test("what was made wrongly is not passed on", () => {
  const frame = make({ ip: 4, transport: "tcp", gsoType: 1 }, 3000, 0);
  const sink = new Sink(0);
  assertEquals(pass(frame, sink), false);
  frame.gsoSize = 1000;
  frame.csumStart = 9000;
  assertEquals(pass(frame, sink), false);
  assertEquals(sink.got, []);
});

Deno.test("a sink may pass frames on itself while it is given some, or throw", () => {
  const end = new Sink(0);
  const middle: FrameSink = { offloads: csum, deliver: (frame) => void pass(frame, end) };
  const frame = make({ ip: 4, transport: "tcp", gsoType: 1 }, 2500, 1000);
  pass(frame, middle);
  assertEquals(end.lengths, [1054, 1054, 554]);
  assert(end.got.every(isRight));
  const broken: FrameSink = {
    offloads: 0,
    deliver: () => {
      throw new Error("broken");
    },
  };
  for (let i = 0; i < 3; i++) assertThrows(() => pass(frame, broken), Error, "broken");
  const again = new Sink(0);
  pass(frame, again);
  assertEquals(again.lengths, [1054, 1054, 554]);
});

Deno.test("a sink may have another frame cut while it is given the pieces of one", () => {
  const answers = new Sink(0);
  const question = make({ ip: 4, transport: "tcp", gsoType: 1 }, 2500, 1000);
  const answer = make({ ip: 6, transport: "udp", gsoType: 5 }, 1500, 500);
  const got: Frame[] = [];
  const answering: FrameSink = {
    offloads: 0,
    deliver: (frame) => {
      pass(answer, answers);
      got.push(new Frame().fromFrame(frame));
    },
  };
  pass(question, answering);
  assertEquals(got.map(({ length }) => length), [1054, 1054, 554]);
  assert(got.every(isRight));
  assertEquals(answers.lengths, Array(3).fill([562, 562, 562]).flat());
});

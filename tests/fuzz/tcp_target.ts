/**
 * Fuzzes the gateway's TCP: a guest that mostly keeps the rules, and sends what it likes now and then, while the outside talks,
 * stalls and breaks. Every byte that arrives anywhere is the one that belongs there.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { type TestStream, TestWorld } from "../../packages/virbr/flow/nat_testing.ts";
import { ipv4 } from "../../packages/virbr/tcp/wire_testing.ts";
import type { Target } from "./harness.ts";

const CONNECTIONS = 3;
const BUFFER = 16_384;
const MAX_FLOWS = 6;
const OUTSIDE = ipv4(198, 51, 100, 7);
const [FIN, SYN, RST, ACK] = [1, 2, 4, 16];

type Step =
  /** A segment that keeps the rules, but for what the guest has forgotten. */
  | { do: "open" | "acknowledge" | "finish" | "reset"; connection: number }
  | { do: "send"; connection: number; length: number }
  /** Numbers are distances from what would be right. */
  | {
    do: "segment";
    connection: number;
    flags: number;
    seq: number;
    ack: number;
    window: number;
    length: number;
    options: readonly number[];
  }
  | { do: "bytes"; bytes: readonly number[] }
  | { do: "say"; connection: number; length: number; end: boolean }
  | { do: "stick" | "unstick" | "fail"; connection: number }
  | { do: "deaf"; connection: number }
  | { do: "wait"; milliseconds: number };

/** A case. */
export interface TcpCase {
  /** Sequence number that guests begin with. */
  readonly isn: number;
  /** Options of each SYN. */
  readonly options: readonly number[];
  readonly window: number;
  readonly steps: readonly Step[];
}

const connection = fc.nat(CONNECTIONS - 1);
const near = fc.oneof(
  { weight: 6, arbitrary: fc.constant(0) },
  { weight: 3, arbitrary: fc.integer({ min: -3000, max: 3000 }) },
  { weight: 1, arbitrary: fc.integer({ min: -0x8000_0000, max: 0x7fff_ffff }) },
);
const options = fc.oneof(
  fc.constant([]),
  fc.constant([2, 4, 5, 0xb4, 1, 3, 3, 7, 1, 1, 4, 2]),
  fc.constant([2, 4, 0, 0]),
  fc.array(fc.nat(255), { maxLength: 40 }),
  fc.array(fc.constantFrom(0, 1, 2, 3, 4, 5, 8, 10, 18, 255), { maxLength: 40 }),
);

const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constantFrom("open" as const, "open" as const, "acknowledge" as const),
      connection,
    }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant("send" as const), connection, length: fc.nat(4000) }),
  },
  {
    weight: 5,
    arbitrary: fc.record({ do: fc.constant("acknowledge" as const), connection }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ do: fc.constantFrom("finish" as const, "reset" as const), connection }),
  },
  {
    weight: 5,
    arbitrary: fc.record({
      do: fc.constant("segment" as const),
      connection,
      flags: fc.oneof(fc.constantFrom(0, ACK, ACK, SYN, RST, FIN | ACK), fc.nat(255)),
      seq: near,
      ack: near,
      window: fc.constantFrom(0, 1, 100, 5000, 65_535),
      length: fc.oneof(fc.constant(0), fc.nat(3000)),
      options,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constant("bytes" as const),
      bytes: fc.array(fc.nat(255), { maxLength: 60 }),
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("say" as const),
      connection,
      length: fc.nat(30_000),
      end: fc.constantFrom(false, false, false, true),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      do: fc.constantFrom("stick" as const, "unstick" as const, "fail" as const, "deaf" as const),
      connection,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      do: fc.constant("wait" as const),
      milliseconds: fc.constantFrom(1, 1, 50, 300, 5000, 100_000),
    }),
  },
);

const cases: fc.Arbitrary<TcpCase> = fc.record({
  isn: fc.constantFrom(0, 1000, -2000, 0x7fff_ffff - 2000),
  options,
  window: fc.constantFrom(0, 500, 8000, 65_535),
  steps: fc.array(step, { maxLength: 80, size: "max" }),
});

/** What the guest says at a sequence number. */
const guestByte = (seq: number): number => (Math.imul(seq, 167) >>> 7) & 0xff;
/** What the outside says at a place. */
const outsideByte = (place: number): number => (Math.imul(place, 251) >>> 5) & 0xff;

/** What the guest knows of one of its connections. */
class Known {
  readonly port: number;
  /** The next number that it sends. */
  next = 0;
  /** The gateway's first number, and the next that is expected; null before it answered. */
  iss: number | null = null;
  expected = 0;
  /** The highest number behind a window that the gateway was ever told. */
  edge = 0;
  /** Whether the guest ignores what comes. */
  deaf = false;
  /** The outside's end, and the first number of the guest's that it gets. */
  stream: TestStream | null = null;
  first = 0;
  said = 0;
  /** Bytes that the outside got, and that were looked at. */
  checked = 0;

  constructor(port: number) {
    this.port = port;
  }
}

class TcpRun {
  readonly #test: TcpCase;
  readonly #world = new TestWorld({ maxFlows: MAX_FLOWS }, BUFFER);
  readonly #known: readonly Known[];

  constructor(test: TcpCase) {
    this.#test = test;
    this.#known = Array.from({ length: CONNECTIONS }, (_, i) => new Known(2000 + i));
    this.#world.onSegment = (_path, bytes) => this.#take(bytes);
  }

  async run(): Promise<void> {
    for (const step of this.#test.steps) {
      await this.#step(step);
      this.#check();
    }
    assertEquals(await this.#world.close(), [0, 0, 0, 0, 0, 0], "nothing is left");
    this.#check();
  }

  async #step(step: Step): Promise<void> {
    switch (step.do) {
      case "open": {
        const known = this.#known[step.connection]!;
        known.next = (this.#test.isn + 1) | 0;
        known.deaf = false;
        this.#send(known, this.#test.isn, 0, SYN, this.#test.options, 0);
        await this.#world.pass(1);
        if (known.iss !== null) this.#send(known, known.next, known.expected, ACK, [], 0);
        return;
      }
      case "send": {
        const known = this.#known[step.connection]!;
        this.#send(known, known.next, known.expected, ACK, [], step.length);
        known.next = (known.next + step.length) | 0;
        return;
      }
      case "acknowledge": {
        const known = this.#known[step.connection]!;
        this.#send(known, known.next, known.expected, ACK, [], 0);
        return;
      }
      case "finish": {
        const known = this.#known[step.connection]!;
        this.#send(known, known.next, known.expected, FIN | ACK, [], 0);
        known.next = (known.next + 1) | 0;
        return;
      }
      case "reset": {
        const known = this.#known[step.connection]!;
        this.#send(known, known.next, 0, RST, [], 0);
        return;
      }
      case "segment": {
        const known = this.#known[step.connection]!;
        const seq = (known.next + step.seq) | 0;
        const ack = (known.expected + step.ack) | 0;
        this.#send(known, seq, ack, step.flags, step.options, step.length, step.window);
        return;
      }
      case "bytes":
        this.#world.send(OUTSIDE, new Uint8Array(step.bytes), 6);
        return;
      case "say": {
        const known = this.#known[step.connection]!;
        const bytes = new Uint8Array(step.length).map((_, i) => outsideByte(known.said + i));
        known.said += step.length;
        known.stream?.say(bytes, step.end);
        await this.#world.pass(1);
        return;
      }
      case "stick":
      case "unstick":
      case "fail": {
        const { stream } = this.#known[step.connection]!;
        if (stream === null) return;
        if (step.do === "stick") stream.stuck = true;
        else if (step.do === "unstick") stream.unstick();
        else stream.fail();
        await this.#world.pass(1);
        return;
      }
      case "deaf":
        this.#known[step.connection]!.deaf = true;
        return;
      case "wait":
        return await this.#world.pass(step.milliseconds);
    }
  }

  #send(
    known: Known,
    seq: number,
    ack: number,
    flags: number,
    options: readonly number[],
    length: number,
    window: number = this.#test.window,
  ): void {
    const size = 20 + Math.min(40, (options.length + 3) & ~3);
    const bytes = new Uint8Array(size + length);
    const view = new DataView(bytes.buffer);
    view.setUint16(0, 1000 + known.port);
    view.setUint16(2, known.port);
    view.setInt32(4, seq);
    view.setInt32(8, ack);
    view.setUint8(12, size << 2);
    view.setUint8(13, flags);
    view.setUint16(14, window);
    bytes.set(options.slice(0, 40), 20);
    const first = (flags & SYN) !== 0 ? seq + 1 : seq;
    for (let i = 0; i < length; i++) bytes[size + i] = guestByte((first + i) | 0);
    // What is far from anything that was sent is not believed; its numbers would only wrap around.
    if ((flags & ACK) !== 0 && Math.abs((ack - known.expected) | 0) < 2 ** 28) {
      // The largest shift there is: what the gateway takes it for is no more than that.
      const edge = (ack + window * 2 ** 14) | 0;
      if (((edge - known.edge) | 0) > 0) known.edge = edge;
    }
    this.#world.send(OUTSIDE, bytes, 6);
  }

  /** A segment of the gateway's. */
  #take(bytes: Uint8Array): void {
    const view = new DataView(bytes.buffer);
    const known = this.#known.find(({ port }) => port === view.getUint16(0));
    if (known === undefined) return;
    const header = (view.getUint8(12) >>> 4) * 4;
    assert(header >= 20 && header <= bytes.length, "the header is as long as it says");
    const seq = view.getInt32(4);
    const flags = view.getUint8(13);
    if ((flags & RST) !== 0) return;
    if ((flags & SYN) !== 0) {
      const first = view.getInt32(8);
      if (known.iss !== seq || known.first !== first) {
        known.stream = this.#world.outside.streams.findLast(({ peer }) =>
          peer === `198.51.100.7 ${known.port}`
        ) ?? null;
        known.said = 0;
        known.checked = 0;
        known.iss = seq;
        known.expected = (seq + 1) | 0;
        known.first = first;
        known.edge = (seq + 1) | 0;
      }
      return;
    }
    if (known.iss === null || known.deaf) return;
    const payload = bytes.subarray(header);
    const place = (seq - known.iss - 1) | 0;
    assert(place >= -1, "numbers begin with those of SYN");
    const after = payload.length === 0 ? 1 : 0; // FIN's own number
    assert(place + payload.length <= known.said + after, "it says what nobody said");
    const wrong = payload.findIndex((byte, i) => byte !== outsideByte(place + i));
    assert(wrong < 0, `byte ${place + wrong} for the guest is another`);
    const end = (seq + payload.length + (flags & FIN)) | 0;
    const beyond = (seq + payload.length - known.edge) | 0;
    assert(payload.length === 0 || beyond <= 0, "it sends beyond the window");
    if (((seq - known.expected) | 0) <= 0 && ((end - known.expected) | 0) > 0) known.expected = end;
  }

  #check(): void {
    const { nat, guest } = this.#world;
    assert(nat.flows(guest) <= MAX_FLOWS, "a guest has no more flows than it may");
    assert(nat.tcp.bufferBytes <= 2 * MAX_FLOWS * BUFFER, "memory is bounded");
    for (const known of this.#known) {
      const { stream } = known;
      if (stream === null) continue;
      const { got } = stream;
      for (; known.checked < got.length; known.checked++) {
        if (got[known.checked] !== guestByte((known.first + known.checked) | 0)) {
          throw new Error(`byte ${known.checked} for the outside is another`);
        }
      }
    }
  }
}

/** The gateway's TCP. */
export const tcpTarget: Target<TcpCase> = {
  name: "tcp",
  cases,
  run: (test) => new TcpRun(test).run(),
};

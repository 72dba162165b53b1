/**
 * Fuzzes a vhost-user back end with a stream of messages and descriptors: mostly what a front end would send, in any order, with
 * rare broken rules, cut off anywhere.
 */
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { EventFd, MemoryFile, UnixSocket } from "@virtio/linux";
import {
  encodeConfig,
  encodeInflight,
  encodeLog,
  encodeMemoryTable,
  encodeRegion,
  encodeU64,
  encodeVringAddress,
  encodeVringDescriptor,
  encodeVringState,
  frontEndRequests,
  HEADER_SIZE,
  type MessageShape,
  ProtocolError,
} from "@virtio/vhost-user/protocol";
import {
  EchoDevice,
  Front,
  GUEST_BASE,
  SIZE,
  USER_BASE,
} from "../../packages/vhost-user/backend/front_testing.ts";
import type { Target } from "./harness.ts";

/** What a message carries: numbers that its payload is made of, or bytes. */
interface MessageCase {
  /** Which message; beyond the known ones, some other number. */
  readonly request: number;
  readonly numbers: readonly number[];
  /** Instead of a payload of its kind. */
  readonly bytes: readonly number[] | null;
  /** Descriptors more or less than it should have. */
  readonly extra: number;
  /** Which descriptor: memory, notes, event, socket. */
  readonly kind: number;
  readonly flags: number;
  /** What the header says of the size, beside the truth. */
  readonly lie: number;
}

/** A front end's life. */
interface VhostUserCase {
  readonly setUp: boolean;
  readonly packed: boolean;
  readonly messages: readonly MessageCase[];
  /** Guest memory that is overwritten in between: offset and value. */
  readonly pokes: readonly (readonly [number, number])[];
  /** Bytes of the last message that are not sent. */
  readonly cut: number;
}

const SHAPES: readonly MessageShape[] = [...frontEndRequests.values()];
const rarely = <T>(usual: fc.Arbitrary<T>, rare: fc.Arbitrary<T>): fc.Arbitrary<T> =>
  fc.oneof({ weight: 15, arbitrary: usual }, { weight: 1, arbitrary: rare });

const message: fc.Arbitrary<MessageCase> = fc.record({
  request: rarely(fc.nat(SHAPES.length - 1), fc.nat(200)),
  numbers: fc.array(
    fc.oneof(fc.nat(3), fc.nat(64), fc.constantFrom(0x1000, 0x8000, 0xffff, SIZE, 2 ** 40)),
    { minLength: 6, maxLength: 6 },
  ),
  bytes: rarely(
    fc.constant(null),
    fc.array(fc.nat(255), { maxLength: 290 }) as fc.Arbitrary<number[] | null>,
  ) as fc.Arbitrary<number[] | null>,
  extra: rarely(fc.constant(0), fc.integer({ min: -1, max: 9 })),
  kind: rarely(fc.constant(-1), fc.nat(3)),
  flags: rarely(fc.constantFrom(1, 9), fc.nat(31)),
  lie: rarely(fc.constant(0), fc.constantFrom(-8, 1, 8, 300, -1000)),
});

const FEATURES = (packed: boolean): bigint => 1n << 32n | 1n << 29n | (packed ? 1n << 34n : 0n);

/** A payload of the right kind. */
function payloadOf(shape: MessageShape, numbers: readonly number[]): Uint8Array {
  const [a, b, c, d, e, f] = numbers as [number, number, number, number, number, number];
  const user = (at: number): bigint => BigInt(USER_BASE + at);
  const region = {
    guestAddress: BigInt(GUEST_BASE + (a > 3 ? 4096 * a : 0)),
    size: BigInt(b > 64 ? b : SIZE),
    userAddress: user(c > 64 ? c : 0),
    offset: BigInt(d > 3 ? 4096 * d : 0),
  };
  switch (shape.payload) {
    case "none":
      return new Uint8Array(0);
    case "u64":
      if (shape.name === "SET_FEATURES") return encodeU64(FEATURES(a > 1) | 1n << 30n);
      if (shape.name === "SET_PROTOCOL_FEATURES") return encodeU64(BigInt(b > 64 ? b : 0x1_fe2f));
      if (shape.name.startsWith("SET_VRING")) {
        return encodeVringDescriptor({ index: a, none: b === 0 });
      }
      return encodeU64(BigInt(a));
    case "vringState":
      return encodeVringState({ index: a & 3, value: b > 2 ** 32 - 1 ? 64 : b });
    case "vringAddress":
      return encodeVringAddress({
        index: a & 1,
        flags: b & 1,
        descriptors: user(c > 64 ? c : 0),
        available: user(d > 64 ? d : 0x2000),
        used: user(e > 64 ? e : 0x4000),
        log: BigInt(f),
      });
    case "memoryTable":
      return encodeMemoryTable(e > 3 ? [region] : [region, { ...region, guestAddress: 0n }]);
    case "region":
      return encodeRegion(region);
    case "log":
      return encodeLog({ size: BigInt(a > 64 ? a : 64), offset: BigInt(4096 * (b & 1)) });
    case "config":
      return encodeConfig({ offset: a, flags: b & 1, bytes: new Uint8Array(c & 255) });
    case "inflight":
      return encodeInflight({
        size: BigInt(a > 64 ? a : 8192),
        offset: 0n,
        queues: b & 3,
        queueSize: c > 0xffff ? 64 : c,
      });
    case "vringArea":
      return new Uint8Array(24);
  }
}

/** All that a case needs beside its front end. */
class Descriptors {
  readonly notes: MemoryFile = MemoryFile.create(2 * 8192);
  readonly event: EventFd = EventFd.create();
  readonly pair: [UnixSocket, UnixSocket] = UnixSocket.pair();

  /** The one for a message. */
  of(shape: MessageShape | undefined, kind: number, memory: number): number {
    const byName = /MEM/.test(shape?.name ?? "")
      ? 0
      : /INFLIGHT|LOG_BASE/.test(shape?.name ?? "")
      ? 1
      : /BACKEND/.test(shape?.name ?? "")
      ? 3
      : 2;
    return [memory, this.notes.descriptor, this.event.descriptor, this.pair[0].descriptor][
      kind < 0 ? byName : kind
    ]!;
  }

  close(): void {
    this.notes.close();
    this.event.close();
    for (const socket of this.pair) socket.close();
  }
}

function bytesOf(test: MessageCase): [Uint8Array, MessageShape | undefined] {
  const shape = SHAPES[test.request];
  const payload = test.bytes !== null
    ? new Uint8Array(test.bytes)
    : shape === undefined
    ? new Uint8Array(8)
    : payloadOf(shape, test.numbers);
  const bytes = new Uint8Array(HEADER_SIZE + payload.length);
  const header = new DataView(bytes.buffer);
  header.setUint32(0, shape?.id ?? test.request, true);
  header.setUint32(4, test.flags, true);
  header.setUint32(8, payload.length + test.lie, true);
  bytes.set(payload, HEADER_SIZE);
  return [bytes, shape];
}

function countOf(shape: MessageShape | undefined, test: MessageCase): number {
  const most = shape?.descriptors[1] ?? 0;
  const usual = shape?.payload === "memoryTable"
    ? (test.numbers[4]! > 3 ? 1 : 2)
    : shape?.payload === "u64" && most === 1
    ? (test.numbers[1] === 0 ? 0 : 1)
    : most;
  return Math.max(0, usual + test.extra);
}

const yieldTurn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 0));

/** The target. */
export const vhostUserTarget: Target<VhostUserCase> = {
  name: "vhost-user",
  cases: fc.record({
    setUp: rarely(fc.constant(true), fc.constant(false)),
    packed: fc.boolean(),
    messages: fc.array(message, { maxLength: 25 }),
    pokes: fc.array(fc.tuple(fc.nat(0x10000), fc.nat(0xffff)), { maxLength: 6 }),
    cut: rarely(fc.constant(0), fc.nat(30)),
  }),
  async run(test: VhostUserCase): Promise<void> {
    const descriptors = new Descriptors();
    const device = new EchoDevice();
    const front = new Front(device, { inband: true, patience: 50 });
    const files = [front.file, descriptors.notes].map(({ descriptor }) => inodeOf(descriptor));
    const protocol = 0x1_fe2fn;
    const broken = (error: unknown): boolean => {
      const { name } = error as Error;
      return name === "SystemError" || error instanceof ProtocolError;
    };
    try {
      if (test.setUp) {
        await front.negotiate(FEATURES(test.packed), protocol);
        front.share();
        front.setUp(0, FEATURES(test.packed));
        front.enable(0);
        front.request(0, 1);
      }
      for (const [i, each] of test.messages.entries()) {
        const [bytes, shape] = bytesOf(each);
        const count = countOf(shape, each);
        const given = descriptors.of(shape, each.kind, front.file.descriptor);
        const length = bytes.length - (i === test.messages.length - 1 ? test.cut : 0);
        if (length <= 0) break;
        front.channel.socket.send(bytes.subarray(0, length), new Array(count).fill(given));
        const poke = test.pokes[i];
        if (poke !== undefined) front.memory.writeU16(GUEST_BASE + (poke[0] & ~1), poke[1]);
        if (i % 4 === 0) await yieldTurn();
        for (
          let answer = front.channel.receive();
          answer !== null;
          answer = front.channel.receive()
        ) {
          answer.close();
        }
      }
    } catch (error) {
      // The back end gave the front end up.
      if (!broken(error)) throw error;
    }
    await yieldTurn();
    const started = performance.now();
    await front.close();
    assert(performance.now() - started < 2000, "The session did not end");
    for (const error of front.errors) {
      assert(
        error instanceof Error && !["TypeError", "ReferenceError"].includes(error.name),
        `${error?.name}: ${error?.stack}`,
      );
    }
    descriptors.close();
    await yieldTurn();
    assertEquals(leftOver(files), [], "Descriptors were left");
  },
};

/** Which file a descriptor is of; null if it is not open. */
function inodeOf(descriptor: number | string): number | null {
  try {
    return Deno.statSync(`/proc/self/fd/${descriptor}`).ino;
  } catch {
    return null;
  }
}

/** Descriptors of these files. There may be others of whatever runs beside. */
function leftOver(files: readonly (number | null)[]): string[] {
  return [...Deno.readDirSync("/proc/self/fd")].map(({ name }) => name).filter((name) => {
    const inode = inodeOf(name);
    return inode !== null && files.includes(inode);
  });
}

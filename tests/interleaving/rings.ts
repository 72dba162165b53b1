/** A driver and a device as programs for the explorer: the project's own queues over one small memory. */
import { BufferList, PackedDriverQueue, SplitDriverQueue } from "@virtio/vring/driver";
import {
  openQueue,
  type QueueConfig,
  type QueuePosition,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";
import { resolveAreas } from "../../packages/vring/open_queue.ts";
import { type Access, type Exploration, InterleavingError, type Side } from "./explorer.ts";

/** Flag: the driver kicked. */
const KICK = 0;
/** Flag: the device interrupted. */
const INTERRUPT = 1;
const DESCRIPTORS = 0;
const DRIVER = 0x80;
const DEVICE = 0xa0;
const BUFFERS = 0xe0;
const BYTES = 0x120;

/** One case. */
export interface RingCase {
  /** Whether the rings are packed. */
  readonly packed: boolean;
  /** Entries, 4 at most (split) or 8 (packed). */
  readonly size: number;
  /** Whether EVENT_IDX is negotiated. */
  readonly eventIdx: boolean;
  /** Requests in all. */
  readonly requests: number;
  /** Requests that the driver makes available together. */
  readonly batch: number;
  /** Whether a request has a readable element beside the writable one. */
  readonly pair: boolean;
  /** Whether the driver turns interrupts off while it looks. */
  readonly quiet: boolean;
  /** Whether the device publishes each chain by itself. */
  readonly eager: boolean;
  /** Split: how far the device's indexes are ahead of the driver's, modulo 65536: puts their wrap into the run. */
  readonly shift?: number;
  /** Mistakes: a result that is not looked at. */
  readonly careless?: "arm" | "enableInterrupts";
  /** Mistakes in the order of accesses. */
  readonly plant?: Exploration["plant"];
}

function configOf(size: number): QueueConfig {
  return { size, descriptorArea: DESCRIPTORS, driverArea: DRIVER, deviceArea: DEVICE };
}

function featuresOf(test: RingCase): bigint {
  return (test.packed ? VIRTIO_F_RING_PACKED : 0n) | (test.eventIdx ? VIRTIO_F_EVENT_IDX : 0n);
}

/** What a request says and what the answer to it says. */
const requestOf = (token: number): number => 0x40 + token;
const answerOf = (token: number): number => 0x80 + token;

/** One driver run: its queue, and what it remembers beside. */
function drive(test: RingCase, side: Side, note: string | null): void {
  const { memory } = side;
  const config = configOf(test.size);
  const features = featuresOf(test);
  const areas = resolveAreas(memory, config, test.packed ? "packed" : "split");
  const queue = test.packed
    ? new PackedDriverQueue(memory, config, areas, features)
    : new SplitDriverQueue(memory, config, areas, features);
  const view = memory.regions[0]!.view;
  const list = new BufferList();
  const places = test.pair ? Math.floor(test.size / 2) : test.size;
  const placeOf: number[] = [];
  const freePlaces = Array.from({ length: places }, (_, i) => i);
  let sent = 0;
  let got = 0;
  /** What was added (a), published (p) and taken (t): all that the private state depends on. */
  let history = "";
  const add = (): void => {
    const place = freePlaces.shift()!;
    const at = BUFFERS + 8 * place;
    list.clear();
    if (test.pair) {
      view.setUint8(at, requestOf(sent));
      list.readable(at, 1);
    }
    list.writable(at + 4, 1);
    if (!queue.add(list, sent)) throw new InterleavingError("the ring is full too early");
    placeOf[sent++] = place;
    history += "a";
  };
  const took = (token: number): void => {
    freePlaces.push(placeOf[token]!);
    got++;
    history += "t";
  };
  if (note !== null) {
    side.offline((own) => {
      const peer = openQueue(own, config, features);
      for (const step of note) {
        if (step === "a") add();
        else if (step === "p") queue.publish();
        else {
          const chain = peer.pop()!;
          chain.writer.u8(0);
          peer.push(chain);
          peer.flush();
          took(queue.take());
        }
      }
      if (queue.take() !== -1) {
        throw new Error("the driver's state cannot be told from its history");
      }
    });
    history = note;
    side.wait(INTERRUPT);
    if (test.quiet) queue.disableInterrupts();
  }
  for (;;) {
    for (;;) {
      for (let token = queue.take(); token >= 0; token = queue.take()) {
        if (queue.usedLength !== 1) throw new InterleavingError("a wrong used length");
        if (view.getUint8(BUFFERS + 8 * placeOf[token]! + 4) !== answerOf(token)) {
          throw new InterleavingError("a used buffer is seen before it is written");
        }
        took(token);
      }
      if (got === test.requests) return;
      if (sent < test.requests && freePlaces.length > 0) break;
      if (queue.enableInterrupts() && test.careless !== "enableInterrupts") continue;
      side.checkpoint(history);
      side.wait(INTERRUPT);
      if (test.quiet) queue.disableInterrupts();
    }
    for (let i = 0; i < test.batch && sent < test.requests && freePlaces.length > 0; i++) add();
    const kick = queue.publish();
    history += "p";
    if (kick) side.signal(KICK);
  }
}

function serve(test: RingCase, side: Side, note: string | null): void {
  const config = configOf(test.size);
  const features = featuresOf(test);
  const start = test.shift ?? 0;
  const saved = note === null
    ? null
    : JSON.parse(note) as { position: QueuePosition; count: number };
  let count = saved?.count ?? 0;
  const position: QueuePosition = saved !== null
    ? saved.position
    : test.packed
    ? { nextAvail: 0, nextUsed: 0, availWrap: 1, usedWrap: 1 }
    : { nextAvail: start, nextUsed: start, availWrap: 0, usedWrap: 0 };
  const queue = openQueue(side.memory, { ...config, position }, features);
  for (;;) {
    // A queue that has armed is what it is when it is opened at that place.
    const { position } = queue.snapshot();
    if (note === null) side.checkpoint(JSON.stringify({ position, count }));
    note = null;
    side.wait(KICK);
    do {
      queue.suspend();
      for (let chain = queue.pop(); chain !== null; chain = queue.pop()) {
        // Requests come in the order in which they were made available.
        const token = count++;
        if (test.pair && chain.reader.u8() !== requestOf(token)) {
          throw new InterleavingError("an available buffer is seen before it is written");
        }
        chain.writer.u8(answerOf(token));
        queue.push(chain);
        if (test.eager && queue.flush()) side.signal(INTERRUPT);
      }
      if (queue.flush()) side.signal(INTERRUPT);
    } while (queue.arm() && test.careless !== "arm");
  }
}

/** What plain accesses are meant to race with: advice, and flags that are looked at again atomically. */
function racy(
  test: RingCase,
  { kind, at, size }: Access,
  side: number,
): readonly [number, number] | null {
  const end = at + size;
  if (!test.packed) return at === DEVICE && size === 2 && kind === "store" ? [at, end] : null;
  if (at === DEVICE && kind === "store") return [at, end];
  // The driver's flags, which the device scans.
  const flags = at - at % 16 + 14;
  if (at >= DRIVER || end <= flags) return null;
  const scan = kind === "load" && side === 1 && size === 2;
  return scan || (kind === "store" && side === 0) ? [flags, flags + 2] : null;
}

/** Lets the device of a split queue count from `shift` on, while the driver counts from 0. */
function shiftOf(test: RingCase, shift: number): NonNullable<Exploration["translate"]> {
  const seen: number[] = [SplitField.availIdx, SplitField.usedEvent(test.size)];
  const told: number[] = [SplitField.usedIdx, SplitField.availEvent(test.size)];
  return ({ kind, at }, side, value) => {
    if (side === 0) return value;
    if (kind === "load" && seen.includes(at)) return (value + shift) & 0xffff;
    return kind === "store" && told.includes(at) ? (value - shift) & 0xffff : value;
  };
}

/** The exploration of a case. */
export function ringExploration(test: RingCase): Exploration {
  return {
    bytes: BYTES,
    programs: [(side, note) => drive(test, side, note), (side, note) => serve(test, side, note)],
    racy: (access, side) => racy(test, access, side),
    publishes: ({ at }) => test.packed ? at < DRIVER : at === DRIVER + 2 || at === DEVICE + 2,
    ...(test.shift === undefined ? {} : { translate: shiftOf(test, test.shift) }),
    ...(test.plant === undefined ? {} : { plant: test.plant }),
  };
}

/** Where the fields that carry indexes are in the split format: what `plant` and `shift` need to know. */
export const SplitField = {
  availIdx: DRIVER + 2,
  usedEvent: (size: number): number => DRIVER + 4 + 2 * size,
  usedFlags: DEVICE,
  usedIdx: DEVICE + 2,
  usedRing: DEVICE + 4,
  availEvent: (size: number): number => DEVICE + 4 + 8 * size,
} as const;

/** Where fields are in the packed format. */
export const PackedField = { driverEvent: DRIVER, deviceEvent: DEVICE } as const;

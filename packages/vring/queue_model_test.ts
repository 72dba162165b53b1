/** Driver and device against a simple model of a queue: both formats, every combination of ring features. */
import { assertEquals } from "@std/assert";
import fc from "fast-check";
import { GuestMemory } from "@virtio/memory";
import {
  type Chain,
  openQueue,
  type Queue,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "./mod.ts";
import { BufferList, type DriverQueue, openDriverQueue } from "./driver.ts";

const SLOT = 0x100;

type Step =
  | { kind: "add"; readable: number[]; writable: number[]; table: boolean }
  | { kind: "publish" | "pop" | "undo" | "flush" | "take" | "restore" }
  | { kind: "push"; which: number; part: number }
  | { kind: "interrupts"; on: boolean }
  | { kind: "kicks"; on: boolean };

const lengths = fc.array(fc.integer({ min: 0, max: 40 }), { maxLength: 3 });
const step: fc.Arbitrary<Step> = fc.oneof(
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("add" as const),
      readable: lengths,
      writable: lengths,
      table: fc.boolean(),
    }),
  },
  {
    weight: 6,
    arbitrary: fc.record({
      kind: fc.constantFrom("publish", "pop", "pop", "flush", "take", "take") as fc.Arbitrary<
        "publish" | "pop" | "flush" | "take"
      >,
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({
      kind: fc.constantFrom("undo", "restore") as fc.Arbitrary<"undo" | "restore">,
    }),
  },
  {
    weight: 4,
    arbitrary: fc.record({
      kind: fc.constant("push" as const),
      which: fc.nat(7),
      part: fc.double({ min: 0, max: 1, noNaN: true }),
    }),
  },
  {
    weight: 1,
    arbitrary: fc.record({ kind: fc.constant("interrupts" as const), on: fc.boolean() }),
  },
  { weight: 1, arbitrary: fc.record({ kind: fc.constant("kicks" as const), on: fc.boolean() }) },
);

/** A run of both sides over one memory, with a model in plain arrays beside it. */
class Run {
  readonly memory = GuestMemory.allocate(0x80000);
  readonly driver: DriverQueue;
  device: Queue;
  readonly features: bigint;
  readonly config;
  readonly list = new BufferList();
  /** Token to what was sent and expected. */
  readonly sent: Map<number, { out: Uint8Array; inAddresses: number[]; inLengths: number[] }> =
    new Map();
  added: number[] = [];
  available: number[] = [];
  popped: { token: number; chain: Chain }[] = [];
  pushed: { token: number; data: Uint8Array }[] = [];
  waiting: { token: number; data: Uint8Array }[] = [];
  order: number[] = [];
  /** Every pop that was not put back, whether its chain is used by now or not. */
  history: number[] = [];
  used: { token: number; data: Uint8Array }[] = [];
  nextToken = 0;
  readonly freeSlots: number[] = [];
  readonly slotOf: Map<number, number> = new Map();
  suppressed = false;

  constructor(size: number, features: bigint) {
    this.features = features;
    this.config = { size, descriptorArea: 0x1000, driverArea: 0x8000, deviceArea: 0xc000 };
    this.driver = openDriverQueue(this.memory, this.config, features);
    this.device = openQueue(this.memory, this.config, features);
    for (let i = 0; i < 256; i++) this.freeSlots.push(0x10000 + i * SLOT * 2);
  }

  step(step: Step): void {
    switch (step.kind) {
      case "add":
        return this.add(step.readable, step.writable, step.table);
      case "publish":
        this.driver.publish();
        this.available.push(...this.added);
        this.added = [];
        return;
      case "pop":
        return this.pop();
      case "undo": {
        const at = this.popped.findIndex(({ token }) => token === this.history.at(-1));
        if (at === -1) return;
        const [{ token, chain }] = this.popped.splice(at, 1) as [{ token: number; chain: Chain }];
        this.device.undo(chain);
        this.history.pop();
        this.order.pop();
        this.available.unshift(token);
        return;
      }
      case "push":
        return this.push(step.which, step.part);
      case "flush":
        this.device.flush();
        this.used.push(...this.pushed);
        this.pushed = [];
        return;
      case "take":
        return this.take();
      case "restore": {
        if (this.popped.length + this.waiting.length + this.pushed.length > 0) return;
        this.history = [];
        this.device = openQueue(
          this.memory,
          structuredClone(this.device.snapshot()),
          this.features,
        );
        return;
      }
      case "interrupts":
        if (step.on) assertEquals(this.driver.enableInterrupts(), this.used.length > 0);
        else this.driver.disableInterrupts();
        return;
      case "kicks":
        if (step.on) assertEquals(this.device.arm(), this.available.length > 0);
        else this.device.suspend();
        return;
    }
  }

  add(readable: number[], writable: number[], table: boolean): void {
    if (readable.length + writable.length === 0) writable = [1];
    if (readable.length + writable.length > this.driver.size) return;
    const base = this.freeSlots.pop();
    if (base === undefined) return;
    const token = this.nextToken++;
    const out = new Uint8Array(readable.reduce((a, b) => a + b, 0)).map((_, i) => token * 7 + i);
    let at = base;
    let done = 0;
    this.list.clear();
    for (const length of readable) {
      this.memory.write(at, out.subarray(done, done + length));
      this.list.readable(at, length);
      done += length;
      at += length;
    }
    const inAddresses: number[] = [];
    for (const length of writable) {
      this.list.writable(at, length);
      inAddresses.push(at);
      at += length;
    }
    const indirect = table && (this.features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    const units = indirect ? 1 : this.list.count;
    const room = units <= this.driver.free;
    assertEquals(this.driver.add(this.list, token, indirect ? base + SLOT : undefined), room);
    if (!room) {
      this.freeSlots.push(base);
      return;
    }
    this.sent.set(token, { out, inAddresses, inLengths: writable });
    this.slotOf.set(token, base);
    this.added.push(token);
  }

  pop(): void {
    const chain = this.device.pop();
    const token = this.available.shift();
    assertEquals(chain === null, token === undefined);
    if (chain === null || token === undefined) return;
    const { out, inLengths } = this.sent.get(token)!;
    assertEquals(chain.readable, out.length);
    assertEquals(chain.writable, inLengths.reduce((a, b) => a + b, 0));
    const got = new Uint8Array(out.length);
    assertEquals(chain.reader.read(got), out.length);
    assertEquals(got, out);
    this.popped.push({ token, chain });
    this.order.push(token);
    this.history.push(token);
  }

  push(which: number, part: number): void {
    if (this.popped.length === 0) return;
    const [{ token, chain }] = this.popped.splice(which % this.popped.length, 1) as [
      { token: number; chain: Chain },
    ];
    const data = new Uint8Array(Math.floor(chain.writable * part)).map((_, i) => token * 3 + i);
    assertEquals(chain.writer.write(data), data.length);
    assertEquals(chain.written, data.length);
    this.device.push(chain);
    if ((this.features & VIRTIO_F_IN_ORDER) === 0n) {
      this.order.splice(this.order.indexOf(token), 1);
      this.pushed.push({ token, data });
      return;
    }
    this.waiting.push({ token, data });
    for (;;) {
      const turn = this.waiting.findIndex((w) => w.token === this.order[0]);
      if (turn === -1) break;
      this.order.shift();
      this.pushed.push(...this.waiting.splice(turn, 1));
    }
  }

  take(): void {
    const token = this.driver.take();
    const expected = this.used.shift();
    assertEquals(token, expected === undefined ? -1 : expected.token);
    if (expected === undefined) return;
    assertEquals(this.driver.usedLength, expected.data.length);
    const { inAddresses, inLengths } = this.sent.get(token)!;
    const got: number[] = [];
    inAddresses.forEach((address, i) => {
      for (let k = 0; k < inLengths[i]!; k++) got.push(this.memory.readU8(address + k));
    });
    assertEquals(got.slice(0, expected.data.length), [...expected.data]);
    this.freeSlots.push(this.slotOf.get(token)!);
  }

  /** Everything that was added comes back. */
  finish(): void {
    this.step({ kind: "publish" });
    for (let guard = 0; guard < 1000; guard++) {
      if (this.available.length > 0) this.pop();
      else if (this.popped.length > 0) this.push(0, 1);
      else break;
    }
    this.step({ kind: "flush" });
    while (this.used.length > 0) this.take();
    assertEquals(this.driver.take(), -1);
    assertEquals(this.device.pop(), null);
    assertEquals(this.driver.inFlight, 0);
    assertEquals(this.driver.free, this.driver.size);
    assertEquals(this.device.inFlight, 0);
  }
}

const bits: [string, bigint][] = [
  ["INDIRECT_DESC", VIRTIO_F_INDIRECT_DESC],
  ["EVENT_IDX", VIRTIO_F_EVENT_IDX],
  ["IN_ORDER", VIRTIO_F_IN_ORDER],
];

for (const [format, ring] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (let set = 0; set < 8; set++) {
    const chosen = bits.filter((_, i) => (set >> i) & 1);
    const features = chosen.reduce((all, [, bit]) => all | bit, ring);
    const names = chosen.map(([name]) => name).join(" ") || "no ring feature";
    Deno.test(`driver and device agree with a model of a queue: ${format}, ${names}`, () => {
      const sizes = format === "split" ? [1, 2, 4, 8, 16] : [1, 2, 3, 5, 8, 13, 16];
      fc.assert(
        fc.property(
          fc.constantFrom(...sizes),
          fc.array(step, { minLength: 20, maxLength: 200, size: "max" }),
          (size, steps) => {
            const run = new Run(size, features);
            for (const s of steps) run.step(s);
            run.finish();
          },
        ),
        { numRuns: 400 },
      );
    });
  }
}

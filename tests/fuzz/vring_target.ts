/** Fuzzes the device side of a queue against a driver that mostly keeps the rules, and the driver side against such a device. */
import { assert, assertEquals, assertThrows } from "@std/assert";
import {
  type Chain,
  openQueue,
  type Queue,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
  VirtqueueError,
} from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { placeQueue, rawDriver } from "../../packages/vring/testing/raw_driver.ts";
import {
  BUFFERS,
  type ChainCase,
  END,
  Flights,
  PLACES,
  REGIONS,
  sendChain,
  type SentChain,
} from "./chains.ts";
import { GuardedMemory, type Target } from "./harness.ts";
import { type Step, type VringCase, vringCases } from "./vring_cases.ts";

function featuresOf(test: VringCase): bigint {
  return (test.packed ? VIRTIO_F_RING_PACKED : 0n) |
    (test.indirect ? VIRTIO_F_INDIRECT_DESC : 0n) |
    (test.eventIdx ? VIRTIO_F_EVENT_IDX : 0n) | (test.inOrder ? VIRTIO_F_IN_ORDER : 0n);
}

/** The device side, against a driver by hand. */
class DeviceRun {
  readonly #test: VringCase;
  readonly #guard = new GuardedMemory(REGIONS);
  readonly #features: bigint;
  readonly #config;
  readonly #driver;
  #queue: Queue;
  /** Until the driver breaks a rule everything must be as a plain model says. */
  #valid = true;
  #error: VirtqueueError | null = null;
  #available: SentChain[] = [];
  #popped: { sent: SentChain | null; chain: Chain; out: Uint8Array }[] = [];
  /** What the device wrote into each chain. */
  readonly #written = new Map<SentChain, number>();
  /** Pops that were not put back, since the last one that cannot be put back. */
  #history: Chain[] = [];
  #sent = 0;
  readonly #flights: Flights<SentChain>;
  readonly #writable: (readonly [number, number])[] = [];

  constructor(test: VringCase) {
    this.#test = test;
    this.#flights = new Flights<SentChain>(test.packed);
    this.#features = featuresOf(test);
    this.#config = placeQueue(test.size, 0x100, test.packed ? "packed" : "split");
    this.#driver = rawDriver(this.#guard.memory, this.#config, this.#features);
    this.#queue = openQueue(this.#guard.memory, this.#config, this.#features);
  }

  run(): void {
    for (const step of this.#test.steps) {
      this.#guard.remember();
      this.#step(step);
      assert(
        this.#queue.inFlight <= this.#test.size,
        "no more in flight than the queue has entries",
      );
      if (step.do !== "send" && step.do !== "forge") {
        this.#guard.checkUnchanged([...this.#writable, ...this.#deviceRanges()]);
      }
    }
    if (this.#valid) this.#finish();
    this.#guard.checkGuards();
  }

  /** A driver that broke no rule gets everything back. */
  #finish(): void {
    do {
      this.#step({ do: "pop" });
    } while (this.#available.length > 0);
    while (this.#popped.length > 0) this.#push(0, 50);
    this.#queue.flush();
    this.#step({ do: "reap" });
    assertEquals(this.#flights.all, [], "everything is used, and seen to be");
    assertEquals(this.#queue.inFlight, 0);
  }

  #deviceRanges(): [number, number][] {
    const { deviceArea, descriptorArea, size } = this.#config;
    return this.#test.packed
      ? [[deviceArea, 4], [descriptorArea, 16 * size]]
      : [[deviceArea, 6 + 8 * size]];
  }

  #step(step: Step): void {
    switch (step.do) {
      case "send":
        return this.#send(step.chain);
      case "pop":
        return this.#pop();
      case "push":
        return this.#push(step.which, step.part);
      case "flush": {
        this.#queue.flush();
        return;
      }
      case "arm": {
        const more = this.#queue.arm();
        if (this.#valid) assertEquals(more, this.#available.length > 0);
        return;
      }
      case "suspend":
        return this.#queue.suspend();
      case "reap": {
        for (const { id, length } of this.#driver.takeUsed()) {
          const sent = this.#flights.end(id);
          if (!this.#valid) continue;
          assert(sent !== null, `buffer ${id} was used, which is not in flight`);
          assertEquals(length, this.#written.get(sent!), "the used length");
        }
        return;
      }
      case "undo": {
        if (this.#error !== null) return;
        const last = this.#history.pop();
        const at = this.#popped.findIndex(({ chain }) => chain === last);
        if (last === undefined || at === -1) {
          this.#history = [];
          return;
        }
        const [undone] = this.#popped.splice(at, 1);
        this.#queue.undo(last);
        if (undone!.sent !== null) this.#available.unshift(undone!.sent);
        return;
      }
      case "restore": {
        if (this.#queue.inFlight > 0 || this.#popped.length > 0) return;
        this.#queue.flush();
        this.#history = [];
        const state = structuredClone(this.#queue.snapshot());
        this.#queue = openQueue(this.#guard.memory, state, this.#features);
        // What broke the old one is met again.
        this.#error = null;
        return;
      }
      case "abandon": {
        this.#queue.abandon();
        assertEquals(this.#queue.inFlight, 0);
        for (const { chain } of this.#popped) {
          assertThrows(() => this.#queue.push(chain), TypeError);
          assertEquals(chain.writer.write(new Uint8Array(1)), 0);
        }
        this.#popped = [];
        this.#history = [];
        // The driver is not told: whatever comes next is not what it expects.
        this.#valid = false;
        return;
      }
      case "forge": {
        this.#guard.memory.writeU16(step.at % BUFFERS & ~1, step.value);
        this.#valid = false;
      }
    }
  }

  #send(test: ChainCase): void {
    // A driver that keeps the rules takes no more than is free.
    const units = test.indirect && this.#test.indirect
      ? 1
      : Math.max(1, test.readable.length + test.writable.length);
    const room = this.#valid ? this.#test.size - this.#flights.slots : this.#test.size;
    if (units > room && test.wrong === null) return;
    // Nor does it write where another buffer still is.
    if (this.#flights.all.some(({ place }) => place === this.#sent % PLACES)) {
      this.#sent++;
      return;
    }
    const sent = sendChain(this.#driver, test, this.#sent++, this.#test.indirect);
    this.#writable.push(...sent.ranges);
    if (!sent.valid) this.#valid = false;
    this.#available.push(sent);
    this.#flights.start(sent.id, sent.slots, sent);
  }

  #pop(): void {
    let chain: Chain | null;
    try {
      chain = this.#queue.pop();
    } catch (error) {
      if (!(error instanceof VirtqueueError)) throw error;
      assert(!this.#valid, `a driver that broke no rule is accused: ${error.message}`);
      if (this.#error !== null) assertEquals(error, this.#error, "a broken queue stays broken");
      this.#error = error;
      return;
    }
    assertEquals(this.#error, null, "a broken queue gives nothing");
    const sent = this.#available.shift() ?? null;
    if (this.#valid) assertEquals(chain === null, sent === null);
    if (chain === null) return;
    const out = new Uint8Array(Math.min(chain.readable, 0x4000));
    chain.reader.read(out);
    if (this.#valid) {
      assertEquals(out, sent!.out);
      assertEquals(chain.writable, sent!.ranges.reduce((sum, [, length]) => sum + length, 0));
    } else {
      // What is writable is so because some descriptor says so: nothing else is written.
      for (let i = chain.readableCount; i < chain.count; i++) {
        this.#writable.push([chain.regions[i]!.base + chain.offsets[i]!, chain.lengths[i]!]);
      }
    }
    this.#popped.push({ sent, chain, out });
    this.#history.push(chain);
  }

  #push(which: number, part: number): void {
    if (this.#popped.length === 0) return;
    const { sent, chain, out } = this.#popped.splice(which % this.#popped.length, 1)[0]!;
    const bytes = Math.floor(Math.min(chain.writable, 0x1000) * part / 100);
    chain.writer.fill(out[0] ?? 7, bytes);
    assertEquals(chain.written, bytes);
    if (sent !== null) this.#written.set(sent, bytes);
    this.#queue.push(chain);
  }
}

/** The driver side, against a device that uses what it likes. */
function runDriver(test: VringCase): void {
  const guard = new GuardedMemory(REGIONS);
  const { memory } = guard;
  const features = featuresOf(test);
  const config = placeQueue(test.size, 0x100, test.packed ? "packed" : "split");
  const driver = openDriverQueue(memory, config, features);
  let device = openQueue(memory, config, features);
  const list = new BufferList();
  let token = 0;
  let honest = true;
  let broken = false;
  const flying = new Map<number, number>();
  const popped: Chain[] = [];
  for (const step of test.steps) {
    switch (step.do) {
      case "send": {
        list.clear();
        let at = BUFFERS + (token % 16) * 0x200;
        for (const length of step.chain.readable) {
          list.readable(at, length);
          at += length;
        }
        for (const length of step.chain.writable) {
          list.writable(at, length);
          at += length;
        }
        if (list.count === 0 || list.count > test.size) break;
        const table = step.chain.indirect && test.indirect
          ? END - 0x800 + (token % 16) * 0x80
          : undefined;
        if (driver.add(list, token, table)) flying.set(token++, list.writableBytes);
        driver.publish();
        break;
      }
      case "pop": {
        try {
          const chain = device.pop();
          if (chain !== null) popped.push(chain);
        } catch (error) {
          assert(error instanceof VirtqueueError && !honest, `${error}`);
        }
        break;
      }
      case "push": {
        const [chain] = popped.splice(step.which % (popped.length || 1), 1);
        if (chain !== undefined) device.push(chain, Math.floor(chain.writable * step.part / 100));
        break;
      }
      case "flush":
        device.flush();
        break;
      case "arm":
        driver.enableInterrupts();
        break;
      case "suspend":
        driver.disableInterrupts();
        break;
      case "reap": {
        for (let guard = 0;; guard++) {
          assert(guard <= test.size, "no more is used than was given");
          let got: number;
          try {
            got = driver.take();
          } catch (error) {
            if (!(error instanceof VirtqueueError)) throw error;
            assert(!honest, `an honest device is accused: ${error.message}`);
            broken = true;
            break;
          }
          if (got < 0) break;
          assert(!broken, "a broken queue gives nothing");
          assert(flying.has(got), `token ${got} is not in flight`);
          assert(
            driver.usedLength <= flying.get(got)!,
            "no more was written than there is room for",
          );
          flying.delete(got);
        }
        break;
      }
      case "abandon": {
        device.abandon();
        popped.length = 0;
        device = openQueue(memory, config, features);
        honest = false;
        break;
      }
      case "forge": {
        memory.writeU16((config.descriptorArea + step.at % 0x180) & ~1, step.value);
        honest = false;
        break;
      }
    }
    assertEquals(driver.inFlight, flying.size, "the driver's record is right");
    assert(driver.free >= 0 && driver.free <= test.size);
  }
  assertEquals(driver.drain().sort(), [...flying.keys()].sort());
  guard.checkGuards();
}

/** The target. */
export const vringTarget: Target<VringCase> = {
  name: "vring",
  cases: vringCases,
  run: (test) => test.driver ? runDriver(test) : new DeviceRun(test).run(),
};

/** Fuzzes a block device, from its status register to its disk, against a driver that mostly keeps the rules. */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { type DeviceState, VIRTIO_F_VERSION_1 } from "@virtio/device";
import {
  placeQueue,
  type RawDescriptor,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { type BlkCase, blkCases, type BlkStep, type RequestCase, SECTORS } from "./blk_cases.ts";
import { Flights, HIGH, sendDescriptors } from "./chains.ts";
import {
  checkHealth,
  checkMemory,
  enableQueue,
  negotiate,
  quietState,
  resetDevice,
  ringFeatures,
} from "./device_drive.ts";
import { GuardedMemory, type Target, turns } from "./harness.ts";

const QUEUES = 2;
const SIZE = 16;
const BUFFERS = 0x2000;
/** Each request has a place of its own: header, data, status, table. */
const PLACE = 0x1000;
const PLACES = 2 * SIZE;
const END = BUFFERS + PLACES * PLACE;

/** A request that the driver waits for. */
interface Waiting {
  readonly status: number;
  readonly test: RequestCase;
  readonly room: number;
  readonly data: number;
  readonly length: number;
  readonly ranges: readonly (readonly [number, number])[];
}

class BlkRun {
  readonly #test: BlkCase;
  readonly #guard = new GuardedMemory([[0, 0x7800], [0x7800, END - 0x7800], [HIGH, 0x400]]);
  readonly #memory = this.#guard.memory;
  readonly #disk = new Uint8Array(SECTORS * 512);
  readonly #features: bigint;
  #device!: BlkDevice;
  #later: LaterBackend | null = null;
  #state!: DeviceState;
  #rings: (RawSplitDriver | RawPackedDriver)[] = [];
  readonly #flights: readonly Flights<Waiting>[];
  /** Whether the driver has kept every rule since the last reset. */
  #valid = true;
  /** Whether the device ought to run. */
  #live = false;
  #sent = 0;
  readonly #errors: Error[] = [];
  /** What the device may write, of everything made available since the last reset. */
  #ranges: (readonly [number, number])[] = [];

  constructor(test: BlkCase) {
    this.#test = test;
    this.#flights = [0, 1].map(() => new Flights<Waiting>(test.packed));
    this.#features = BigInt(test.features & 0xff_ffff) | ringFeatures(test);
    for (let i = 0; i < this.#disk.length; i++) this.#disk[i] = (i >> 9) + 1;
    this.#make();
  }

  #make(): void {
    const memoryBackend = new MemoryBackend(SECTORS * 512);
    memoryBackend.write(0, this.#disk, 0, this.#disk.length);
    this.#later = this.#test.later ? new LaterBackend(memoryBackend) : null;
    this.#device = new BlkDevice({
      backend: this.#later ?? memoryBackend,
      queues: QUEUES,
      queueSize: SIZE,
      id: "fuzz",
    });
    this.#state = quietState(this.#device, this.#memory, this.#errors);
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#guard.remember();
      await this.#step(step);
      // In the order in which a device that resumes looks at them.
      if (!this.#test.later) { for (const queue of [0, 1]) this.#reap(queue); }
      if (step.do !== "request" && step.do !== "start") this.#checkMemory();
      this.#checkHealth();
    }
    await this.#finish();
  }

  #checkMemory(): void {
    checkMemory(this.#guard, this.#ranges, this.#rings, this.#test.packed);
  }

  #checkHealth(): void {
    checkHealth(this.#state, this.#valid, this.#errors);
  }

  /** Initialises the device with fresh rings. */
  async #start(): Promise<void> {
    await this.#reset();
    const state = this.#state;
    const offered = state.offered;
    let accepted = (this.#features & offered) | VIRTIO_F_VERSION_1;
    // Not accepted without what they need (5.2.3.1, 2.2.1).
    if ((accepted & (1n << 9n)) === 0n) accepted &= ~(1n << 11n);
    negotiate(state, accepted);
    const format = this.#test.packed ? "packed" : "split";
    this.#rings = [];
    for (let queue = 0; queue < QUEUES; queue++) {
      const config = placeQueue(SIZE, 0x100 + 0x800 * queue, format);
      this.#rings.push(rawDriver(this.#memory, config, this.#features));
      this.#enable(queue);
    }
    state.writeStatus(15);
    this.#live = true;
    this.#mq = (accepted & (1n << 12n)) !== 0n;
  }

  #mq = false;
  /** Whether the disk holds what `#disk` says. */
  #modelled = true;

  #enable(queue: number): void {
    enableQueue(this.#state, queue, this.#rings[queue]!.config);
  }

  async #reset(): Promise<void> {
    await resetDevice(this.#state, 60, (turn) => {
      if (turn === 5) this.#later?.release();
    });
    for (const flights of this.#flights) flights.clear();
    this.#rings = [];
    this.#ranges = [];
    this.#valid = true;
    this.#live = false;
    this.#errors.length = 0;
    // What broken requests did to the disk is taken for granted.
    const { backend } = this.#device;
    this.#modelled = this.#later === null && backend.capacity === this.#disk.length;
    if (this.#modelled) void backend.read(0, this.#disk, 0, this.#disk.length);
  }

  /** A rule is broken. */
  #break(): void {
    this.#valid = false;
    this.#modelled = false;
  }

  async #step(step: BlkStep): Promise<void> {
    switch (step.do) {
      case "request":
        return this.#request(step);
      case "kick":
        this.#state.notify(step.queue);
        return;
      case "reap":
        return this.#reap(step.queue);
      case "wait":
        await turns(2);
        return;
      case "start":
        return await this.#start();
      case "reset":
        return await this.#reset();
      case "suspend":
        this.#state.writeStatus(this.#state.status | 16);
        return;
      case "resume":
        this.#state.writeStatus(this.#state.status | 4);
        return;
      case "move":
        return await this.#move();
      case "hold":
        this.#later?.hold();
        return;
      case "release":
        this.#later?.release();
        return;
      case "resetQueue":
        this.#break();
        this.#state.resetQueue(step.queue);
        return;
      case "disable":
        this.#break();
        this.#state.disableQueue(step.queue);
        return;
      case "enable":
        this.#break();
        if (step.queue < this.#rings.length) this.#enable(step.queue);
        else this.#state.enableQueue(step.queue);
        return;
      case "status":
        this.#break();
        this.#state.writeStatus(step.value);
        // What a reset in passing drops is not waited for any more.
        if ((step.value & 0xff) === 0) this.#live = false;
        return;
      case "config":
        this.#state.writeConfig(step.at, (1 << (step.value % 3)) as 1 | 2 | 4, step.value);
        assert(this.#state.readConfig(step.at, 4) <= 0xffff_ffff);
        return;
      case "features":
        this.#break();
        this.#state.writeDriverFeatures(step.value % 5, step.value);
        return;
      case "resize":
        // From here on the disk's model does not hold.
        this.#modelled = false;
        void this.#device.resize(step.sectors * 512);
        return;
    }
  }

  /** State and disk move to another device. */
  async #move(): Promise<void> {
    this.#later?.release();
    await this.#state.pause();
    const saved = structuredClone(this.#state.save());
    const bytes = new Uint8Array(this.#disk.length);
    const capacity = Math.min(this.#device.backend.capacity, bytes.length);
    await this.#device.backend.read(0, bytes, 0, capacity);
    const before = this.#state;
    const moved = this.#device.backend.capacity === this.#disk.length;
    const model = this.#disk.slice();
    this.#disk.set(bytes);
    if (moved) this.#make();
    this.#disk.set(model);
    if (!moved) {
      before.unpause();
      return;
    }
    this.#state.restore(saved);
    this.#state.unpause();
    before.writeStatus(0);
  }

  #request(test: RequestCase): void {
    const ring = this.#rings[test.queue];
    const flights = this.#flights[test.queue]!;
    if (ring === undefined) return;
    const place = BUFFERS + (this.#sent % PLACES) * PLACE;
    const reads = test.type === 0 || test.type === 8 || test.type === 10;
    const length = test.type === 4
      ? 0
      : test.type === 8
      ? 20
      : test.type === 11 || test.type === 13 || test.type === 14
      ? 16 * test.sectors + test.odd
      : 512 * test.sectors + test.odd;
    const header = place;
    const data = place + 16;
    const status = data + length;
    const memory = this.#memory;
    const descriptors: RawDescriptor[] = [];
    const readable = 16 + (reads ? 0 : length);
    const writable = (reads ? length : 0) + 1;
    const cutUp = (from: number, total: number, write: boolean, cut: readonly number[]): void => {
      let done = 0;
      for (const part of cut) {
        const piece = Math.min(part, total - done);
        descriptors.push({ address: from + done, length: piece, write });
        done += piece;
      }
      descriptors.push({ address: from + done, length: total - done, write });
    };
    const half = test.cut.length >> 1;
    cutUp(header, readable, false, test.cut.slice(0, half));
    cutUp(reads ? data : status, writable, true, test.cut.slice(half));
    const indirect = test.indirect && this.#test.indirect;
    const room = SIZE - flights.slots;
    const tooMany = (indirect ? 1 : descriptors.length) > room;
    if (tooMany && test.wrong === null) return;
    // The place may still be somebody's.
    if ([...this.#flights].flatMap(({ all }) => all).some((other) => other.data === data)) return;
    this.#sent++;
    memory.writeU32(header, test.type);
    memory.writeU32(header + 4, 0);
    memory.writeU32(header + 8, test.sector % 2 ** 32);
    memory.writeU32(header + 12, Math.floor(test.sector / 2 ** 32));
    for (let i = 0; i < length; i++) {
      memory.writeU8(data + i, reads ? 0xee : (this.#sent + i) & 0xff);
    }
    if (test.type === 11 || test.type === 13 || test.type === 14) {
      for (let i = 0; i + 16 <= length; i += 16) {
        memory.writeU32(data + i, (test.sector + i / 16) % 2 ** 32);
        memory.writeU32(data + i + 4, Math.floor(test.sector / 2 ** 32));
        memory.writeU32(data + i + 8, 1 + (i / 16) % 3);
        memory.writeU32(data + i + 12, test.odd === 20 ? 2 : 0);
      }
    }
    memory.writeU8(status, 0xee);
    const sent = sendDescriptors(ring, descriptors, {
      indirect,
      indirectAllowed: this.#test.indirect,
      table: place + 0xc00,
      wrong: test.wrong,
    });
    if (!sent.valid) this.#break();
    // Without MQ only the first queue may be used.
    if (test.queue > 0 && !this.#mq) this.#break();
    this.#ranges.push(...sent.ranges);
    // A descriptor that was changed at random may let the device write anywhere, within guest memory. So may a table that
    // lies where an earlier one lay: what that names is named again. And where a driver writes over descriptors that it has
    // not got back, the device's own used elements become parts of what it reads.
    const kind = test.wrong?.kind;
    const anywhere = kind === "poke" || kind === "tableAddress" || tooMany;
    if (anywhere) this.#ranges.push([0, END], [HIGH, 0x400]);
    flights.start(sent.id, sent.slots, {
      status,
      test,
      room: writable,
      data,
      length,
      ranges: sent.ranges,
    });
    if (test.kick) {
      this.#state.notify(test.queue);
    }
  }

  #reap(queue: number): void {
    const ring = this.#rings[queue];
    if (ring === undefined) return;
    for (const { id, length } of ring.takeUsed()) {
      const done = this.#flights[queue]!.end(id);
      if (done === null) {
        assert(!this.#valid, `buffer ${id} was used, which is not in flight`);
        continue;
      }
      if (!this.#valid) continue;
      assert(length <= done.room, `${length} bytes of ${done.room}`);
      const status = this.#memory.readU8(done.status);
      assert(status <= 2, `the status is ${status}`);
      this.#checkAnswer(done, status, length);
    }
  }

  /** What a request of a driver that keeps the rules must have done. */
  #checkAnswer({ test, data, length, room }: Waiting, status: number, used: number): void {
    if (!this.#modelled) return;
    const { type, sector } = test;
    const inside = length % 512 === 0 && sector + length / 512 <= SECTORS;
    if (type === 0 || type === 1) {
      assertEquals(status, inside ? 0 : 1, `type ${type}, sector ${sector}, ${length} bytes`);
    }
    if (type === 8) assertEquals([status, used], [0, 21]);
    if (status === 0) assertEquals(used, room, "all that counts as written, and the status");
    // With requests of several queues at once, or later answers, their order is not known.
    if (this.#test.later || status !== 0) return;
    const at = sector * 512;
    if (type === 1) {
      for (let i = 0; i < length; i++) this.#disk[at + i] = this.#memory.readU8(data + i);
    } else if (type === 0) {
      for (let i = 0; i < length; i++) {
        assertEquals(this.#memory.readU8(data + i), this.#disk[at + i], "the disk's bytes");
      }
    } else if (type === 11 || type === 13 || type === 14) {
      // What was discarded reads as zeroes on a disk in memory; elsewhere it might not.
      for (let i = 0; i + 16 <= length; i += 16) {
        const from = this.#memory.readU32(data + i) * 512;
        this.#disk.fill(0, from, from + 512 * this.#memory.readU32(data + i + 8));
      }
    }
  }

  /** Whatever happened: a reset heals, and the device answers. */
  async #finish(): Promise<void> {
    this.#later?.release();
    await turns(3);
    this.#guard.remember();
    await this.#reset();
    await turns(2);
    this.#guard.checkUnchanged([]);
    if (this.#device.backend.capacity < 512) void this.#device.resize(SECTORS * 512);
    await this.#start();
    this.#request({
      do: "request",
      queue: 0,
      type: 8,
      sector: 0,
      sectors: 0,
      odd: 0,
      cut: [],
      indirect: false,
      kick: true,
      wrong: null,
    });
    await turns(3);
    this.#reap(0);
    assertEquals(this.#flights[0]!.all, [], "after a reset it works");
    assert(this.#live && this.#valid);
    this.#guard.checkGuards();
    this.#state.writeStatus(0);
  }
}

/** The target. */
export const blkTarget: Target<BlkCase> = {
  name: "blk",
  cases: blkCases,
  run: (test) => new BlkRun(test).run(),
};

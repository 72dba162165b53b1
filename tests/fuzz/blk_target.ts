/** Fuzzes a block device, from its status register to its disk, against a driver that mostly keeps the rules. */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_VERSION_1 } from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import type { RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import { type BlkCase, blkCases, type BlkStep, type RequestCase, SECTORS } from "./blk_cases.ts";
import { HIGH } from "./chains.ts";
import { DeviceDrive, ringFeatures } from "./device_drive.ts";
import { type Target, turns } from "./harness.ts";

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
}

class BlkRun {
  readonly #test: BlkCase;
  readonly #drive: DeviceDrive<Waiting>;
  readonly #memory: GuestMemory;
  readonly #disk = new Uint8Array(SECTORS * 512);
  readonly #features: bigint;
  #device!: BlkDevice;
  #later: LaterBackend | null = null;
  #sent = 0;
  #mq = false;
  /** Whether the disk holds what `#disk` says. */
  #modelled = true;

  constructor(test: BlkCase) {
    this.#test = test;
    this.#drive = new DeviceDrive(test, QUEUES, SIZE, [
      [0, 0x7800],
      [0x7800, END - 0x7800],
      [HIGH, 0x400],
    ]);
    this.#memory = this.#drive.guard.memory;
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
    this.#drive.attach(this.#device);
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#drive.guard.remember();
      await this.#step(step);
      // In the order in which a device that resumes looks at them.
      if (!this.#test.later) { for (const queue of [0, 1]) this.#reap(queue); }
      if (step.do !== "request" && step.do !== "start") this.#drive.checkMemory();
      this.#drive.checkHealth();
    }
    await this.#finish();
  }

  /** Initialises the device with fresh rings. */
  async #start(): Promise<void> {
    await this.#reset();
    let accepted = (this.#features & this.#drive.state.offered) | VIRTIO_F_VERSION_1;
    // Not accepted without what they need (5.2.3.1, 2.2.1).
    if ((accepted & (1n << 9n)) === 0n) accepted &= ~(1n << 11n);
    this.#drive.start(accepted);
    this.#mq = (accepted & (1n << 12n)) !== 0n;
  }

  async #reset(): Promise<void> {
    await this.#drive.reset(60, (turn) => {
      if (turn === 5) this.#later?.release();
    });
    // What broken requests did to the disk is taken for granted.
    const { backend } = this.#device;
    this.#modelled = this.#later === null && backend.capacity === this.#disk.length;
    if (this.#modelled) void backend.read(0, this.#disk, 0, this.#disk.length);
  }

  async #step(step: BlkStep): Promise<void> {
    const { state } = this.#drive;
    switch (step.do) {
      case "request":
        return this.#request(step);
      case "kick":
      case "suspend":
      case "resume":
      case "resetQueue":
      case "status":
      case "features":
        return this.#drive.step(step);
      case "reap":
        return this.#reap(step.queue);
      case "wait":
        await turns(2);
        return;
      case "start":
        return await this.#start();
      case "reset":
        return await this.#reset();
      case "move":
        return await this.#move();
      case "hold":
        this.#later?.hold();
        return;
      case "release":
        this.#later?.release();
        return;
      case "disable":
        this.#drive.valid = false;
        state.disableQueue(step.queue);
        return;
      case "enable":
        this.#drive.valid = false;
        if (step.queue < this.#drive.rings.length) this.#drive.enable(step.queue);
        else state.enableQueue(step.queue);
        return;
      case "config":
        state.writeConfig(step.at, (1 << (step.value % 3)) as 1 | 2 | 4, step.value);
        assert(state.readConfig(step.at, 4) <= 0xffff_ffff);
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
    await this.#drive.move(async () => {
      const bytes = new Uint8Array(this.#disk.length);
      const { backend } = this.#device;
      await backend.read(0, bytes, 0, Math.min(backend.capacity, bytes.length));
      if (backend.capacity !== this.#disk.length) return false;
      const model = this.#disk.slice();
      this.#disk.set(bytes);
      this.#make();
      this.#disk.set(model);
      return true;
    });
  }

  #request(test: RequestCase): void {
    const drive = this.#drive;
    const flights = drive.flights[test.queue]!;
    if (drive.rings[test.queue] === undefined) return;
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
    if (drive.flights.flatMap(({ all }) => all).some((other) => other.data === data)) return;
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
    // Without MQ only the first queue may be used.
    if (test.queue > 0 && !this.#mq) drive.valid = false;
    // A table that lies where an earlier one lay names again what that names. And where a driver writes over descriptors that it
    // has not got back, the device's own used elements become parts of what it reads.
    const anywhere = test.wrong?.kind === "tableAddress" || tooMany;
    const { kick, wrong } = test;
    const shape = { indirect, table: place + 0xc00, kick, wrong };
    drive.send(
      test.queue,
      descriptors,
      shape,
      { status, test, room: writable, data, length },
      anywhere,
    );
  }

  #reap(queue: number): void {
    for (const [done, length] of this.#drive.used(queue)) {
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
    const { guard, flights, state } = this.#drive;
    guard.remember();
    await this.#reset();
    await turns(2);
    guard.checkUnchanged([]);
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
    assertEquals(flights[0]!.all, [], "after a reset it works");
    assert(this.#drive.valid);
    guard.checkGuards();
    state.writeStatus(0);
  }
}

/** The target. */
export const blkTarget: Target<BlkCase> = {
  name: "blk",
  cases: blkCases,
  run: (test) => new BlkRun(test).run(),
};

/** Fuzzes a network device, from its status register to its cable, against a driver that mostly keeps the rules. */
import { assert, assertEquals } from "@std/assert";
import { type DeviceState, VIRTIO_F_VERSION_1 } from "@virtio/device";
import * as net from "@virtio/net";
import {
  placeQueue,
  type RawDescriptor,
  rawDriver,
  type RawPackedDriver,
  type RawSplitDriver,
} from "../../packages/vring/testing/raw_driver.ts";
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
import { KNOWN, knownFrame, Network, unknown } from "./net_network.ts";
import {
  type ControlCase,
  type GiveCase,
  type NetCase,
  netCases,
  type NetStep,
  type PostCase,
  type SendCase,
} from "./net_cases.ts";

const PAIRS = 2;
const SIZE = 16;
const RINGS = 0x800;
const BUFFERS = 0x3000;
/** Each buffer has a place of its own, and each queue as many as it can have in flight. */
const PLACE = 0x600;
const PLACES = SIZE + 1;
const QUEUES = 2 * PAIRS + 1;
const END = BUFFERS + QUEUES * PLACES * PLACE;
const MAC = [2, 0, 0, 0, 0, 1];

const OFFLOADS = net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_HOST_TSO4 | net.VIRTIO_NET_F_HOST_TSO6 |
  net.VIRTIO_NET_F_HOST_UFO | net.VIRTIO_NET_F_HOST_USO | net.VIRTIO_NET_F_GUEST_CSUM |
  net.VIRTIO_NET_F_GUEST_TSO4 | net.VIRTIO_NET_F_GUEST_TSO6 | net.VIRTIO_NET_F_GUEST_UFO |
  net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS;
const CONTROL = net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX |
  net.VIRTIO_NET_F_CTRL_RX_EXTRA | net.VIRTIO_NET_F_CTRL_VLAN | net.VIRTIO_NET_F_CTRL_MAC_ADDR |
  net.VIRTIO_NET_F_GUEST_ANNOUNCE | net.VIRTIO_NET_F_NOTF_COAL | net.VIRTIO_NET_F_VQ_NOTF_COAL |
  net.VIRTIO_NET_F_DEVICE_STATS | net.VIRTIO_NET_F_STATUS | net.VIRTIO_NET_F_MAC;

/** A buffer that the driver waits for. */
interface Waiting {
  readonly place: number;
  readonly room: number;
  readonly writable: readonly RawDescriptor[];
}

class NetRun {
  readonly #test: NetCase;
  readonly #guard = new GuardedMemory([[0, 0x5800], [0x5800, END - 0x5800], [HIGH, 0x400]]);
  readonly #memory = this.#guard.memory;
  readonly #features: bigint;
  readonly #headerSize: number;
  readonly #queues: number;
  #network = new Network();
  #device!: net.NetDevice;
  #state!: DeviceState;
  #rings: (RawSplitDriver | RawPackedDriver)[] = [];
  readonly #flights: readonly Flights<Waiting>[];
  /** Whether the driver has kept every rule since the last reset. */
  #valid = true;
  #live = false;
  readonly #errors: Error[] = [];
  #ranges: (readonly [number, number])[] = [];
  #places: number[] = [];
  /** Numbers frames in both directions. */
  #number = 1;
  /** Frames that are known, by number. */
  readonly #known: Map<number, Uint8Array> = new Map();
  /** The last number that each receive queue gave. */
  #last: number[] = [];
  #sentLast: number[] = [];
  readonly #timers: Set<() => void> = new Set();

  constructor(test: NetCase) {
    this.#test = test;
    this.#queues = test.mq ? QUEUES : 3;
    this.#headerSize = test.hashed ? 20 : 12;
    this.#flights = Array.from({ length: QUEUES }, () => new Flights<Waiting>(test.packed));
    this.#features = CONTROL | (test.mq ? net.VIRTIO_NET_F_MQ | net.VIRTIO_NET_F_RSS : 0n) |
      (test.mergeable ? net.VIRTIO_NET_F_MRG_RXBUF : 0n) |
      (test.hashed ? net.VIRTIO_NET_F_HASH_REPORT : 0n) | (test.offloads ? OFFLOADS : 0n) |
      ringFeatures(test) | VIRTIO_F_VERSION_1;
    this.#make();
  }

  #make(): void {
    this.#network.peer = null;
    const { offloads, echoes } = this.#network;
    this.#network = new Network();
    Object.assign(this.#network, { offloads, echoes });
    this.#network.onFrame = (frame) => this.#sent(frame);
    this.#device = new net.NetDevice({
      backend: this.#network,
      mac: new Uint8Array(MAC),
      queuePairs: PAIRS,
      queueSize: SIZE,
      waiting: { frames: 8, bytes: 8192 },
      clock: {
        set: (run) => {
          this.#timers.add(run);
          return run;
        },
        clear: (run) => void this.#timers.delete(run as () => void),
      },
    });
    this.#state = quietState(this.#device, this.#memory, this.#errors);
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#guard.remember();
      await this.#step(step);
      if (!["send", "post", "control", "start", "move"].includes(step.do)) this.#checkMemory();
      this.#checkHealth();
    }
    await this.#finish();
  }

  #checkMemory(): void {
    checkMemory(this.#guard, this.#ranges, this.#rings, this.#test.packed);
  }

  #checkHealth(): void {
    assert(this.#device.waiting <= PAIRS * 8);
    checkHealth(this.#state, this.#valid, this.#errors);
  }

  async #start(): Promise<void> {
    await this.#reset();
    const state = this.#state;
    negotiate(state, this.#features);
    const format = this.#test.packed ? "packed" : "split";
    for (let queue = 0; queue < this.#queues; queue++) {
      const config = placeQueue(SIZE, 0x100 + RINGS * queue, format);
      this.#rings.push(rawDriver(this.#memory, config, this.#features));
      this.#enable(queue);
    }
    state.writeStatus(15);
    this.#live = true;
  }

  #enable(queue: number): void {
    enableQueue(this.#state, queue, this.#rings[queue]!.config);
  }

  async #reset(): Promise<void> {
    await resetDevice(this.#state);
    assertEquals(this.#timers.size, 0, "no timer is left");
    for (const flights of this.#flights) flights.clear();
    this.#rings = [];
    this.#ranges = [];
    this.#places = new Array<number>(QUEUES).fill(0);
    this.#last = new Array<number>(PAIRS).fill(0);
    this.#sentLast = new Array<number>(PAIRS).fill(0);
    this.#known.clear();
    this.#valid = true;
    this.#live = false;
    this.#errors.length = 0;
  }

  #break(): void {
    this.#valid = false;
  }

  async #step(step: NetStep): Promise<void> {
    switch (step.do) {
      case "send":
        return this.#send(step);
      case "post":
        return this.#post(step);
      case "control":
        return this.#control(step);
      case "give":
        return this.#give(step);
      case "kick":
        return this.#state.notify(step.queue);
      case "reap":
        return this.#reap(step.queue);
      case "wait":
        for (const run of [...this.#timers]) {
          this.#timers.delete(run);
          run();
        }
        return await turns(2);
      case "start":
        return await this.#start();
      case "reset":
        return await this.#reset();
      case "suspend":
        return this.#state.writeStatus(this.#state.status | 16);
      case "resume":
        return this.#state.writeStatus(this.#state.status | 4);
      case "move":
        return await this.#move();
      case "announce":
        return void this.#device.announce();
      case "echo":
        this.#network.echoes = !this.#network.echoes;
        return;
      case "link":
        return this.#device.setLink(step.up);
      case "offloads":
        this.#network.offloads = step.bits;
        return;
      case "resetQueue":
        this.#break();
        return this.#state.resetQueue(step.queue);
      case "enable":
        this.#break();
        if (step.queue < this.#rings.length) {
          this.#enable(step.queue);
        } else {
          // Its areas are wherever the registers say.
          this.#ranges.push([0, END]);
          this.#state.enableQueue(step.queue);
        }
        return;
      case "status":
        this.#break();
        this.#state.writeStatus(step.value);
        return;
      case "features":
        this.#break();
        return this.#state.writeDriverFeatures(step.value % 5, step.value);
      case "config":
        this.#state.writeConfig(step.value % 40, 4, step.value);
        assert(this.#state.readConfig(step.value % 40, 4) <= 0xffff_ffff);
        return;
    }
  }

  /** State moves to another device. */
  async #move(): Promise<void> {
    const before = this.#state;
    await before.pause();
    const saved = structuredClone(before.save());
    this.#make();
    this.#state.restore(saved);
    this.#state.unpause();
    before.writeStatus(0);
    await turns(1);
  }

  /** A place in memory for a buffer of a queue; -1 if the driver has none. */
  #place(queue: number): number {
    const place = BUFFERS + (queue * PLACES + this.#places[queue]! % PLACES) * PLACE;
    if (this.#flights[queue]!.all.some((waiting) => waiting.place === place)) return -1;
    this.#places[queue]!++;
    return place;
  }

  #add(
    queue: number,
    place: number,
    descriptors: RawDescriptor[],
    options: { indirect: boolean; kick: boolean; wrong: SendCase["wrong"] },
  ): void {
    const flights = this.#flights[queue]!;
    const writable = descriptors.filter(({ write }) => write);
    const sent = sendDescriptors(this.#rings[queue]!, descriptors, {
      indirect: options.indirect && this.#test.indirect,
      indirectAllowed: this.#test.indirect,
      table: place + PLACE - 0x100,
      wrong: options.wrong,
    });
    if (!sent.valid) this.#break();
    this.#ranges.push(...sent.ranges);
    if (options.wrong?.kind === "poke") this.#ranges.push([0, END], [HIGH, 0x400]);
    if (options.wrong?.kind.startsWith("table")) this.#ranges.push([0, END], [HIGH, 0x400]);
    const room = writable.reduce((sum, { length }) => sum + length, 0);
    flights.start(sent.id, sent.slots, { place, room, writable });
    if (options.kick) this.#state.notify(queue);
  }

  /** Whether a queue has room for so many descriptors. */
  #hasRoom(queue: number, count: number, indirect: boolean): boolean {
    const slots = indirect && this.#test.indirect ? 1 : count;
    return queue < this.#rings.length && slots <= SIZE - this.#flights[queue]!.slots;
  }

  #send(test: SendCase): void {
    const pair = this.#test.mq ? test.pair : 0;
    const queue = 2 * pair + 1;
    if (!this.#hasRoom(queue, test.cut.length + 1, test.indirect) || this.#rings.length === 0) {
      return;
    }
    const place = this.#place(queue);
    if (place < 0) return;
    const number = this.#number++;
    const frame = knownFrame(number, test.length, [2, 0, 0, 0, 0, 9]);
    const all = new Uint8Array(this.#headerSize + frame.length);
    all.set(frame, this.#headerSize);
    const view = new DataView(all.buffer);
    if (test.header !== null) {
      const [flags, gsoType, gsoSize, csumStart, csumOffset] = test.header;
      unknown(all.subarray(this.#headerSize));
      view.setUint8(0, flags!);
      view.setUint8(1, gsoType!);
      view.setUint16(4, gsoSize!, true);
      view.setUint16(6, csumStart!, true);
      view.setUint16(8, csumOffset!, true);
    } else {
      this.#known.set(number, frame);
    }
    this.#memory.write(place, all);
    const descriptors: RawDescriptor[] = [];
    let done = 0;
    for (const cut of [...test.cut, all.length]) {
      const length = Math.min(cut, all.length - done);
      descriptors.push({ address: place + done, length });
      done += length;
    }
    this.#add(queue, place, descriptors, test);
  }

  #post(test: PostCase): void {
    const pair = this.#test.mq ? test.pair : 0;
    if (!this.#hasRoom(2 * pair, test.sizes.length, test.indirect)) return;
    const place = this.#place(2 * pair);
    if (place < 0) return;
    const descriptors: RawDescriptor[] = [];
    let at = place;
    for (const length of test.sizes) {
      descriptors.push({ address: at, length, write: true });
      at += length;
    }
    // Too small for a header: not allowed, though nobody notices before a frame comes.
    if (at - place < this.#headerSize) this.#break();
    this.#memory.fill(place, at - place, 0xee);
    this.#add(2 * pair, place, descriptors, test);
  }

  #control(test: ControlCase): void {
    const queue = this.#queues - 1;
    if (!this.#hasRoom(queue, 3, test.indirect)) return;
    const place = this.#place(queue);
    if (place < 0) return;
    if (test.room === 0) this.#break();
    this.#memory.write(place, new Uint8Array(test.bytes));
    const half = test.bytes.length >> 1;
    const descriptors: RawDescriptor[] = [
      { address: place, length: half },
      { address: place + half, length: test.bytes.length - half },
    ];
    if (test.room > 0) descriptors.push({ address: place + 0x100, length: test.room, write: true });
    this.#add(queue, place, descriptors, test);
  }

  #give(test: GiveCase): void {
    for (let i = 0; i < test.count; i++) {
      const number = this.#number++;
      const frame = new net.Frame(Math.max(test.length, 60));
      const bytes = knownFrame(number, test.length, MAC);
      if (test.header !== null) {
        unknown(bytes);
        frame.fromBytes(bytes);
        const [flags, gsoType, gsoSize, csumStart, csumOffset] = test.header;
        frame.flags = flags! & 3;
        frame.gsoType = gsoType!;
        frame.gsoSize = gsoSize!;
        frame.csumStart = csumStart!;
        frame.csumOffset = csumOffset!;
      } else {
        frame.fromBytes(bytes);
        this.#known.set(number, bytes);
      }
      this.#network.peer?.deliver(frame);
    }
  }

  /** A frame reached the network. */
  #sent(frame: net.Frame): void {
    if (!this.#valid) return;
    const bytes = frame.bytes;
    if (bytes.length < 18 || frame.view.getUint16(12) !== KNOWN) return;
    const number = frame.view.getUint32(14);
    assertEquals(bytes, this.#known.get(number), "a frame is sent as the driver made it");
  }

  #reap(queue: number): void {
    const ring = this.#rings[queue];
    if (ring === undefined) return;
    const used: (Waiting & { used: number })[] = [];
    for (const { id, length } of ring.takeUsed()) {
      const done = this.#flights[queue]!.end(id);
      if (done === null) {
        assert(!this.#valid, `buffer ${id} was used, which is not in flight`);
        continue;
      }
      if (!this.#valid) continue;
      assert(length <= done.room, `${length} bytes of ${done.room}`);
      used.push({ ...done, used: length });
    }
    if (!this.#valid) return;
    if (queue === this.#queues - 1) this.#checkAcks(used);
    else if ((queue & 1) === 1) assert(used.every(({ used }) => used === 0));
    else this.#checkFrames(queue >> 1, used);
  }

  #checkAcks(used: readonly (Waiting & { used: number })[]): void {
    for (const { place, used: length } of used) {
      assert(length >= 1);
      assert(this.#memory.readU8(place + 0x100) <= 1);
    }
  }

  /** What a driver finds in its receive buffers. */
  #checkFrames(pair: number, used: (Waiting & { used: number })[]): void {
    const headerSize = this.#headerSize;
    while (used.length > 0) {
      const first = used.shift()!;
      let bytes = this.#contents(first);
      assert(first.used >= headerSize, "the header is there");
      const view = new DataView(bytes.buffer);
      const [flags, gsoType, count] = [bytes[0]!, bytes[1]!, view.getUint16(10, true)];
      assert(this.#test.mergeable ? count >= 1 : count === 1, `num_buffers is ${count}`);
      if (!this.#test.offloads) assertEquals([flags, gsoType], [0, 0]);
      let full = first.used === first.room;
      for (let i = 1; i < count; i++) {
        assert(full, "all buffers but the last are full");
        const next = used.shift();
        assert(next !== undefined, "all buffers of a frame are used together");
        const more = this.#contents(next!);
        const both = new Uint8Array(bytes.length + more.length);
        both.set(bytes);
        both.set(more, bytes.length);
        bytes = both;
        full = next!.used === next!.room;
      }
      const frame = bytes.subarray(headerSize);
      assert(frame.length >= 14, "a frame has a header");
      if (frame.length < 18 || (frame[12]! << 8 | frame[13]!) !== KNOWN) continue;
      const number = new DataView(frame.buffer, frame.byteOffset).getUint32(14);
      assertEquals(frame, this.#known.get(number), "a frame arrives as it was given");
      // Echoes are numbered where they were sent.
      if (!this.#test.steps.some((step) => step.do === "echo") && !this.#test.mq) {
        assert(number > this.#last[pair]!, "frames arrive in their order");
      }
      this.#last[pair] = number;
    }
  }

  /** The bytes that the device wrote into a buffer. */
  #contents({ writable, used }: Waiting & { used: number }): Uint8Array {
    const bytes = new Uint8Array(used);
    let done = 0;
    for (const { address, length } of writable) {
      for (let i = 0; i < length && done < used; i++) {
        bytes[done++] = this.#memory.readU8(Number(address) + i);
      }
    }
    return bytes;
  }

  /** Whatever happened: a reset heals, and frames pass. */
  async #finish(): Promise<void> {
    await turns(2);
    this.#guard.remember();
    await this.#reset();
    await turns(2);
    this.#guard.checkUnchanged([]);
    this.#network.echoes = false;
    this.#network.offloads = net.Offload.all;
    this.#device.setLink(true);
    await this.#start();
    const shape = { indirect: false, kick: true, wrong: null };
    let sent = 0;
    this.#network.onFrame = () => sent++;
    this.#send({ do: "send", pair: 0, length: 100, cut: [], header: null, ...shape });
    this.#post({ do: "post", pair: 0, sizes: [300], ...shape });
    this.#give({ do: "give", count: 1, length: 200, header: null });
    await turns(2);
    this.#reap(0);
    this.#reap(1);
    assertEquals([sent, this.#last[0]], [1, this.#number - 1], "after a reset it works");
    assertEquals([this.#flights[0]!.all, this.#flights[1]!.all], [[], []]);
    assert(this.#live && this.#valid);
    this.#guard.checkGuards();
    this.#state.writeStatus(0);
  }
}

/** The target. */
export const netTarget: Target<NetCase> = {
  name: "net",
  cases: netCases,
  run: (test) => new NetRun(test).run(),
};

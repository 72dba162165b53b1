/** Fuzzes a network device, from its status register to its cable, against a driver that mostly keeps the rules. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_VERSION_1 } from "@virtio/device";
import type { GuestMemory } from "@virtio/memory";
import * as net from "@virtio/net";
import type { RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import { HIGH } from "./chains.ts";
import { DeviceDrive, ringFeatures } from "./device_drive.ts";
import { type Target, turns } from "./harness.ts";
import {
  type ControlCase,
  type GiveCase,
  type NetCase,
  netCases,
  type NetStep,
  type PostCase,
  type SendCase,
} from "./net_cases.ts";
import { KNOWN, knownFrame, Network, unknown } from "./net_network.ts";
import { headerSize, ReceivedFrames, type UsedBuffer, type Waiting } from "./net_received.ts";

const PAIRS = 2;
const SIZE = 16;
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

class NetRun {
  readonly #test: NetCase;
  readonly #drive: DeviceDrive<Waiting>;
  readonly #memory: GuestMemory;
  readonly #features: bigint;
  readonly #headerSize: number;
  readonly #queues: number;
  #network = new Network();
  #device!: net.NetDevice;
  #places: number[] = [];
  /** Numbers frames in both directions. */
  #number = 1;
  /** Frames that are known, by number. */
  readonly #known: Map<number, Uint8Array> = new Map();
  readonly #received: ReceivedFrames;
  readonly #timers: Set<() => void> = new Set();

  constructor(test: NetCase) {
    this.#test = test;
    this.#queues = test.mq ? QUEUES : 3;
    this.#headerSize = headerSize(test);
    this.#drive = new DeviceDrive(test, QUEUES, SIZE, [
      [0, 0x5800],
      [0x5800, END - 0x5800],
      [HIGH, 0x400],
    ]);
    this.#memory = this.#drive.guard.memory;
    this.#received = new ReceivedFrames(test, this.#memory, this.#known);
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
    this.#drive.attach(this.#device);
  }

  async run(): Promise<void> {
    await this.#start();
    for (const step of this.#test.steps) {
      this.#drive.guard.remember();
      await this.#step(step);
      if (!["send", "post", "control", "start", "move"].includes(step.do)) {
        this.#drive.checkMemory();
      }
      assert(this.#device.waiting <= PAIRS * 8);
      this.#drive.checkHealth();
    }
    await this.#finish();
  }

  async #start(): Promise<void> {
    await this.#reset();
    this.#drive.start(this.#features, this.#queues);
  }

  async #reset(): Promise<void> {
    await this.#drive.reset();
    assertEquals(this.#timers.size, 0, "no timer is left");
    this.#places = new Array<number>(QUEUES).fill(0);
    this.#received.reset();
    this.#known.clear();
  }

  async #step(step: NetStep): Promise<void> {
    const { state } = this.#drive;
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
      case "suspend":
      case "resume":
      case "resetQueue":
      case "status":
      case "features":
        return this.#drive.step(step);
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
      case "move":
        await this.#drive.move(() => {
          this.#make();
          return true;
        });
        return await turns(1);
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
      case "enable":
        this.#drive.valid = false;
        if (step.queue < this.#drive.rings.length) {
          this.#drive.enable(step.queue);
        } else {
          // Its areas are wherever the registers say.
          this.#drive.ranges.push([0, END]);
          state.enableQueue(step.queue);
        }
        return;
      case "config":
        state.writeConfig(step.value % 40, 4, step.value);
        assert(state.readConfig(step.value % 40, 4) <= 0xffff_ffff);
        return;
    }
  }

  /** A place in memory for a buffer of a queue; -1 if the driver has none. */
  #place(queue: number): number {
    const place = BUFFERS + (queue * PLACES + this.#places[queue]! % PLACES) * PLACE;
    if (this.#drive.flights[queue]!.all.some((waiting) => waiting.place === place)) return -1;
    this.#places[queue]!++;
    return place;
  }

  #add(
    queue: number,
    place: number,
    descriptors: RawDescriptor[],
    options: { indirect: boolean; kick: boolean; wrong: SendCase["wrong"] },
  ): void {
    const writable = descriptors.filter(({ write }) => write);
    const room = writable.reduce((sum, { length }) => sum + length, 0);
    const { indirect, kick, wrong } = options;
    const shape = { indirect, table: place + PLACE - 0x100, kick, wrong };
    const anywhere = wrong?.kind.startsWith("table") ?? false;
    this.#drive.send(queue, descriptors, shape, { place, room, writable }, anywhere);
  }

  /** Whether a queue has room for so many descriptors. */
  #hasRoom(queue: number, count: number, indirect: boolean): boolean {
    const slots = indirect && this.#test.indirect ? 1 : count;
    const { rings, flights } = this.#drive;
    return queue < rings.length && slots <= SIZE - flights[queue]!.slots;
  }

  #send(test: SendCase): void {
    const pair = this.#test.mq ? test.pair : 0;
    const queue = 2 * pair + 1;
    if (!this.#hasRoom(queue, test.cut.length + 1, test.indirect)) return;
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
    if (at - place < this.#headerSize) this.#drive.valid = false;
    this.#memory.fill(place, at - place, 0xee);
    this.#add(2 * pair, place, descriptors, test);
  }

  #control(test: ControlCase): void {
    const queue = this.#queues - 1;
    if (!this.#hasRoom(queue, 3, test.indirect)) return;
    const place = this.#place(queue);
    if (place < 0) return;
    if (test.room === 0) this.#drive.valid = false;
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
    if (!this.#drive.valid) return;
    const bytes = frame.bytes;
    if (bytes.length < 18 || frame.view.getUint16(12) !== KNOWN) return;
    const number = frame.view.getUint32(14);
    assertEquals(bytes, this.#known.get(number), "a frame is sent as the driver made it");
  }

  #reap(queue: number): void {
    const used = Array.from(
      this.#drive.used(queue),
      ([waiting, length]) => ({ ...waiting, used: length }),
    );
    if (!this.#drive.valid) return;
    if (queue === this.#queues - 1) this.#checkAcks(used);
    else if ((queue & 1) === 1) assert(used.every(({ used }) => used === 0));
    else this.#received.check(queue >> 1, used);
  }

  #checkAcks(used: readonly UsedBuffer[]): void {
    for (const { place, used: length } of used) {
      assert(length >= 1);
      assert(this.#memory.readU8(place + 0x100) <= 1);
    }
  }

  /** Whatever happened: a reset heals, and frames pass. */
  async #finish(): Promise<void> {
    await turns(2);
    const { guard, flights, state } = this.#drive;
    guard.remember();
    await this.#reset();
    await turns(2);
    guard.checkUnchanged([]);
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
    assertEquals([sent, this.#received.last(0)], [1, this.#number - 1], "after a reset it works");
    assertEquals([flights[0]!.all, flights[1]!.all], [[], []]);
    assert(this.#drive.valid);
    guard.checkGuards();
    state.writeStatus(0);
  }
}

/** The target. */
export const netTarget: Target<NetCase> = {
  name: "net",
  cases: netCases,
  run: (test) => new NetRun(test).run(),
};

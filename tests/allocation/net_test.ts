/**
 * The way of a frame allocates nothing: 0 bytes from one guest's transmit queue to another's receive queue, at any size, in
 * both formats; nor where it waits, or is finished in software.
 *
 * Measured as in allocation_test.ts.
 */
import { assert, assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import * as net from "@virtio/net";
import {
  openQueue,
  type Queue,
  type QueueConfig,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";

const VIRTIO_F_VERSION_1 = 1n << 32n;
const ENTRIES = 256;
const MEMORY = 0x28_0000;
const DATA = 0x2_0000;
/** Seconds until a window must be clean: where other tests take the processors, code is compiled late. */
const PATIENCE = 30;
/** Less than any object, by far. */
const CLEAN = 0.5;

/** Both ends of a queue. */
class Pair {
  readonly device: Queue;
  readonly driver: DriverQueue;

  constructor(memory: GuestMemory, at: number, features: bigint) {
    const config: QueueConfig = {
      size: ENTRIES,
      descriptorArea: at,
      driverArea: at + 0x2000,
      deviceArea: at + 0x3000,
    };
    this.device = openQueue(memory, config, features);
    this.driver = openDriverQueue(memory, config, features);
  }
}

/** A guest with a device, and the queues of its first pair. */
class Guest {
  readonly memory = GuestMemory.allocate(MEMORY);
  readonly device: net.NetDevice;
  readonly receive: Pair;
  readonly transmit: Pair;
  readonly headerSize: number;
  readonly list = new BufferList();
  interrupts = 0;

  constructor(backend: net.NetBackend, last: number, features: bigint, plants: boolean) {
    this.device = new net.NetDevice({
      backend,
      mac: new Uint8Array([2, 0, 0, 0, 0, last]),
      ...(plants ? { tap: (frame) => planted.push({ length: frame.length }) } : {}),
    });
    assert(this.device.accepts(features));
    this.headerSize = (features & net.VIRTIO_NET_F_HASH_REPORT) === 0n ? 12 : 20;
    this.device.start({
      memory: this.memory,
      features,
      interrupt: { queue: () => this.interrupts++, config: () => {} },
      fail: (error) => {
        throw error;
      },
    });
    this.receive = new Pair(this.memory, 0x1000, features);
    this.transmit = new Pair(this.memory, 0x8000, features);
    this.device.startQueue(0, this.receive.device);
    this.device.startQueue(1, this.transmit.device);
  }
}

const planted: unknown[] = [];

/** How frames are sent and received. */
interface Shape {
  readonly frame: number;
  readonly batch: number;
  readonly buffer: number;
  readonly features: bigint;
  /** `flags`, `gso_type`, `gso_size` of the header that the sender writes; none unless given. */
  readonly header?: readonly [flags: number, gsoType: number, gsoSize: number];
  /** Frames that come of one; 1 unless given. */
  readonly made?: number;
  /** What the receiver accepts besides; the same as the sender unless given. */
  readonly receiver?: bigint;
  /** Whether buffers come after the frames. */
  readonly late?: boolean;
  readonly plants?: boolean;
}

/** Two guests on one cable. */
class Rig {
  readonly sender: Guest;
  readonly receiver: Guest;
  readonly #shape: Shape;

  constructor(shape: Shape) {
    this.#shape = shape;
    const peers: (net.FrameSink | null)[] = [null, null];
    const end = (here: number): net.NetBackend => ({
      offloads: net.Offload.all,
      connect: (peer) => peers[here] = peer,
      deliver: (frame) => {
        const peer = peers[1 - here];
        if (peer) net.pass(frame, peer);
      },
    });
    const features = shape.features | VIRTIO_F_VERSION_1;
    const receiver = shape.receiver === undefined ? features : shape.receiver | VIRTIO_F_VERSION_1;
    this.sender = new Guest(end(0), 1, features, shape.plants ?? false);
    this.receiver = new Guest(end(1), 2, receiver, false);
    this.#write();
  }

  #write(): void {
    const { frame, batch, header } = this.#shape;
    const { memory, headerSize } = this.sender;
    for (let i = 0; i < batch; i++) {
      const at = this.#at(i);
      memory.fill(at, headerSize + frame);
      const bytes = new Uint8Array(frame);
      bytes.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 8, 0, 0x45]);
      bytes.set([(frame - 14) >> 8, (frame - 14) & 0xff], 16);
      bytes.set([64, 6, 0, 0, 10, 0, 0, i, 10, 0, 0, 2, 1, i, 2, 3], 22);
      bytes[46] = 0x50;
      memory.write(at + headerSize, bytes);
      if (header === undefined) continue;
      memory.writeU8(at, header[0]);
      memory.writeU8(at + 1, header[1]);
      memory.writeU16(at + 4, header[2]);
      memory.writeU16(at + 6, 34);
      memory.writeU16(at + 8, 16);
    }
  }

  #at(i: number): number {
    return DATA + i * Math.ceil((this.#shape.frame + 20) / 64) * 64;
  }

  /** Sends a batch and takes it back at both ends. */
  batch(): void {
    const { batch, late, made = 1 } = this.#shape;
    if (!late) this.#offer();
    this.#send();
    if (late) this.#offer();
    let frames = 0;
    const { driver } = this.receiver.receive;
    for (let token = driver.take(); token >= 0; token = driver.take()) frames++;
    let sent = 0;
    while (this.sender.transmit.driver.take() >= 0) sent++;
    this.sender.transmit.driver.enableInterrupts();
    driver.enableInterrupts();
    if (sent !== batch || frames !== this.#buffers) {
      throw new Error(`${sent} of ${batch} frames, ${frames} of ${this.#buffers} buffers, ${made}`);
    }
  }

  get #buffers(): number {
    const { batch, frame, buffer, made = 1 } = this.#shape;
    if (made > 1) return batch * made;
    return batch * Math.ceil((frame + this.receiver.headerSize) / buffer);
  }

  #offer(): void {
    const { buffer } = this.#shape;
    const { receive, list, device } = this.receiver;
    for (let i = 0; i < this.#buffers; i++) {
      receive.driver.add(list.clear().writable(DATA + buffer * i, buffer), i);
    }
    receive.driver.publish();
    device.notify(0);
  }

  #send(): void {
    const { batch, frame } = this.#shape;
    const { transmit, list, device, headerSize } = this.sender;
    for (let i = 0; i < batch; i++) {
      const at = this.#at(i);
      list.clear().readable(at, headerSize).readable(at + headerSize, frame);
      transmit.driver.add(list, i);
    }
    transmit.driver.publish();
    device.notify(1);
  }
}

/** Bytes a frame: those of the cleanest window, of 20 at least, until one is clean. */
function bytesPerFrame(shape: Shape, patience = PATIENCE): number {
  const rig = new Rig(shape);
  const window = Math.ceil(6000 / shape.batch);
  let least = Infinity;
  const end = performance.now() + 1000 * patience;
  for (let tries = 0; least > CLEAN && (tries < 20 || performance.now() < end); tries++) {
    let grown = 0;
    let before = Deno.memoryUsage().heapUsed;
    for (let part = 0; part < 5; part++) {
      for (let i = 0; i < window; i++) rig.batch();
      planted.length = 0;
      const after = Deno.memoryUsage().heapUsed;
      // Something was collected, so something was allocated, though nobody can say how much.
      grown += after < before ? Infinity : after - before;
      before = after;
    }
    least = Math.min(least, grown / (5 * window * shape.batch));
  }
  assert(rig.sender.interrupts > 0);
  assertEquals(rig.sender.device.stats.dropped + rig.receiver.device.stats.dropped, 0);
  return least;
}

const BASE = net.VIRTIO_NET_F_MRG_RXBUF | net.VIRTIO_NET_F_MAC;
const TSO = BASE | net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_HOST_TSO4;
const GUEST_TSO = net.VIRTIO_NET_F_GUEST_CSUM | net.VIRTIO_NET_F_GUEST_TSO4;

const SHAPES: Record<string, Shape> = {
  "64 bytes": { frame: 64, batch: 64, buffer: 1536, features: BASE },
  "1500 bytes": { frame: 1500, batch: 64, buffer: 1536, features: BASE },
  "65,000 bytes": { frame: 65000, batch: 8, buffer: 4096, features: BASE },
  "1500 bytes that wait": { frame: 1500, batch: 64, buffer: 1536, features: BASE, late: true },
  "1500 bytes whose checksum is left partial": {
    frame: 1500,
    batch: 64,
    buffer: 1536,
    features: TSO | GUEST_TSO,
    header: [1, 0, 0],
  },
  "65,000 bytes that are not segmented": {
    frame: 65000,
    batch: 8,
    buffer: 4096,
    features: TSO | GUEST_TSO,
    header: [1, 1, 1460],
  },
  "1500 bytes whose checksum is completed": {
    frame: 1500,
    batch: 64,
    buffer: 1536,
    features: TSO,
    header: [1, 0, 0],
  },
  "20,000 bytes that are segmented": {
    frame: 20000,
    batch: 8,
    buffer: 1600,
    features: TSO,
    header: [1, 1, 1460],
    made: 14,
  },
};

for (const [format, ring] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (const [name, shape] of Object.entries(SHAPES)) {
    Deno.test(`0 bytes are allocated for a frame: ${format}, ${name}`, () => {
      const features = shape.features | ring | VIRTIO_F_EVENT_IDX;
      const bytes = bytesPerFrame({ ...shape, features });
      assert(bytes <= CLEAN, `${bytes} bytes a frame`);
    });
  }
}

Deno.test("an allocation that is planted in a device's tap is found", () => {
  const bytes = bytesPerFrame({ ...SHAPES["64 bytes"]!, plants: true }, 0);
  assert(bytes >= 8, `only ${bytes} bytes a frame were seen`);
});

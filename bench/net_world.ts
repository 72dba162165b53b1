/**
 * Two guests on one cable: frames from the transmit queue of one to the receive queue of the other, over two network devices
 * and what is between them. Both rings are split, and prepared: a fake driver makes ready descriptors available again, which is
 * one store a batch for each ring. bench/native/net_device.c does the same copies in C.
 */
import { allocateBytes, GuestMemory } from "@virtio/memory";
import {
  Frame,
  type FrameSink,
  type NetBackend,
  NetDevice,
  Offload,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MRG_RXBUF,
} from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import { openQueue } from "@virtio/vring";

/** Where things lie in the memory of either guest; the same places as in net_device.c. */
const Place = { descriptors: 0x1000, driver: 0x3000, device: 0x4000, data: 0x10000 } as const;
const ENTRIES = 256;
const MEMORY = 0x20_0000;
const HEADER = 12;
/** Longest piece of a frame that its sender has in one place. */
const PIECE = 32768;

/** How frames of a size are sent and received. */
export interface NetShape {
  /** Bytes of a frame. */
  readonly frame: number;
  /** Frames in a batch. */
  readonly batch: number;
  /** Bytes of a receive buffer, as Linux has them. */
  readonly buffer: number;
}

/** The sizes that are measured. */
export const NET_SHAPES: readonly NetShape[] = [
  { frame: 64, batch: 64, buffer: 1536 },
  { frame: 1500, batch: 64, buffer: 1536 },
  { frame: 65000, batch: 8, buffer: 4096 },
];

/** What is between the two devices. */
export type Between = "cable" | "switch";

/** A cable with two ends, and nothing on the way. */
function cable(): [NetBackend, NetBackend] {
  const peers: (FrameSink | null)[] = [null, null];
  const end = (here: number): NetBackend => ({
    offloads: Offload.all,
    connect: (peer) => peers[here] = peer,
    deliver: (frame) => peers[1 - here]?.deliver(frame),
  });
  return [end(0), end(1)];
}

function switched(): [NetBackend, NetBackend] {
  const network = new Switch();
  const ports = [network.port(), network.port()] as const;
  // It has heard the receiver, and does not send to all.
  const hello = new Frame().fromBytes(new Uint8Array(60));
  hello.buffer.set([2, 0, 0, 0, 0, 1, 2, 0, 0, 0, 0, 2, 0x88, 0xb5]);
  ports[1].send(hello);
  return [...ports];
}

/** One guest: its memory, its device, one prepared ring. */
class Guest {
  readonly memory: GuestMemory;
  readonly device: NetDevice;
  #available = 0;

  constructor(backend: NetBackend, mac: string, index: 0 | 1, shared: boolean) {
    this.memory = new GuestMemory([
      { base: 0, buffer: allocateBytes(MEMORY, shared).buffer, size: MEMORY },
    ]);
    this.device = new NetDevice({ backend, mac });
    const features = (1n << 32n) | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_MAC;
    if (!this.device.accepts(features)) throw new Error("The features are not accepted");
    this.device.start({
      memory: this.memory,
      features,
      interrupt: { queue: () => {}, config: () => {} },
      fail: (error) => {
        throw error;
      },
    });
    const queue = openQueue(this.memory, {
      size: ENTRIES,
      descriptorArea: Place.descriptors,
      driverArea: Place.driver,
      deviceArea: Place.device,
    }, features);
    this.device.startQueue(index, queue);
  }

  /** Writes a descriptor. */
  describe(index: number, address: number, length: number, flags: number, next: number): void {
    const at = Place.descriptors + 16 * index;
    this.memory.writeU32(at, address);
    this.memory.writeU32(at + 4, 0);
    this.memory.writeU32(at + 8, length);
    this.memory.writeU16(at + 12, flags);
    this.memory.writeU16(at + 14, next);
  }

  /** What stands at a place of the available ring. */
  offer(index: number, head: number): void {
    this.memory.writeU16(Place.driver + 4 + 2 * index, head);
  }

  /** Makes the next entries available. */
  publish(count: number): void {
    this.#available = (this.#available + count) & 0xffff;
    Atomics.store(this.memory.regions[0]!.u16, Place.driver / 2 + 1, this.#available);
  }
}

/** The work of `net`. */
export class NetWorld {
  readonly shape: NetShape;
  readonly #sender: Guest;
  readonly #receiver: Guest;
  readonly #buffers: number;

  /** @param shared Whether guest memory is shared with other threads. */
  constructor(shape: NetShape, between: Between, shared = false) {
    this.shape = shape;
    const [here, there] = between === "cable" ? cable() : switched();
    this.#sender = new Guest(here, "02:00:00:00:00:01", 1, shared);
    this.#receiver = new Guest(there, "02:00:00:00:00:02", 0, shared);
    this.#buffers = shape.batch * Math.ceil((shape.frame + HEADER) / shape.buffer);
    this.#prepare();
  }

  #prepare(): void {
    const { frame, batch, buffer } = this.shape;
    const size = frame + HEADER;
    const pieces = Math.ceil(size / PIECE);
    for (let i = 0; i < batch; i++) {
      const at = Place.data + i * Math.ceil(size / 64) * 64;
      this.#sender.memory.fill(at, size);
      const bytes = Uint8Array.from({ length: frame }, (_, k) => (i + k * 7) & 0xff);
      bytes.set([2, 0, 0, 0, 0, 2, 2, 0, 0, 0, 0, 1, 0x88, 0xb5]);
      this.#sender.memory.write(at + HEADER, bytes);
      for (let piece = 0; piece < pieces; piece++) {
        const index = pieces * i + piece;
        const last = piece + 1 === pieces;
        const length = last ? size - piece * PIECE : PIECE;
        this.#sender.describe(index, at + piece * PIECE, length, last ? 0 : 1, index + 1);
      }
    }
    for (let i = 0; i < ENTRIES; i++) {
      this.#sender.offer(i, pieces * (i % batch));
      this.#receiver.describe(i, Place.data + buffer * i, buffer, 2, 0);
      this.#receiver.offer(i, i);
    }
  }

  /** Sends batches. @returns Frames that were received. */
  run(batches: number): number {
    const { batch } = this.shape;
    const { received } = this.#receiver.device.stats;
    const before = received[0]!.frames;
    for (let n = 0; n < batches; n++) {
      this.#receiver.publish(this.#buffers);
      this.#sender.publish(batch);
      this.#sender.device.notify(1);
    }
    const done = received[0]!.frames - before;
    if (done !== batches * batch) throw new Error(`${done} of ${batches * batch} frames came`);
    return done;
  }

  /** Whether the last frame of a batch is in the receiver's memory as it was in the sender's. */
  check(): boolean {
    const { frame, batch, buffer } = this.shape;
    const size = frame + HEADER;
    const per = Math.ceil(size / buffer);
    const used = this.#receiver.memory.readU16(Place.device + 2);
    const from = Place.data + (batch - 1) * Math.ceil(size / 64) * 64;
    for (let i = 0; i < per; i++) {
      const entry = (used - per + i) & (ENTRIES - 1);
      const id = this.#receiver.memory.readU32(Place.device + 4 + 8 * entry);
      const length = this.#receiver.memory.readU32(Place.device + 8 + 8 * entry);
      if (length !== Math.min(buffer, size - i * buffer)) return false;
      for (let k = i === 0 ? HEADER : 0; k < length; k++) {
        const sent = this.#sender.memory.readU8(from + i * buffer + k);
        if (this.#receiver.memory.readU8(Place.data + buffer * id + k) !== sent) return false;
      }
    }
    return true;
  }
}

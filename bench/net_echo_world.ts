/**
 * One guest whose frames come back to it, as a network device behind vhost-user has them: both queues as `ServedQueue`, split or
 * packed, and `LoopbackBackend`. A fake driver makes ready descriptors available again, in batches as testpmd does: a store for
 * each ring in the split format, sixteen bytes for each buffer in the packed one.
 */
import { VIRTIO_F_VERSION_1 } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { NetDevice, VIRTIO_NET_F_MAC, VIRTIO_NET_F_MRG_RXBUF } from "@virtio/net";
import { LoopbackBackend } from "@virtio/net/loopback";
import {
  VIRTIO_F_IN_ORDER,
  VIRTIO_F_RING_PACKED,
  VIRTQ_DESC_F_AVAIL,
  VIRTQ_DESC_F_USED,
  VIRTQ_DESC_F_WRITE,
} from "@virtio/vring";
import { ServedQueue } from "../packages/vhost-user/backend/served_queue.ts";

const ENTRIES = 256;
const HEADER = 12;
const BUFFER = 2048;
const RX = { descriptors: 0x1000, driver: 0x3000, device: 0x4000, data: 0x10_0000 } as const;
const TX = { descriptors: 0x6000, driver: 0x8000, device: 0x9000, data: 0x20_0000 } as const;
const MEMORY = 0x40_0000;
const MAC = [2, 0, 0, 0, 0, 0];

type Place = typeof RX | typeof TX;

/** How the world is. */
export interface EchoShape {
  /** The format of both rings. */
  readonly packed: boolean;
  /** Bytes of a frame. */
  readonly frame: number;
  /** Frames in a batch. */
  readonly batch: number;
  /** Whether buffers are used in order, as DPDK's driver asks for. */
  readonly inOrder?: boolean;
  /** Whether a frame's header has a descriptor of its own. */
  readonly header?: boolean;
}

/** The work of `net_echo`. */
export class EchoWorld {
  readonly device: NetDevice;
  readonly shape: EchoShape;
  readonly #memory: GuestMemory = GuestMemory.allocate(MEMORY);
  readonly #words: Int32Array = this.#memory.regions[0]!.i32;
  readonly #queues: ServedQueue[] = [];
  readonly #slots: readonly [number, number];
  /** Of each ring, the next slot and its wrap counter; split: the available index. */
  readonly #next: [number, number] = [0, 0];
  readonly #wrap: [number, number] = [1, 1];
  #failed: unknown = null;

  constructor(shape: EchoShape) {
    this.shape = shape;
    this.#slots = [1, shape.header === true ? 2 : 1];
    const device = this.device = new NetDevice({
      backend: new LoopbackBackend(),
      mac: MAC.map((byte) => byte.toString(16).padStart(2, "0")).join(":"),
    });
    const features = VIRTIO_F_VERSION_1 | VIRTIO_NET_F_MRG_RXBUF | VIRTIO_NET_F_MAC |
      (shape.packed ? VIRTIO_F_RING_PACKED : 0n) |
      (shape.inOrder === true ? VIRTIO_F_IN_ORDER : 0n);
    if (!device.accepts(features)) throw new Error("The features are not accepted");
    device.start({
      memory: this.#memory,
      features,
      interrupt: { queue: () => {}, config: () => {} },
      fail: (error) => this.#failed = error,
    });
    this.#prepare();
    [RX, TX].forEach((place, index) => {
      const queue = new ServedQueue(
        this.#memory,
        {
          size: ENTRIES,
          descriptorArea: place.descriptors,
          driverArea: place.driver,
          deviceArea: place.device,
        },
        features,
        null,
      );
      queue.polled = true;
      this.#queues.push(queue);
      device.startQueue(index, queue);
    });
  }

  #prepare(): void {
    const memory = this.#memory;
    const { frame } = this.shape;
    for (let i = 0; i < ENTRIES; i++) {
      memory.write(
        TX.data + BUFFER * i + HEADER,
        Uint8Array.from({ length: frame }, (_, k) => k < 6 ? MAC[k]! : (i + 7 * k) & 0xff),
      );
      if (this.shape.packed) continue;
      this.#describe(RX, i, i, 0);
      memory.writeU16(RX.driver + 4 + 2 * i, i);
      const head = this.#slots[1] * i % ENTRIES;
      if (i < ENTRIES / this.#slots[1]) {
        for (let part = 0; part < this.#slots[1]; part++) this.#describe(TX, head + part, i, part);
      }
      memory.writeU16(TX.driver + 4 + 2 * i, head);
    }
    // Nothing is to be told.
    for (const place of [RX, TX]) memory.writeU16(place.driver, this.shape.packed ? 0 : 1);
    if (this.shape.packed) { for (const place of [RX, TX]) memory.writeU16(place.driver + 2, 1); }
  }

  /** Writes a descriptor of a split ring. */
  #describe(place: Place, index: number, buffer: number, part: number): void {
    const at = (place.descriptors + 16 * index) / 4;
    const [offset, length, flags] = this.#part(place, part);
    this.#words[at] = place.data + BUFFER * (buffer % ENTRIES) + offset;
    this.#words[at + 1] = 0;
    this.#words[at + 2] = length;
    this.#words[at + 3] = flags | (index + 1) << 16;
  }

  #part(place: Place, part: number): [offset: number, length: number, flags: number] {
    if (place === RX) return [0, BUFFER, VIRTQ_DESC_F_WRITE];
    const { frame } = this.shape;
    if (this.#slots[1] === 1) return [0, HEADER + frame, 0];
    return part === 0 ? [0, HEADER, 1] : [HEADER, frame, 0];
  }

  /** Makes a batch available in both rings. */
  refill(): void {
    if (this.shape.packed) {
      this.#refillPacked(0, RX);
      this.#refillPacked(1, TX);
      return;
    }
    const { u16 } = this.#memory.regions[0]!;
    for (let queue = 0; queue < 2; queue++) {
      const next = this.#next[queue] = (this.#next[queue]! + this.shape.batch) & 0xffff;
      Atomics.store(u16, (queue === 0 ? RX : TX).driver / 2 + 1, next);
    }
  }

  #refillPacked(queue: 0 | 1, place: Place): void {
    const words = this.#words;
    const parts = this.#slots[queue];
    let next = this.#next[queue];
    let wrap = this.#wrap[queue];
    for (let n = 0; n < this.shape.batch; n++) {
      for (let part = 0; part < parts; part++) {
        const at = place.descriptors / 4 + 4 * next;
        const more = queue === 1 && parts === 2 && part === 0;
        const length = queue === 0
          ? BUFFER
          : parts === 1
          ? HEADER + this.shape.frame
          : more
          ? HEADER
          : this.shape.frame;
        words[at] = place.data + BUFFER * (next >> (parts - 1)) + (part === 0 ? 0 : HEADER);
        words[at + 1] = 0;
        words[at + 2] = length;
        const flags = (queue === 0 ? VIRTQ_DESC_F_WRITE : more ? 1 : 0) |
          (wrap === 1 ? VIRTQ_DESC_F_AVAIL : VIRTQ_DESC_F_USED);
        Atomics.store(words, at + 3, flags << 16 | next);
        if (++next === ENTRIES) {
          next = 0;
          wrap ^= 1;
        }
      }
    }
    this.#next[queue] = next;
    this.#wrap[queue] = wrap;
  }

  /** Sends batches, and has them received. @returns Frames. */
  run(batches: number): number {
    const { device } = this;
    const received = device.stats.received[0]!;
    const before = received.frames;
    for (let n = 0; n < batches; n++) {
      this.refill();
      device.notify(1);
    }
    const done = received.frames - before;
    if (this.#failed !== null) throw this.#failed;
    if (done !== batches * this.shape.batch) throw new Error(`${done} frames came back`);
    return done;
  }

  /** Whether the first frame is there. */
  check(): boolean {
    const sent = new Uint8Array(this.shape.frame);
    const got = new Uint8Array(this.shape.frame);
    this.#memory.read(TX.data + HEADER, sent);
    this.#memory.read(RX.data + HEADER, got);
    return sent.every((byte, i) => byte === got[i]);
  }
}

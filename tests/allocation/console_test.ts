/** A console device allocates nothing for a chain of output, nor of input beside what it takes to publish a batch. */
import { assert, assertEquals } from "@std/assert";
import { ConsoleDevice } from "@virtio/console";
import { DeviceState } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_RING_PACKED } from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { BATCH, bytesPerLaterRequest, bytesPerRequest, CLEAN } from "./bytes.ts";

const DATA = 0x10000;
const END = 0x60000;

/** A device without MULTIPORT, and a driver that sends batches to it. */
class Rig {
  /** What the back end was given. */
  bytes = 0;
  /** Bytes that the back end takes of each chain before it is full. */
  most = Infinity;
  readonly device: ConsoleDevice;
  readonly #state: DeviceState;
  readonly #queues: DriverQueue[] = [];
  readonly #list = new BufferList();
  readonly #input = new Uint8Array(48 * BATCH).fill(7);

  constructor(features: bigint) {
    const memory = GuestMemory.allocate(END);
    this.device = new ConsoleDevice({
      queueSize: 128,
      ports: [{
        backend: {
          write: (_bytes, _offset, length) => {
            const count = Math.min(length, this.most);
            this.bytes += count;
            return count;
          },
        },
      }],
    });
    this.#state = new DeviceState(this.device, {
      memory,
      interrupt: { queue: () => {}, config: () => {} },
      carries: -1n & ((1n << 64n) - 1n),
      onError: (error) => {
        throw error;
      },
    });
    const state = this.#state;
    state.writeStatus(3);
    const accepted = features | 1n << 32n;
    for (let word = 0; word < 4; word++) {
      state.writeDriverFeatures(word, Number(accepted >> BigInt(32 * word) & 0xffff_ffffn));
    }
    state.writeStatus(11);
    for (const index of [0, 1]) {
      const at = 0x1000 + 0x4000 * index;
      const config = {
        size: 128,
        descriptorArea: at,
        driverArea: at + 0x1000,
        deviceArea: at + 0x2000,
      };
      this.#queues.push(openDriverQueue(memory, config, accepted));
      const setup = state.queues[index]!;
      setup.setSize(128);
      setup.writeAddress(0, 0, config.descriptorArea);
      setup.writeAddress(1, 0, config.driverArea);
      setup.writeAddress(2, 0, config.deviceArea);
      state.enableQueue(index);
    }
    state.writeStatus(15);
    assertEquals(state.status, 15);
  }

  /** Sends a batch of output and takes it back. */
  batch(): void {
    const queue = this.#queues[1]!;
    for (let i = 0; i < BATCH; i++) {
      this.#list.clear().readable(DATA + 256 * i, 200);
      queue.add(this.#list, i);
    }
    if (queue.publish()) this.#state.notify(1);
    const port = this.device.port(0)!;
    // A back end that was full in the middle of a chain.
    for (let i = 0; this.most < 200 && i < BATCH; i++) port.resume();
    this.take(1);
  }

  /** Posts a batch of buffers and sends input, with or without having it wait. */
  post(waits: boolean): void {
    const queue = this.#queues[0]!;
    const port = this.device.port(0)!;
    if (waits) port.write(this.#input);
    for (let i = 0; i < BATCH; i++) {
      this.#list.clear().writable(DATA + 64 * i, 48);
      queue.add(this.#list, i);
    }
    if (queue.publish()) this.#state.notify(0);
    if (!waits) port.write(this.#input);
  }

  /** Takes back what the device used: a batch. */
  take(index: number): void {
    const queue = this.#queues[index]!;
    let taken = 0;
    while (queue.take() >= 0) taken++;
    queue.enableInterrupts();
    if (taken !== BATCH) throw new Error(`${taken} of ${BATCH} came back`);
  }
}

for (const [format, ring] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (const event of [0n, VIRTIO_F_EVENT_IDX]) {
    const name = `${format}${event === 0n ? "" : ", event index"}`;
    Deno.test(`0 bytes are allocated for a chain of console output: ${name}`, () => {
      const rig = new Rig(ring | event);
      const bytes = bytesPerRequest(rig);
      assert(bytes <= CLEAN, `${bytes} bytes a chain`);
      assert(rig.bytes > 0 && rig.bytes % 200 === 0);
    });
  }

  Deno.test(`0 bytes are allocated for console output that is taken in pieces: ${format}`, () => {
    const rig = new Rig(ring);
    rig.most = 150;
    const bytes = bytesPerRequest(rig);
    assert(bytes <= CLEAN, `${bytes} bytes a chain`);
    assertEquals(rig.bytes % (200 * BATCH), 0);
  });

  for (const waits of [false, true]) {
    const how = waits ? "that waited" : "that goes straight into the guest's buffers";
    Deno.test(`next to nothing is allocated for a batch of console input ${how}: ${format}`, async () => {
      const rig = new Rig(ring);
      // The microtask in which a batch is published; and what waits is copied through a view for each write of the host.
      const clean = (waits ? 256 : 144) / BATCH;
      const bytes = await bytesPerLaterRequest(() => rig.post(waits), () => rig.take(0), clean);
      assert(bytes <= clean, `${bytes} bytes a chain`);
      assert(rig.device.stats.inputBytes > 0);
    });
  }
}

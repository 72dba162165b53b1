/**
 * The hot path allocates nothing: 0 bytes for a request, driver and device, in both formats, however the request is cut.
 *
 * What is measured is the growth of the heap over thousands of requests, between two collections. Code that is not compiled
 * yet allocates (boxed numbers, feedback, the code itself), so windows are measured until one is clean; a planted
 * allocation is in every window.
 */
import { assert, assertEquals } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import { LinuxBackend } from "@virtio/blk/linux";
import { MemoryBackend } from "@virtio/blk/memory";
import { DeviceState, QueueDevice } from "@virtio/device";
import { allocateBytes, GuestMemory } from "@virtio/memory";
import {
  type Chain,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_PACKED,
} from "@virtio/vring";
import { BufferList, type DriverQueue, openDriverQueue } from "@virtio/vring/driver";
import { BATCH, bytesPerRequest, CLEAN } from "./bytes.ts";

const VIRTIO_F_VERSION_1 = 1n << 32n;
const Place = {
  descriptorArea: 0x1000,
  driverArea: 0x3000,
  deviceArea: 0x4000,
  tables: 0x6000,
  headers: 0x8000,
  status: 0xa000,
  data: 0x10000,
  end: 0x60000,
} as const;

const requests: Record<string, bigint> = {
  "header, 4 KiB and status": 0n,
  "header, 4 KiB and status through a table": VIRTIO_F_INDIRECT_DESC,
};

/** Reads the header, writes the status: what a device does at least. */
class StatusDevice extends QueueDevice {
  planted: unknown = null;
  readonly #plants: boolean;
  constructor(plants = false) {
    super({ type: 4, queueSizes: [256] });
    this.#plants = plants;
  }
  protected override handle(chain: Chain): void {
    const at = chain.reader.struct(16);
    const sector = chain.reader.view.getUint32(at + 8, true);
    if (this.#plants) this.planted = { sector };
    chain.writer.reserveTail(1);
    chain.writer.skip(chain.writer.remaining);
    chain.writer.writeTailU8(0);
  }
}

/** A device behind its status machine, and a driver that sends batches to it. */
class Rig {
  readonly #queue: DriverQueue;
  readonly #state: DeviceState;
  readonly #list = new BufferList();
  readonly #indirect: boolean;
  /** Interrupts of the device. */
  interrupts = 0;

  constructor(device: QueueDevice, memory: GuestMemory, features: bigint, data: number) {
    this.#indirect = (features & VIRTIO_F_INDIRECT_DESC) !== 0n;
    this.#state = new DeviceState(device, {
      memory,
      interrupt: { queue: () => this.interrupts++, config: () => {} },
      carries: -1n & ((1n << 64n) - 1n),
      onError: (error) => {
        throw error;
      },
    });
    const state = this.#state;
    state.writeStatus(0);
    state.writeStatus(3);
    for (let word = 0; word < 4; word++) {
      const wanted = Number((features | VIRTIO_F_VERSION_1) >> BigInt(32 * word) & 0xffff_ffffn);
      state.writeDriverFeatures(word, wanted);
    }
    state.writeStatus(11);
    assertEquals(state.status, 11, "the features are accepted");
    const config = { size: 256, ...Place };
    this.#queue = openDriverQueue(memory, config, features);
    const setup = state.queues[0]!;
    setup.setSize(256);
    setup.writeAddress(0, 0, config.descriptorArea);
    setup.writeAddress(1, 0, config.driverArea);
    setup.writeAddress(2, 0, config.deviceArea);
    state.enableQueue(0);
    state.writeStatus(15);
    for (let i = 0; i < BATCH; i++) memory.writeU32(Place.headers + 64 * i + 8, 8 * i);
    this.data = data;
  }

  /** Where the data of the requests lies. */
  readonly data: number;

  /** Sends a batch and takes it back. */
  batch(): void {
    const queue = this.#queue;
    const list = this.#list;
    for (let i = 0; i < BATCH; i++) {
      list.clear().readable(Place.headers + 64 * i, 16).writable(this.data + 4096 * i, 4096)
        .writable(Place.status + 64 * i, 1);
      queue.add(list, i, this.#indirect ? Place.tables + 64 * i : undefined);
    }
    if (queue.publish()) this.#state.notify(0);
    let taken = 0;
    while (queue.take() >= 0) taken++;
    queue.enableInterrupts();
    if (taken !== BATCH) throw new Error(`${taken} of ${BATCH} came back`);
  }
}

for (const [format, ring] of [["split", 0n], ["packed", VIRTIO_F_RING_PACKED]] as const) {
  for (const [request, feature] of Object.entries(requests)) {
    for (const event of [0n, VIRTIO_F_EVENT_IDX]) {
      const name = `${format}, ${request}${event === 0n ? "" : ", event index"}`;
      Deno.test(`0 bytes are allocated for a request: ${name}`, () => {
        const memory = GuestMemory.allocate(Place.end);
        const rig = new Rig(new StatusDevice(), memory, ring | feature | event, Place.data);
        const bytes = bytesPerRequest(rig);
        assert(bytes <= CLEAN, `${bytes} bytes a request`);
        assert(rig.interrupts > 0);
      });
    }
  }

  Deno.test(`0 bytes are allocated for a request: ${format}, data and header in different regions`, () => {
    const high = 0x1_8000_0000;
    const memory = new GuestMemory([
      { base: 0, buffer: new SharedArrayBuffer(Place.end) },
      { base: high, buffer: new SharedArrayBuffer(4096 * BATCH) },
    ]);
    const bytes = bytesPerRequest(new Rig(new StatusDevice(), memory, ring, high));
    assert(bytes <= CLEAN, `${bytes} bytes a request`);
  });

  Deno.test(`0 bytes are allocated for a 4 KiB read from a disk in memory: ${format}`, () => {
    const memory = GuestMemory.allocate(Place.end);
    const device = new BlkDevice({ backend: new MemoryBackend(new Uint8Array(4096 * BATCH)) });
    const bytes = bytesPerRequest(new Rig(device, memory, ring, Place.data));
    assert(bytes <= CLEAN, `${bytes} bytes a request`);
    assert(device.stats.reads > 0);
  });

  for (const engine of ["sync", "auto"] as const) {
    Deno.test({
      name:
        `0 bytes are allocated for a 4 KiB read from an image by system calls: ${format}, ${engine}`,
      ignore: Deno.build.os !== "linux",
      fn: async () => {
        const path = await Deno.makeTempFile();
        await Deno.writeFile(path, new Uint8Array(4096 * BATCH));
        const backend = LinuxBackend.open(path, { engine });
        const memory = GuestMemory.allocate(Place.end);
        const device = new BlkDevice({ backend });
        const bytes = bytesPerRequest(new Rig(device, memory, ring, Place.data));
        assert(bytes <= CLEAN, `${bytes} bytes a request`);
        assert(device.stats.reads > 0);
        await backend.close();
        await Deno.remove(path);
      },
    });
  }

  Deno.test(`an allocation that is planted in a device is found: ${format}`, () => {
    const memory = GuestMemory.allocate(Place.end);
    const bytes = bytesPerRequest(new Rig(new StatusDevice(true), memory, ring, Place.data), 0);
    assert(bytes >= 8, `only ${bytes} bytes a request were seen`);
  });

  Deno.test(`an allocation that is planted in a driver is found: ${format}`, () => {
    const memory = GuestMemory.allocate(Place.end);
    const rig = new Rig(new StatusDevice(), memory, ring, Place.data);
    const kept: number[][] = [];
    const bytes = bytesPerRequest({
      batch: () => {
        kept[0] = [kept.length];
        rig.batch();
      },
    }, 0);
    assert(bytes > CLEAN, `only ${bytes} bytes a request were seen`);
  });
}

for (const shared of [false, true]) {
  Deno.test(`0 bytes are allocated for a copy of any length: ${shared ? "shared" : "unshared"}`, () => {
    const region = GuestMemory.allocate(Place.end).find(0, Place.end);
    const frames = Array.from({ length: 4 }, () => allocateBytes(65536, shared));
    const bytes = bytesPerRequest({
      batch: () => {
        for (let i = 0; i < BATCH; i++) {
          const frame = frames[i & 3]!;
          region.copyTo(61 * i, frame, i, 15 * i);
          region.copyFrom(64 * i, frame, 3 * i, 1023 * i);
        }
      },
    });
    assert(bytes <= CLEAN, `${bytes} bytes a copy`);
  });
}

/** v86's own virtqueue, taken out of a machine made by its npm package and driven over a memory of ours. */
import { V86 } from "v86";
import { GuestMemory } from "@virtio/memory";
import { Place, Prepared, type RequestShape, type World } from "./work.ts";

/** VIRTIO_F_INDIRECT_DESC, as a bit number. */
const INDIRECT_DESC = 28;

/** The part of v86's queue that is used; its property names are not mangled in the package. */
interface V86Queue {
  desc_addr: number;
  avail_addr: number;
  used_addr: number;
  set_size(size: number): void;
  enable(): void;
  has_request(): boolean;
  pop_request(): V86Chain;
  push_reply(chain: V86Chain): void;
  flush_replies(): void;
}

interface V86Chain {
  get_next_blob(into: Uint8Array): number;
  set_next_blob(from: Uint8Array): number;
}

type V86QueueClass = new (
  cpu: object,
  virtio: object,
  options: { size_supported: number; notify_offset: number },
) => V86Queue;

/** The class, which the package does not export: that of a queue of the 9p device of a machine. */
export async function v86QueueClass(): Promise<V86QueueClass> {
  const path = new URL(import.meta.resolve("v86/build/v86.wasm"));
  const module = await WebAssembly.compile(await Deno.readFile(path));
  // deno-lint-ignore no-explicit-any -- none of this is public API
  const emulator = await new Promise<any>((resolve) => {
    const made = new V86({
      wasm_fn: async (imports: WebAssembly.Imports) =>
        (await WebAssembly.instantiate(module, imports)).exports,
      autostart: false,
      memory_size: 16 * 2 ** 20,
      filesystem: {},
      net_device: { type: "none" },
      disable_keyboard: true,
      disable_mouse: true,
      disable_speaker: true,
      // deno-lint-ignore no-explicit-any -- the published types lack half of these
    } as any);
    made.add_listener("emulator-loaded", () => resolve(made));
  });
  const queueClass = emulator.v86.cpu.devices.virtio_9p.virtio.queues[0].constructor;
  await emulator.destroy();
  return queueClass;
}

/**
 * A processor that is nothing but memory: what v86's queue asks of one, at its cheapest. v86's own takes a part of its memory
 * for each blob, which costs several times as much as these few bytes do.
 */
class MemoryCpu {
  readonly #bytes: Uint8Array;
  /** A blob of each length up to a header's. */
  readonly #blobs: Uint8Array[] = Array.from({ length: 17 }, (_, length) => new Uint8Array(length));
  readonly #u16: Uint16Array;
  readonly #i32: Int32Array;

  constructor(region: { bytes: Uint8Array; u16: Uint16Array; i32: Int32Array }) {
    this.#bytes = region.bytes;
    this.#u16 = region.u16;
    this.#i32 = region.i32;
  }

  read16(address: number): number {
    return this.#u16[address >>> 1]!;
  }

  read32s(address: number): number {
    return this.#i32[address >>> 2]!;
  }

  write16(address: number, value: number): void {
    this.#u16[address >>> 1] = value;
  }

  write32(address: number, value: number): void {
    this.#i32[address >>> 2] = value;
  }

  read_blob(address: number, length: number): Uint8Array {
    const blob = this.#blobs[length];
    if (blob === undefined) return this.#bytes.subarray(address, address + length);
    for (let i = 0; i < length; i++) blob[i] = this.#bytes[address + i]!;
    return blob;
  }

  write_blob(blob: Uint8Array, address: number): void {
    for (let i = 0; i < blob.length; i++) this.#bytes[address + i] = blob[i]!;
  }
}

/** The work of the device side, split format, by v86's queue. */
export class V86World implements Pick<World, "refill" | "device"> {
  readonly #prepared: Prepared;
  readonly #queue: V86Queue;
  readonly #writes: boolean;
  readonly #header = new Uint8Array(16);
  readonly #view = new DataView(this.#header.buffer);
  readonly #status = new Uint8Array(1);
  #interrupts = 0;

  constructor(queueClass: V86QueueClass, shape: RequestShape, size: number, batch: number) {
    // Not shared, as v86's memory is not: its blobs cost it less so.
    const memory = new GuestMemory([{ base: 0, buffer: new ArrayBuffer(Place.end) }]);
    this.#prepared = new Prepared({ format: "split", shape, size, batch, memory });
    const region = this.#prepared.memory.regions[0]!;
    this.#writes = shape !== "single";
    this.#queue = new queueClass(new MemoryCpu(region), {
      is_feature_negotiated: (bit: number) => bit === INDIRECT_DESC && shape === "ind3",
      raise_irq: () => this.#interrupts++,
    }, { size_supported: size, notify_offset: 0 });
    this.#queue.set_size(size);
    this.#queue.desc_addr = Place.descriptors;
    this.#queue.avail_addr = Place.driverArea;
    this.#queue.used_addr = Place.deviceArea;
    this.#queue.enable();
  }

  refill(batches: number): void {
    for (let n = 0; n < batches; n++) this.#prepared.refill();
  }

  device(batches: number): number {
    const queue = this.#queue;
    const view = this.#view;
    let sum = 0;
    const before = this.#interrupts;
    for (let n = 0; n < batches; n++) {
      this.#prepared.refill();
      while (queue.has_request()) {
        const chain = queue.pop_request();
        chain.get_next_blob(this.#header);
        sum =
          (sum + view.getUint32(0, true) + view.getUint32(8, true) + view.getUint32(12, true)) >>>
          0;
        if (this.#writes) chain.set_next_blob(this.#status);
        queue.push_reply(chain);
      }
      queue.flush_replies();
    }
    if (this.#interrupts - before !== batches) throw new Error("A batch was not used");
    return sum;
  }
}

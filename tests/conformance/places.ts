/** Where a device runs, in one table: what the standard wants of it, it does here and in a worker. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import type { Device } from "@virtio/device";
import { WorkerDevice } from "@virtio/worker";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { EchoDevice } from "../../packages/transport/testing/echo_device.ts";

/** Which device it is: plain data, since it may have to cross. */
export type PlacedData =
  | {
    readonly type: "blk";
    /** The disk. */
    readonly bytes: SharedArrayBuffer;
    /** Whether the back end answers in a later turn. */
    readonly later: boolean;
    readonly options: {
      readonly readonly?: boolean;
      readonly writeZeroes?: { readonly maxSegments: number };
      readonly secureErase?: { readonly maxSegments: number };
    };
  }
  | { readonly type: "echo" };

/** Makes a device, here or there. */
export function makeDevice(data: PlacedData): Device {
  if (data.type === "echo") return new EchoDevice();
  const memory = new MemoryBackend(new Uint8Array(data.bytes));
  return new BlkDevice({
    ...data.options,
    backend: data.later ? new LaterBackend(memory) : memory,
  });
}

/** A device in its place. */
export interface PlacedDevice extends Disposable {
  readonly device: Device;
}

/** The places, each with how a device is made there. */
export const PLACES: readonly (readonly [
  name: string,
  make: (data: PlacedData) => Promise<PlacedDevice>,
])[] = [
  [
    "in process",
    (data) => Promise.resolve({ device: makeDevice(data), [Symbol.dispose]: () => {} }),
  ],
  ["in a worker", async (data) => {
    const device = new WorkerDevice(new URL("./device_worker.ts", import.meta.url), { data });
    await device.ready;
    return { device, [Symbol.dispose]: () => device.close() };
  }],
];

/** A block device over each kind of disk in memory, in each place. */
export async function eachDisk(
  disk: Uint8Array,
  options: Extract<PlacedData, { type: "blk" }>["options"],
  action: (device: Device, bytes: Uint8Array) => Promise<void>,
): Promise<void> {
  for (const [, make] of PLACES) {
    for (const later of [false, true]) {
      const buffer = new SharedArrayBuffer(disk.length);
      const bytes = new Uint8Array(buffer);
      bytes.set(disk);
      using placed = await make({ type: "blk", bytes: buffer, later, options });
      await action(placed.device, bytes);
    }
  }
}

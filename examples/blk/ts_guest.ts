/** The example's run without an operating system: this project's own driver on the same device. Runs wherever Deno runs. */
import { BlkDriver } from "@virtio/blk/driver";
import { VIRTIO_F_RING_PACKED } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { randomBytes } from "../shared/bytes.ts";
import { Checks, type Outcome, type Progress } from "../shared/run.ts";
import { join } from "../shared/seat.ts";
import type { BlkGuestData } from "../shared/workers/blk_guest_worker.ts";
import { guestInWorker } from "../shared/workers/guest.ts";
import { openDisk } from "./disk.ts";
import { type Figures, readFigures } from "./figures.ts";
import type { Image } from "./image.ts";
import type { Options } from "./options.ts";

const MIB = 2 ** 20;
/** Bytes of one request, and requests in flight at once. */
const PIECE = 128 * 1024;
const DEPTH = 8;

/** Has our own driver work on the image. */
export async function runTs(
  options: Options,
  image: Image,
  progress: Progress,
): Promise<Outcome<Figures>> {
  const start = performance.now();
  const memory = GuestMemory.allocate(32 * MIB);
  using disk = await openDisk(options, image);
  const joined = join(options, memory, disk.device);
  const driver = await BlkDriver.open(joined.driver, {
    dma: new DmaPool(memory, 0x1000, 32 * MIB - 0x1000),
  });
  const bootMs = performance.now() - start;
  const checks = new Checks();
  checks.add(
    `the driver took ${options.ring} rings`,
    ((driver.features & VIRTIO_F_RING_PACKED) !== 0n) === (options.ring === "packed"),
  );
  checks.add(
    `it sees ${driver.sectors} sectors, as the image has`,
    driver.sectors * 512 === image.backend.capacity,
  );
  checks.add("it reads the device's id", (await driver.getId()) === "virtio-ts");

  const size = Math.min(options.megabytes * MIB, image.backend.capacity);
  const fresh = image.scratch || options.format;
  // Someone's disk gets back what it holds: the driver writes, but changes nothing.
  const data = fresh ? randomBytes(size) : await transfer(driver, "read", size);
  if (options.readonly) {
    checks.add("a write is refused", await refuses(driver));
  } else {
    progress.step(
      fresh
        ? `our driver writes ${Math.ceil(size / MIB)} MiB, flushes and reads them back`
        : `our driver writes back what it reads, ${Math.ceil(size / MIB)} MiB, and changes nothing`,
    );
    await transfer(driver, "write", size, data);
    await driver.flush();
  }
  const back = await transfer(driver, "read", size);
  checks.add(`${(size / MIB).toFixed(1)} MiB read back are what was written`, equal(back, data));
  progress.step("the host opens the image itself");
  checks.add("the host finds the same bytes in the image", equal(readImage(image, size), data));
  const figures = readFigures(disk.counted(), joined.counters.reads + joined.counters.writes);
  await driver.close();
  checks.addErrors(joined.errors);
  const workMs = performance.now() - start - bootMs;
  return { guest: "ts", checks: checks.list, figures, bootMs, workMs };
}

/** The same in a worker, its device in another: this thread waits. */
export async function runTsInWorker(
  options: Options,
  { path, scratch }: Image,
  progress: Progress,
): Promise<Outcome<Figures>> {
  const data: BlkGuestData = { options, path: await Deno.realPath(path), scratch };
  const module = new URL("../shared/workers/blk_guest_worker.ts", import.meta.url);
  progress.step("our driver and its device each run in a thread of their own");
  return await guestInWorker<Figures>(module, data, progress);
}

/** Moves the first `size` bytes of the disk, several requests at a time. */
async function transfer(
  driver: BlkDriver,
  direction: "read" | "write",
  size: number,
  data: Uint8Array = new Uint8Array(size),
): Promise<Uint8Array> {
  let next = 0;
  const worker = async (): Promise<void> => {
    while (next < size) {
      const at = next;
      next += PIECE;
      const piece = data.subarray(at, Math.min(at + PIECE, size));
      if (direction === "read") await driver.read(at / 512, piece);
      else await driver.write(at / 512, piece);
    }
  };
  await Promise.all(Array.from({ length: DEPTH }, worker));
  return data;
}

async function refuses(driver: BlkDriver): Promise<boolean> {
  try {
    await driver.write(0, new Uint8Array(512));
    return false;
  } catch {
    return true;
  }
}

function readImage(image: Image, size: number): Uint8Array {
  using file = Deno.openSync(image.path, { read: true });
  const bytes = new Uint8Array(size);
  let done = 0;
  while (done < size) {
    const n = file.readSync(bytes.subarray(done));
    if (n === null) break;
    done += n;
  }
  return bytes.subarray(0, done);
}

function equal(a: Uint8Array, b: Uint8Array): boolean {
  if (a.length !== b.length) return false;
  for (let i = 0; i < a.length; i++) if (a[i] !== b[i]) return false;
  return true;
}

/** How the cost of a request depends on the number of queues, the size of the ring and the number of memory regions. */
import { alternate, type Block, type Spread, spread } from "../../bench/harness.ts";
import {
  DATA_SIZE,
  Place,
  type Placement,
  Prepared,
  serveQueue,
  together,
} from "../../bench/work.ts";
import { GuestMemory } from "@virtio/memory";
import { openQueue, type Queue } from "@virtio/vring";

/** One curve: nanoseconds a request. */
export interface Curve {
  readonly format: "split" | "packed";
  readonly points: readonly { readonly x: number; readonly y: Spread }[];
}

/** All curves of a run. */
export interface Flatness {
  readonly queues: readonly Curve[];
  readonly ringSize: readonly Curve[];
  readonly regions: readonly Curve[];
}

const BATCH = 16;
/** Where the ring's size varies: as many requests as fit into the smallest. */
const SMALL_BATCH = 4;
const FORMATS = ["split", "packed"] as const;

/** Something that does batches of requests. */
interface Bed {
  run(batches: number): void;
}

/** Measures the three dependences, split and packed; the points of a curve in alternation. */
export function measureFlatness(rounds: number, progress: (line: string) => void): Flatness {
  const curve = (
    xs: readonly number[],
    make: (format: "split" | "packed", x: number) => Bed,
    batch = BATCH,
  ) =>
    FORMATS.map((format): Curve => {
      const beds = xs.map((x) => make(format, x));
      const blocks: Block[] = xs.map((x, i) => ({
        name: String(x),
        unit: batch,
        run: (n) => beds[i]!.run(n),
      }));
      const samples = alternate(blocks, { rounds, block: 4, warmUp: 150 });
      return { format, points: xs.map((x) => ({ x, y: spread(samples.get(String(x))!) })) };
    });
  progress("from 1 to 64 queues");
  const queues = curve([1, 2, 4, 8, 16, 32, 64], (format, count) => manyQueues(format, count));
  progress("from ring size 16 to 32768");
  const ringSize = curve(
    [16, 64, 256, 1024, 4096, 16384, 32768],
    (format, size) => oneQueue(new Prepared({ format, shape: "blk3", size, batch: SMALL_BATCH })),
    SMALL_BATCH,
  );
  progress("from 1 to 256 memory regions");
  const regions = curve([1, 4, 16, 64, 256], (format, count) => spreadMemory(format, count));
  return { queues, ringSize, regions };
}

function oneQueue(prepared: Prepared): Bed {
  const queue = openQueue(prepared.memory, prepared.config, prepared.features);
  return {
    run(batches) {
      for (let n = 0; n < batches; n++) serve(prepared, queue);
    },
  };
}

function serve(prepared: Prepared, queue: Queue): void {
  prepared.refill();
  serveQueue(queue);
  if (!queue.flush()) throw new Error("A batch was not used");
}

/** Queues of their own in one memory, one batch each in turn. */
function manyQueues(format: "split" | "packed", count: number): Bed {
  const memory = GuestMemory.allocate(Place.end);
  const beds = Array.from({ length: count }, (_, i) => {
    // 64 slots of descriptors are 1 KiB, the used ring a bit over half of that.
    const prepared = new Prepared({
      format,
      shape: "blk3",
      size: 64,
      batch: BATCH,
      memory,
      offset: 0x400 * i,
    });
    return { prepared, queue: openQueue(memory, prepared.config, prepared.features) };
  });
  let turn = 0;
  return {
    run(batches) {
      for (let n = 0; n < batches; n++) {
        const { prepared, queue } = beds[turn]!;
        turn = turn + 1 === count ? 0 : turn + 1;
        serve(prepared, queue);
      }
    },
  };
}

/** Header, data and status of each request in different regions, as far as there are so many. */
function spreadMemory(format: "split" | "packed", count: number): Bed {
  const size = 64 * 1024;
  const gap = 2 * size;
  const sources = [{ base: 0, buffer: new SharedArrayBuffer(Place.end) }];
  for (let i = 1; i < count; i++) {
    sources.push({ base: Place.end + gap * i, buffer: new SharedArrayBuffer(size) });
  }
  const place = (n: number): number => {
    const region = n % count;
    return region === 0 ? -1 : Place.end + gap * region;
  };
  const at = (n: number, inFirst: number, offset: number): number => {
    const base = place(n);
    return base < 0 ? inFirst : base + offset;
  };
  const placement: Placement = {
    header: (i) => at(3 * i, together.header(i), 64 * (i % 64)),
    data: (i) => at(3 * i + 1, together.data(i), 0x2000 + DATA_SIZE * (i % 12)),
    status: (i) => at(3 * i + 2, together.status(i), 0x1000 + 64 * (i % 64)),
    table: together.table,
  };
  return oneQueue(
    new Prepared({
      format,
      shape: "blk3",
      size: 256,
      batch: BATCH,
      memory: new GuestMemory(sources),
      placement,
    }),
  );
}

/**
 * The life of a device, whichever it is: started and stopped, reset in the middle of a request, its queues reset, suspended and
 * resumed, saved and restored into another device while it works. Written once; `worlds.ts` says what is work for each type.
 */
import {
  type FeatureSet,
  VIRTIO_F_EVENT_IDX,
  VIRTIO_F_INDIRECT_DESC,
  VIRTIO_F_RING_RESET,
  VIRTIO_F_SUSPEND,
  VIRTIO_STATUS_DRIVER_OK,
  VIRTIO_STATUS_SUSPEND,
} from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { DmaPool } from "@virtio/vring/driver";
import { assert, assertEquals } from "@std/assert";
import { FORMATS, type Join, type Joined, TRANSPORTS } from "./transports.ts";
import {
  blkWorld,
  consoleWorld,
  type Guest,
  inWorker,
  netWorld,
  type Placed,
  type World,
} from "./worlds.ts";

const POOL = 0x1000;
const POOL_SIZE = 0x50_0000;
const CORE = VIRTIO_F_SUSPEND | VIRTIO_F_RING_RESET;

interface Life {
  readonly world: World;
  readonly joined: Joined;
  readonly memory: GuestMemory;
  /** The device that is there now. */
  device: () => Placed["device"];
  open(): Promise<Guest>;
  /** Closes the driver, and looks that nothing is left. */
  close(guest: Guest): Promise<void>;
  /** Puts another device in its place. */
  move(): Promise<void>;
  /** Ends what is left of workers. */
  end(): void;
}

async function begin(world: World, join: Join, core: FeatureSet): Promise<Life> {
  const memory = GuestMemory.allocate(POOL + POOL_SIZE);
  const errors: Error[] = [];
  const retired: Placed[] = [];
  let placed = await world.device();
  placed.begin?.();
  const joined = join(placed.device, memory, (error) => errors.push(error));
  const dma = new DmaPool(memory, POOL, POOL_SIZE);
  return {
    world,
    joined,
    memory,
    device: () => placed.device,
    async open() {
      const guest = await world.open(joined.driver, dma, core);
      assertEquals(joined.state().status & VIRTIO_STATUS_DRIVER_OK, VIRTIO_STATUS_DRIVER_OK);
      return guest;
    },
    async close(guest) {
      await guest.close();
      assertEquals(joined.state().status, 0);
      assertEquals(dma.available, POOL_SIZE, "all memory was given back");
      assertEquals(errors, []);
    },
    async move() {
      const next = await world.device();
      const old = placed;
      if (world.stallToMove) world.stall();
      await joined.move(next.device);
      next.begin?.();
      placed = next;
      if (world.stallToMove) world.go();
      retired.push(old);
    },
    end() {
      for (const { end } of [...retired, placed]) end?.();
    },
  };
}

async function turns(count = 5): Promise<void> {
  for (let i = 0; i < count; i++) await new Promise((next) => setTimeout(next, 0));
}

/** Does something several times while the guest works. */
async function meanwhile(guest: Guest, what: () => Promise<void>): Promise<void> {
  let over = false;
  const work = (async () => {
    do await guest.work(5); while (!over);
  })();
  // Not unhandled while something else fails.
  work.catch(() => {});
  for (let time = 0; time < 4; time++) {
    await turns(time + 1);
    await what();
  }
  over = true;
  await work;
}

const LIVES: readonly (readonly [name: string, live: (life: Life) => Promise<void>])[] = [
  ["started and stopped, again and again", async (life) => {
    for (let time = 0; time < 3; time++) {
      const guest = await life.open();
      await guest.work(3);
      await life.close(guest);
    }
  }],
  ["reset in the middle of a request: nothing is written afterwards", async (life) => {
    for (let time = 0; time < 2; time++) {
      const guest = await life.open();
      await guest.work(2);
      life.world.stall();
      const request = guest.begin().catch(() => {});
      await turns();
      await life.close(guest);
      // All of it is free now: whoever wrote here would write into memory of somebody else.
      life.memory.fill(POOL, POOL_SIZE, 0xa5);
      await turns();
      life.world.go();
      await turns(20);
      await request;
      const bytes = new Uint8Array(POOL_SIZE);
      life.memory.read(POOL, bytes);
      assert(new Int32Array(bytes.buffer).every((word) => word === (0xa5a5a5a5 | 0)));
    }
    const guest = await life.open();
    await guest.work(5);
    await life.close(guest);
  }],
  ["queues are reset while it works", async (life) => {
    const guest = await life.open();
    const { resetQueues } = guest;
    // The console driver has no use for it.
    if (resetQueues !== null) await meanwhile(guest, resetQueues);
    await guest.work(2);
    await life.close(guest);
  }],
  ["suspended while it works: it stands still, and goes on", async (life) => {
    const guest = await life.open();
    await meanwhile(guest, async () => {
      await guest.suspend();
      assert((life.joined.state().status & VIRTIO_STATUS_SUSPEND) !== 0);
      const done = () =>
        JSON.stringify(
          life.device().queueCounters.map(({ chains, interrupts }) => [chains, interrupts]),
        );
      const before = done();
      await turns(10);
      assertEquals(done(), before);
      await guest.resume();
    });
    await life.close(guest);
  }],
  ["saved and restored while it works, into one device after the other", async (life) => {
    const guest = await life.open();
    await meanwhile(guest, async () => {
      const old = life.device();
      await life.move();
      const chains = () => old.queueCounters.reduce((sum, each) => sum + each.chains, 0);
      const before = chains();
      await turns();
      assertEquals(chains(), before, "the old one is dead");
    });
    const chains = life.device().queueCounters.reduce((sum, each) => sum + each.chains, 0);
    assert(chains > 0, "the new one works");
    await life.close(guest);
    const next = await life.open();
    await next.work(2);
    await life.close(next);
  }],
  ["saved and restored while it is suspended", async (life) => {
    const guest = await life.open();
    await meanwhile(guest, async () => {
      await guest.suspend();
      await life.move();
      await turns();
      assert((life.joined.state().status & VIRTIO_STATUS_SUSPEND) !== 0);
      await guest.resume();
    });
    await life.close(guest);
  }],
  ["reset right after it was restored", async (life) => {
    const guest = await life.open();
    await guest.work(2);
    await life.move();
    await life.close(guest);
    const next = await life.open();
    await next.work(2);
    await life.close(next);
  }],
];

/** Every type of device in process, over every transport, and in a worker, over one each: a worker takes its time to start. */
const PLACES: readonly {
  readonly name: string;
  readonly world: () => World;
  readonly transports: typeof TRANSPORTS;
  readonly formats: typeof FORMATS;
  readonly rings: readonly FeatureSet[];
}[] = ([
  ["blk", blkWorld],
  ["net", netWorld],
  ["console", consoleWorld],
] as const).flatMap(([type, world], i) => [
  {
    name: type,
    world,
    transports: TRANSPORTS.slice(0, 2),
    formats: FORMATS,
    rings: [0n, VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC],
  },
  {
    name: `${type} in a worker`,
    world: () => inWorker(type, world()),
    transports: TRANSPORTS.slice(i % 2, i % 2 + 1),
    formats: i === 0 ? FORMATS : FORMATS.slice(i % 2, i % 2 + 1),
    rings: [VIRTIO_F_EVENT_IDX | VIRTIO_F_INDIRECT_DESC],
  },
]);

for (const { name: place, world, transports, formats, rings } of PLACES) {
  for (const [transport, join] of transports) {
    for (const [format, packed] of formats) {
      for (const [name, live] of LIVES) {
        Deno.test(`life of ${place}, ${transport}, ${format}: ${name}`, async () => {
          for (const ring of rings) {
            const life = await begin(world(), join, CORE | packed | ring);
            try {
              await live(life);
            } finally {
              life.end();
            }
          }
        });
      }
    }
  }
}

/**
 * What it costs a device to be looked at: requests in blocks, hidden and shown in turn: `deno task bench:inspect`. Shown as in a
 * page whose machine is in a worker (a snapshot five times a second, cloned for the page), or as over a WebSocket (as JSON).
 * With `--browser`: what it costs the guest of example:web, in Chromium, drawing and all.
 */
import { BlkDevice, VIRTIO_BLK_F_MQ } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { Inspector } from "@virtio/inspect";
import { allocateBytes, GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";
import { benchArguments } from "./bench_arguments.ts";

/** Milliseconds between two looks, as the examples have it, and of one block. */
const LOOK = 200;
const BLOCK = 1000;
const QUEUES = 4;
const SIZE = 256;
const DEPTH = 64;
const SPACE = 0x40_0000;

const HELP = `Measures what it costs a device that its rings are shown.

Usage: deno task bench:inspect [options]

  --browser    the guest of example:web in Chromium, drawing and all; without it a device in Deno
  --rounds N   rounds that count (default 10)
  --help       this text
`;

const { rounds, all } = benchArguments({
  name: "bench:inspect",
  help: HELP,
  rounds: 10,
  leastRounds: 3,
  booleans: ["browser"],
});
if (all["browser"] === true) {
  const { benchBrowser } = await import("./bench_inspect/browser.ts");
  await benchBrowser(rounds);
  Deno.exit(0);
}

const memory = GuestMemory.allocate(QUEUES * SPACE);
const device = new BlkDevice({
  backend: new MemoryBackend(allocateBytes(1 << 20)),
  queues: QUEUES,
  queueSize: SIZE,
});
const features = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX | VIRTIO_BLK_F_MQ;
device.accepts(features);
device.start({
  memory,
  features,
  interrupt: { queue: () => {}, config: () => {} },
  fail: (error) => {
    throw error;
  },
});
const lanes = Array.from({ length: QUEUES }, (_, index) => {
  const base = index * SPACE;
  const config = {
    size: SIZE,
    descriptorArea: base + 0x1_0000,
    driverArea: base + 0x2_0000,
    deviceArea: base + 0x3_0000,
  };
  const driver = openDriverQueue(memory, config, features);
  device.startQueue(index, openQueue(memory, config, features));
  const lists = Array.from({ length: DEPTH }, (_, i) => {
    memory.writeU32(base + 0x4_0000 + 64 * i + 8, 8 * (i % 64));
    return new BufferList()
      .readable(base + 0x4_0000 + 64 * i, 16)
      .writable(base + 0x10_0000 + 4096 * i, 4096)
      .writable(base + 0x8_0000 + 64 * i, 1);
  });
  return { driver, lists };
});

/** One batch through each queue. @returns Requests. */
function batch(): number {
  lanes.forEach(({ driver, lists }, index) => {
    for (let i = 0; i < DEPTH; i++) driver.add(lists[i]!, i);
    if (driver.publish()) device.notify(index);
    while (driver.take() >= 0);
    driver.enableInterrupts();
  });
  return QUEUES * DEPTH;
}

const inspector = new Inspector([{ name: "Disk", device, memory }]);
const { port1, port2 } = new MessageChannel();
port2.onmessage = () => {};
let bytes = 0;
const SHOWN = {
  page: () => port1.postMessage(inspector.snapshot()),
  WebSocket: () => bytes += JSON.stringify(inspector.snapshot()).length,
};

/** What looks cost, each, in milliseconds. */
const looks: number[] = [];

/** Works for a block. @returns Requests a millisecond. */
async function block(show: (() => void) | null): Promise<number> {
  const look = (): void => {
    const before = performance.now();
    show!();
    looks.push(performance.now() - before);
  };
  const timer = show === null ? null : setInterval(look, LOOK);
  const start = performance.now();
  let requests = 0;
  while (performance.now() - start < BLOCK) {
    // The loop turns as often as an emulator lets it.
    const slice = performance.now() + 5;
    while (performance.now() < slice) requests += batch();
    await new Promise((resolve) => setTimeout(resolve, 0));
  }
  const rate = requests / (performance.now() - start);
  if (timer !== null) clearInterval(timer);
  return rate;
}

await block(null);
for (const [name, show] of Object.entries(SHOWN)) {
  await block(show);
  const ratios: number[] = [];
  looks.length = 0;
  for (let round = 0; round < rounds; round++) {
    const first = round % 2 === 0 ? await block(null) : 0;
    const shown = await block(show);
    const hidden = first || await block(null);
    ratios.push(shown / hidden);
  }
  ratios.sort((a, b) => a - b);
  looks.sort((a, b) => a - b);
  const each = looks[looks.length >> 1]!;
  const percent = (ratio: number): string => `${((1 - ratio) * 100).toFixed(1)}%`;
  console.log(
    `shown by ${name}: ${percent(ratios[rounds >> 1]!)} of the throughput (${
      percent(ratios.at(-2)!)
    } to ${percent(ratios[1]!)}); a look takes ${each.toFixed(2)} ms, ${
      percent(1 - each / LOOK)
    } of the time`,
  );
}
console.log(`${QUEUES} queues of ${SIZE}, a look every ${LOOK} ms; hidden, nothing runs`);
port1.close();
port2.close();
void bytes;

/** The device of bench:workers: a disk in memory. `?spin` looks for 20 ms before it sleeps. */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { serveDevice } from "@virtio/worker/serve";

const spins = new URL(import.meta.url).searchParams.has("spin");

serveDevice(
  ({ queues }: { queues: number }) =>
    new BlkDevice({ backend: new MemoryBackend(1 << 20), queues, queueSize: 256 }),
  { events: false, spin: spins ? 20_000 : 50 },
);

/**
 * The worker's side: runs any `Device` in a worker, over the guest memory that the other side shares.
 *
 * @module
 */
import { defer, deferring, type Device } from "@virtio/device";
import { DeviceHost } from "./device_host.ts";
import { describeError } from "./call.ts";
import { type FromWorker, listen, type Port, type ToWorker } from "./messages.ts";
import { Spin } from "./spin.ts";
import { Bell, Link, Word } from "./words.ts";

export type { Port } from "./messages.ts";

/** How a device is served. */
export interface ServeOptions {
  /**
   * Whether the device waits for anything but its driver: timers, sockets, messages, promises that no chain in flight waits
   * for. Yes unless given. With `false` the worker sleeps in `Atomics.wait` while nothing is in flight, and wakes up
   * faster; its event loop turns only in between.
   */
  readonly events?: boolean;
  /** Microseconds to look again and again before going to sleep; adapts to what comes, this at most. 50 unless given. */
  readonly spin?: number;
  /**
   * Whether requests may be handled twice, and the device has no state beside its configuration and what is behind it: so for
   * a block device, not for a network device with its filters. No unless given. Only then can another worker go on where
   * one died: `WorkerDeviceOptions.onDeath`.
   */
  readonly repeatable?: boolean;
  /** What `WorkerDevice.reports` gives: plain data about what the device did. */
  readonly report?: () => unknown;
  /** Opens memory that has only an address in this process; see `GuestMemory.from`. */
  readonly openMemory?: (address: bigint, size: number) => ArrayBufferLike;
  /** Where the other side is heard; the worker's global scope unless given. In Node: `parentPort`. */
  readonly port?: Port;
}

/** Milliseconds of sleep at most, where the event loop does not turn: so that messages are seen. */
const LONGEST_SLEEP = 50;

/**
 * Serves a device to the `WorkerDevice` that made this worker. Call it once, at the top of the worker's module.
 *
 * ```ts ignore
 * // disk_worker.ts
 * import { BlkDevice } from "@virtio/blk";
 * import { FileBackend } from "@virtio/blk/file";
 * import { serveDevice } from "@virtio/worker/serve";
 *
 * serveDevice(async ({ path }: { path: string }) =>
 *   new BlkDevice({ backend: await FileBackend.open(path) })
 * );
 * ```
 *
 * @param create Makes the device from the `data` that the `WorkerDevice` was given.
 */
export function serveDevice<T>(
  create: (data: T) => Device | Promise<Device>,
  options: ServeOptions = {},
): void {
  const port = options.port ?? globalThis as unknown as Port;
  let host: DeviceHost | null = null;
  const post = (message: FromWorker): void => port.postMessage(message);
  listen(port, (message) => {
    const sent = message as ToWorker | null;
    if (sent?.virtio === "open") {
      const link = new Link(sent.buffer);
      const bell = new Bell(sent.bell);
      Promise.resolve(sent.data as T).then(create).then((device) => {
        host = new DeviceHost(device, link, bell, post, sent.journals, options);
        // Some platforms end a worker after an uncaught error, others let it go on: this one is given up everywhere.
        port.addEventListener?.("error", () => leave(host!, link));
        port.addEventListener?.("unhandledrejection", () => leave(host!, link));
        post({ virtio: "ready", device: host.describe() });
        return run(host, link, options);
      }).catch((error) => post({ virtio: "refused", error: describeError(error) }));
    } else if (sent?.virtio === "memory") {
      host?.addMemory(sent.id, sent.memory, sent.dirty);
    }
  });
}

/** Stops the device for good. */
function leave(host: DeviceHost, link: Link): void {
  const stopped = host.abandon();
  if (stopped === undefined) link.leave();
  else stopped.then(() => link.leave());
}

/** Looks, serves, spins, sleeps; for as long as the worker lives. */
async function run(host: DeviceHost, link: Link, options: ServeOptions): Promise<void> {
  const { words } = link;
  const spin = new Spin(words, Word.wake, options.spin ?? 50);
  let seen = Atomics.load(words, Word.wake);
  for (;;) {
    if (!link.enter()) return leave(host, link);
    // What `seen` told of, or what came since: then the word is another by now.
    host.look();
    // What the device does in microtasks (a batch's used buffers are published in one) belongs to this turn.
    if (options.events !== false || !host.idle) await null;
    // Microtasks may have to wait, if this thread goes to sleep.
    host.tellWritten();
    // What is in flight waits for the event loop.
    if (host.idle) {
      const before = seen;
      seen = spin.until(before);
      if (seen !== before) {
        // Under a constant load the event loop must turn all the same.
        if (host.turnDue()) await turn();
        continue;
      }
    }
    // A busy queue puts off the rest of its chains to a later turn: there would be none while this thread sleeps.
    while (options.events === false && deferring()) await new Promise<void>(defer);
    // Messages wait for the event loop.
    let idle = false;
    Atomics.store(words, Word.workerAsleep, 1);
    if (Atomics.load(words, Word.wake) === seen) {
      if (options.events === false && host.idle) {
        link.rest();
        idle = Atomics.wait(words, Word.wake, seen, LONGEST_SLEEP) === "timed-out";
      } else {
        const waiting = Atomics.waitAsync(words, Word.wake, seen);
        if (waiting.async) await waiting.value;
      }
    }
    Atomics.store(words, Word.workerAsleep, 0);
    seen = Atomics.load(words, Word.wake);
    if (idle || options.events === false && (!host.idle || host.turnDue())) await turn();
  }
}

const channel = new MessageChannel();
let turned: (() => void) | null = null;
channel.port1.onmessage = () => {
  const resolve = turned;
  turned = null;
  resolve?.();
};

/** Resolves in a later turn of the event loop, after messages and timers that are due. */
function turn(): Promise<void> {
  return new Promise((resolve) => {
    turned = resolve;
    channel.port2.postMessage(null);
  });
}

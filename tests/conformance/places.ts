/**
 * Where a device runs, in one table: what the standard wants of it, it does in process and in a worker.
 *
 * A kick of a device in a worker returns when the device has seen to it, and its interrupts were passed on: so the same lines
 * test both. What happens when nobody waits is the matter of the life-cycle and the hostile tests.
 */
import type { Device } from "@virtio/device";
import type { Queue } from "@virtio/vring";
import { WorkerDevice } from "@virtio/worker";
import { turns } from "../../packages/device/testing.ts";
import { makeCall } from "../../packages/worker/call.ts";
import type { WorkerPort } from "../../packages/worker/device_worker.ts";
import { Link } from "../../packages/worker/words.ts";
import type { Errand, Opening } from "./device_worker.ts";
import { type DeviceData, type Insides, type Kind, makeDevice } from "./placed_devices.ts";

/** A device in its place. */
export interface Placed<K extends Kind> {
  readonly device: Device;
  /**
   * Calls a function where the device is, with what is inside of it. Only its text goes there: it sees nothing but its
   * arguments, which are plain data, as its answer is.
   */
  readonly run: <A extends unknown[], R>(
    action: (insides: Insides[K], ...args: A) => R,
    ...args: A
  ) => R;
  /** What a device in a worker does in microtasks is done, and was passed on. In process await some yourself. */
  readonly settle: () => void;
  /** Turns of the event loop, there and here. */
  readonly turns: (count?: number) => Promise<void>;
  readonly close: () => void;
}

type Open = <K extends Kind>(kind: K, data: DeviceData[K]) => Promise<Placed<K>>;

const inProcess: Open = (kind, data) => {
  const insides = makeDevice(kind, data);
  return Promise.resolve({
    device: insides.device,
    run: (action, ...args) => action(insides, ...args),
    settle: () => {},
    turns,
    close: () => {},
  });
};

/** Milliseconds to wait for an answer from the other side, and for a test. */
const PATIENCE = 60_000;

/** The thread of all devices that a file's tests have in a worker: it takes long to start, a device in it does not. */
let thread: Worker | null = null;

Deno.test.afterAll(() => {
  thread?.terminate();
  thread = null;
});

/** A device in a worker whose kicks are waited for. */
class AwaitedDevice extends WorkerDevice {
  override notify(index: number): void {
    super.notify(index);
    this.settle();
  }

  override startQueue(index: number, queue: Queue): void {
    super.startQueue(index, queue);
    this.settle();
  }

  settle(): void {
    // The worker looks for kicks, then for a call: so it has seen all kicks when it takes the second one.
    this.reports();
    this.reports();
    this.poll();
  }
}

const inWorker: Open = async <K extends Kind>(kind: K, data: DeviceData[K]) => {
  thread ??= new Worker(new URL("./device_worker.ts", import.meta.url), { type: "module" });
  const { port1, port2 } = new MessageChannel();
  let turned = (): void => {};
  const port: WorkerPort = {
    postMessage: (message) => port1.postMessage(message),
    addEventListener(type, listener) {
      port1.addEventListener(type, (event) => {
        const { data } = event as MessageEvent;
        if (data?.turned === true) turned();
        else listener({ data });
      });
      port1.start();
    },
    terminate: () => port1.close(),
  };
  const line = new Link();
  const opening: Opening = { port: port2, line: line.buffer, kind };
  thread.postMessage(opening, [port2]);
  const device = new AwaitedDevice("", { data, patience: PATIENCE, spawn: () => port });
  await device.ready;
  const send = (errand: Errand): unknown => {
    const answer = makeCall(line, { what: "errand", with: errand }, PATIENCE);
    device.poll();
    return answer;
  };
  return {
    device,
    run: <A extends unknown[], R>(action: (insides: Insides[K], ...args: A) => R, ...args: A): R =>
      send({ text: String(action), args }) as R,
    settle: () => device.settle(),
    async turns(count = 3) {
      const heard = new Promise<void>((resolve) => turned = resolve);
      send({ turns: count });
      await heard;
      await turns(count);
      device.poll();
    },
    close() {
      send({ end: true });
      device.close();
    },
  };
};

const PLACES: readonly (readonly [name: string, open: Open])[] = [
  ["in process", inProcess],
  ["in a worker", inWorker],
];

/** A place as a test sees it. */
export class Place {
  readonly name: string;
  readonly #open: Open;
  readonly #opened: { close: () => void }[] = [];

  constructor(name: string, open: Open) {
    this.name = name;
    this.#open = open;
  }

  /** Makes a device there. It is closed at the end of the test. */
  async open<K extends Kind>(kind: K, data: DeviceData[K]): Promise<Placed<K>> {
    const placed = await this.#open(kind, data);
    this.#opened.push(placed);
    return placed;
  }

  close(): void {
    for (const { close } of this.#opened.splice(0)) close();
  }
}

/** For a test that can look at this thread only. */
export function here(): Place {
  return new Place("in process", inProcess);
}

/** A test of a device, once for each place. */
export function everywhere(name: string, test: (place: Place) => void | Promise<void>): void {
  for (const [where, open] of PLACES) {
    const full = name.endsWith(")") ? `${name.slice(0, -1)}, ${where})` : `${name} (${where})`;
    Deno.test(full, async () => {
      const place = new Place(where, open);
      const { promise: late, reject } = Promise.withResolvers<never>();
      const timer = setTimeout(() => reject(new Error("The device does not answer")), PATIENCE);
      try {
        await Promise.race([test(place), late]);
      } finally {
        clearTimeout(timer);
        place.close();
      }
    });
  }
}

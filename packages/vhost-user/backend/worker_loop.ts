/**
 * The loop of a worker that serves a device: looks, serves, looks again for a while, sleeps until a kick. While it is awake
 * nothing asks for kicks.
 */
import type { Device, PollSource } from "@virtio/device";
import { EventFd, PollSet, threadId } from "@virtio/linux";
import { GuestMemory } from "@virtio/memory";
import { DirtyLog, type DirtyLogPlace } from "./dirty_log.ts";
import { DeviceRunner, GONE, type LiveQueue } from "./device_runner.ts";
import {
  type FromVhostWorker,
  type ToVhostWorker,
  type WorkerCall,
  WorkerWord,
} from "./worker_messages.ts";

/** Rounds after which the event loop turns, whatever the load. */
const ROUNDS = 256;
/** Milliseconds of sleep at most where queues have no kicks. */
const POLL_INTERVAL = 1;

type Scope = Pick<Worker, "postMessage" | "addEventListener">;

/** Made by `serveVhostUser`. */
export class WorkerLoop {
  readonly #scope: Scope;
  readonly #words: Int32Array;
  readonly #spin: number;
  readonly #events: boolean;
  readonly #closeDevice: () => void | Promise<void>;
  #runner: DeviceRunner | null = null;
  #memory: GuestMemory | null = null;
  #log: DirtyLogPlace | null = null;
  /** Messages that were seen, the first among them. */
  #heard = 1;
  #ended = false;
  /** Whether descriptors changed since they were put into the set. */
  #changed = true;
  #live: readonly LiveQueue[] = [];
  #sources: readonly PollSource[] = [];
  /** Queues with buffers that the device did not want, and how many chains it had taken then. */
  readonly #unwanted: Map<LiveQueue, number> = new Map();

  /** @param open The first message. */
  constructor(
    scope: Scope,
    open: ToVhostWorker & { vhost: "open" },
    options: { readonly events?: boolean; readonly close?: () => void | Promise<void> },
  ) {
    this.#scope = scope;
    this.#words = new Int32Array(open.words);
    Atomics.store(this.#words, WorkerWord.thread, threadId());
    this.#spin = open.spin / 1000;
    this.#events = options.events ?? true;
    this.#closeDevice = options.close ?? (() => {});
    scope.addEventListener("message", ({ data }) => this.#message(data as ToVhostWorker));
  }

  #post(message: FromVhostWorker): void {
    this.#scope.postMessage(message);
  }

  #message(message: ToVhostWorker): void {
    if (message.vhost !== "call") return;
    this.#heard++;
    const { id, call } = message;
    const refuse = (error: unknown): void =>
      this.#post({ vhost: "error", id, error: String((error as Error)?.message ?? error) });
    try {
      const done = this.#do(call);
      if (done instanceof Promise) {
        done.then((value) => this.#post({ vhost: "answer", id, value: value ?? null }), refuse);
      } else {
        this.#post({ vhost: "answer", id, value: done ?? null });
      }
    } catch (error) {
      refuse(error);
    }
  }

  #do(call: WorkerCall): unknown {
    const runner = this.#runner!;
    const { device } = runner;
    switch (call.what) {
      case "accepts":
        return device.accepts?.(call.features) ?? true;
      case "start":
        this.#open(call.memory);
        runner.start(this.#memory!, call.features);
        this.#change();
        return;
      case "move":
        this.#open(call.memory);
        return runner.move(this.#memory!);
      case "log":
        this.#log = call.place;
        this.#track();
        return;
      case "setCall":
        return runner.setCall(call.index, call.descriptor);
      case "startQueue":
        runner.startQueue(call.index, call.start);
        this.#change();
        return;
      case "stopQueue": {
        const stopped = runner.stopQueue(call.index);
        if (!(stopped instanceof Promise)) {
          this.#change();
          return stopped;
        }
        return stopped.then((position) => {
          this.#change();
          return position;
        });
      }
      case "kick":
        return runner.kick(call.index);
      case "writeConfig":
        device.config.write(call.offset, call.size, call.value);
        return device.config.bytes;
      case "counters":
        return runner.counters?.map((each) => ({ ...each })) ?? null;
      case "stop": {
        const stopped = runner.stop();
        this.#change();
        return stopped;
      }
      case "close":
        this.#ended = true;
        return Promise.resolve(runner.stop()).then(() => this.#closeDevice());
    }
  }

  #open(shared: Parameters<typeof GuestMemory.from>[0]): void {
    this.#memory = GuestMemory.from(shared);
    this.#track();
  }

  #track(): void {
    if (this.#memory === null) return;
    this.#memory.tracker = this.#log === null ? null : new DirtyLog(this.#log);
  }

  #change(): void {
    this.#changed = true;
    this.#unwanted.clear();
    const runner = this.#runner!;
    this.#live = runner.live.filter((live) => live !== null);
    for (const { queue } of this.#live) queue.polled = true;
    this.#sources = runner.started ? runner.device.pollSources?.() ?? [] : [];
  }

  /** Serves the device until the server closes it. */
  async run(device: Device, wake: EventFd): Promise<void> {
    this.#runner = new DeviceRunner(device, null, {
      interrupt: (index) => this.#post({ vhost: "interrupt", index }),
      configChanged: () => this.#post({ vhost: "config", bytes: device.config.bytes.slice() }),
      failed: (error) => {
        this.#change();
        this.#post({ vhost: "failed", error: error.message });
      },
    });
    this.#post({
      vhost: "ready",
      device: {
        type: device.type,
        features: device.features,
        requires: [...device.requires ?? []],
        queueSizes: [...device.queueSizes],
        config: device.config.bytes.slice(),
      },
    });
    const set = new PollSet();
    let polled: readonly LiveQueue[] = [];
    let spin = this.#spin;
    let rounds = 0;
    while (!this.#ended) {
      this.#serve();
      // What the device does in microtasks belongs to this round.
      await null;
      if (this.#pending() || ++rounds % ROUNDS === 0) {
        await turn();
        continue;
      }
      if (this.#spinWhile(spin)) {
        spin = Math.min(this.#spin, 2 * spin + 0.001);
        continue;
      }
      spin /= 2;
      if (this.#arm()) continue;
      if (this.#changed) {
        this.#changed = false;
        polled = this.#live;
        set.clear();
        set.add(wake.descriptor);
        for (const { kick } of polled) set.add(kick);
        for (const { descriptor } of this.#sources) set.add(descriptor);
      }
      const longest = polled.some((live) => live.polled) ? POLL_INTERVAL : -1;
      // What was put off to a later turn would not come while this thread sleeps.
      if (this.#events) await set.waitLater(longest);
      else set.wait(longest);
      if (set.ready(0) !== 0) wake.take();
      for (const { queue } of this.#live) queue.polled = true;
      if (!this.#changed) this.#kicks(set, polled);
    }
  }

  /** Whether messages are outstanding. */
  #pending(): boolean {
    return Atomics.load(this.#words, WorkerWord.sent) !== this.#heard;
  }

  #kicks(set: PollSet, polled: readonly LiveQueue[]): void {
    for (let i = 0; i < polled.length; i++) {
      const events = set.ready(i + 1);
      if (events === 0) continue;
      const live = polled[i]!;
      // See `DeviceRunner.startQueue`.
      if (!new EventFd(live.kick).take() && (events & GONE) !== 0) set.set(i + 1, -1);
      this.#unwanted.delete(live);
      this.#runner!.kick(live.index);
    }
  }

  /** Has the device look at what there is. @returns Whether there was anything. */
  #serve(): boolean {
    let any = false;
    const live = this.#live;
    for (let i = 0; i < live.length; i++) {
      const each = live[i]!;
      const { queue } = each;
      if (!queue.available() || this.#isUnwanted(each)) continue;
      const before = queue.taken;
      this.#runner!.kick(each.index);
      if (queue.taken !== before) any = true;
      else this.#unwanted.set(each, before);
    }
    for (let i = 0; i < this.#sources.length; i++) {
      if (this.#sources[i]!.ready() > 0) any = true;
    }
    return any;
  }

  #isUnwanted(live: LiveQueue): boolean {
    return this.#unwanted.size > 0 && this.#unwanted.get(live) === live.queue.taken;
  }

  /** Looks again and again for so many milliseconds. @returns Whether something came. */
  #spinWhile(milliseconds: number): boolean {
    const until = performance.now() + milliseconds;
    do {
      for (let i = 0; i < 20; i++) {
        if (this.#serve() || this.#pending()) return true;
      }
    } while (performance.now() < until);
    return false;
  }

  /** Asks for kicks. @returns Whether something came meanwhile. */
  #arm(): boolean {
    let any = false;
    for (const each of this.#live) {
      each.queue.polled = false;
      if (each.queue.arm() && !this.#isUnwanted(each)) any = true;
    }
    if (any) { for (const { queue } of this.#live) queue.polled = true; }
    return any || this.#pending();
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

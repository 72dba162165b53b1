/**
 * The devices of `worlds.ts` in a worker. What is behind them answers in a later turn, not while the first word of `gate` is
 * 1, and only for the device whose turn it is by the second; a line that was not yet repeated lies in `bytes`, so that it
 * outlives the worker.
 */
import { BlkDevice } from "@virtio/blk";
import { MemoryBackend } from "@virtio/blk/memory";
import { type ConsoleBackend, ConsoleDevice, type ConsolePort } from "@virtio/console";
import type { Device } from "@virtio/device";
import { Frame, type FrameSink, type NetBackend, NetDevice, Offload, pass } from "@virtio/net";
import { serveDevice } from "@virtio/worker/serve";
import { LaterBackend } from "../../packages/blk/backends/later_testing.ts";

/** What the test says. */
export interface LifeData {
  readonly type: "blk" | "net" | "console";
  readonly gate: SharedArrayBuffer;
  readonly bytes: SharedArrayBuffer;
  /** Counts the devices of a world. */
  readonly number: number;
}

/** When the world answers. */
class Gate {
  readonly #words: Int32Array;
  readonly #number: number;

  constructor({ gate, number }: LifeData) {
    this.#words = new Int32Array(gate);
    this.#number = number;
  }

  /** Calls a function again and again, in turns in which the gate is open. */
  whenOpen(go: () => void): void {
    setTimeout(() => {
      const open = Atomics.load(this.#words, 0) === 0;
      if (open && Atomics.load(this.#words, 1) === this.#number) go();
      this.whenOpen(go);
    }, 1);
  }
}

function disk(bytes: SharedArrayBuffer, gate: Gate): Device {
  const later = new LaterBackend(new MemoryBackend(new Uint8Array(bytes)));
  later.hold();
  gate.whenOpen(() => {
    later.release();
    later.hold();
  });
  return new BlkDevice({ backend: later, id: "life", queues: 2, queueSize: 32 });
}

/** Sends every frame back. */
class Echo implements NetBackend {
  readonly offloads: number = Offload.all;
  #peer: FrameSink | null = null;
  #waiting: Frame[] = [];

  constructor(gate: Gate) {
    gate.whenOpen(() => {
      for (const frame of this.#waiting.splice(0)) if (this.#peer !== null) pass(frame, this.#peer);
    });
  }

  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  deliver(frame: Frame): void {
    const copy = new Frame(frame.length).fromFrame(frame);
    copy.buffer.copyWithin(0, 6, 12);
    this.#waiting.push(copy);
  }
}

/** Repeats everything. What waits lies in shared memory: two counters, then the bytes. */
class Repeater implements ConsoleBackend {
  readonly #counters: Int32Array;
  readonly #bytes: Uint8Array;
  #port: ConsolePort | null = null;

  constructor(bytes: SharedArrayBuffer, gate: Gate) {
    this.#counters = new Int32Array(bytes, 0, 2);
    this.#bytes = new Uint8Array(bytes, 8);
    gate.whenOpen(() => this.#repeat());
  }

  attached(port: ConsolePort): void {
    this.#port = port;
  }

  write(bytes: Uint8Array, offset: number, length: number): number {
    const [written, read] = this.#counters as unknown as [number, number];
    const count = Math.min(length, this.#bytes.length - (written - read));
    for (let i = 0; i < count; i++) {
      this.#bytes[(written + i) % this.#bytes.length] = bytes[offset + i]!;
    }
    this.#counters[0] = written + count;
    return count;
  }

  #repeat(): void {
    const [written, read] = this.#counters as unknown as [number, number];
    if (this.#port === null || written === read) return;
    const line = Uint8Array.from(
      { length: written - read },
      (_, i) => this.#bytes[(read + i) % this.#bytes.length]!,
    );
    this.#counters[1] = read + this.#port.write(line);
    this.#port.resume();
  }
}

serveDevice((data: LifeData): Device => {
  const { type, bytes } = data;
  const gate = new Gate(data);
  if (type === "blk") return disk(bytes, gate);
  if (type === "net") {
    return new NetDevice({ backend: new Echo(gate), mac: "02:00:00:00:00:01", queueSize: 32 });
  }
  return new ConsoleDevice({
    ports: [{ backend: new Repeater(bytes, gate) }],
    queueSize: 32,
  });
});

/**
 * The serve loop. Run by `deno bench bench/device_bench.ts`.
 *
 * - 1 or 6 classes of devices behind the one loop: its call of `handle` must not become slower by a cliff when it has seen
 *   many kinds of devices. All six are served in turn, so that a run of the second case has six times the work.
 * - completions: a device that answers at once, one that holds every chain and completes it later, and one that returns a
 *   promise. Guards that only who waits pays for it.
 *
 * Each iteration is 100 batches of 64 requests for each device.
 */
import { type Activation, type Handled, HOLD, QueueDevice } from "@virtio/device";
import { type Chain, openQueue } from "@virtio/vring";
import { Prepared } from "./work.ts";

const BATCHES = 100;

abstract class BenchDevice extends QueueDevice {
  sum = 0;
  constructor() {
    super({ type: 4, queueSizes: [256] });
  }
  protected answer(chain: Chain): void {
    const at = chain.reader.struct(16);
    this.sum = (this.sum + chain.reader.view.getUint32(at + 8, true)) >>> 0;
    if (chain.writer.reserveTail(1)) chain.writer.writeTailU8(0);
  }
}

/** Classes of their own, as different devices are. */
function makeClass(step: number): new () => BenchDevice {
  return class extends BenchDevice {
    protected override handle(chain: Chain): void {
      this.sum = (this.sum + step) >>> 0;
      this.answer(chain);
    }
  };
}

class LaterDevice extends BenchDevice {
  readonly #held: Chain[] = [];
  protected override handle(chain: Chain): Handled {
    this.#held.push(chain);
    return HOLD;
  }
  finish(): void {
    for (const chain of this.#held) {
      this.answer(chain);
      this.complete(0, chain);
    }
    this.#held.length = 0;
  }
}

class PromiseDevice extends BenchDevice {
  protected override handle(chain: Chain): Promise<void> {
    this.answer(chain);
    return Promise.resolve();
  }
}

/** A started device and the fake driver that feeds it. */
function start<D extends QueueDevice>(device: D): { device: D; prepared: Prepared } {
  const prepared = new Prepared({ format: "split", shape: "blk3" });
  const activation: Activation = {
    memory: prepared.memory,
    features: prepared.features,
    interrupt: { queue: () => {}, config: () => {} },
    fail: (error) => {
      throw error;
    },
  };
  device.start(activation);
  device.startQueue(0, openQueue(prepared.memory, prepared.config, prepared.features));
  return { device, prepared };
}

function serve(beds: readonly { device: QueueDevice; prepared: Prepared }[]): void {
  for (let n = 0; n < BATCHES; n++) {
    for (const { device, prepared } of beds) {
      prepared.refill();
      device.notify(0);
    }
  }
}

const classes = Array.from({ length: 6 }, (_, i) => makeClass(i + 1));
const one = [start(new classes[0]!())];
Deno.bench("1 class of devices", { group: "classes", baseline: true }, () => serve(one));
const six = classes.map((DeviceClass) => start(new DeviceClass()));
Deno.bench("6 classes of devices, one batch each in turn", { group: "classes" }, () => serve(six));

const plain = [start(new (makeClass(7))())];
Deno.bench("answered at once", { group: "completions", baseline: true }, () => serve(plain));
const later = start(new LaterDevice());
Deno.bench("held, and completed after the batch", { group: "completions" }, async () => {
  for (let n = 0; n < BATCHES; n++) {
    later.prepared.refill();
    later.device.notify(0);
    later.device.finish();
    await Promise.resolve();
  }
});
const promised = start(new PromiseDevice());
Deno.bench("a promise each", { group: "completions" }, async () => {
  for (let n = 0; n < BATCHES; n++) {
    promised.prepared.refill();
    promised.device.notify(0);
    for (let turn = 0; turn < 6; turn++) await Promise.resolve();
  }
});

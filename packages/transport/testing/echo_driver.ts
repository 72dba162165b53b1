import { DriverSession, type DriverTransport } from "@virtio/device/driver";
import type { FeatureSet } from "@virtio/device";
import { BufferList, type DmaPool } from "@virtio/vring/driver";

/** Drives an `EchoDevice`. */
export class EchoDriver {
  /** The session. */
  readonly session: DriverSession;
  /** Used buffer notifications, by queue. */
  readonly used: number[] = [];
  /** Configuration change notifications. */
  configs = 0;
  /** Whether the device asked for a reset. */
  broken = false;
  readonly #list = new BufferList();
  readonly #waiting = new Map<number, (bytes: Uint8Array) => void>();
  readonly #dma: DmaPool;
  readonly #addresses: number[] = [];
  #token = 0;

  private constructor(session: DriverSession, dma: DmaPool) {
    this.session = session;
    this.#dma = dma;
    session.handlers = {
      used: (index) => {
        this.used[index] = (this.used[index] ?? 0) + 1;
        this.reap(index);
      },
      config: () => {
        this.configs++;
      },
      needsReset: () => {
        this.broken = true;
      },
    };
  }

  /** Initialises the device with `queues` queues. */
  static async open(
    transport: DriverTransport,
    dma: DmaPool,
    options: { queues?: number; size?: number; core?: FeatureSet; type?: number } = {},
  ): Promise<EchoDriver> {
    const session = await DriverSession.open(transport, {
      dma,
      type: options.type ?? 4,
      wanted: 0n,
      ...(options.core === undefined ? {} : { core: options.core }),
      queues: () =>
        Array.from({ length: options.queues ?? 2 }, (_, index) => ({
          index,
          size: options.size ?? 16,
        })),
    });
    const driver = new EchoDriver(session, dma);
    for (let index = 0; index < (options.queues ?? 2); index++) {
      session.queue(index).enableInterrupts();
    }
    return driver;
  }

  /** Sends bytes and resolves to what came back. */
  echo(queue: number, bytes: Uint8Array): Promise<Uint8Array> {
    const memory = this.#dma.memory;
    const from = this.#dma.allocate(bytes.length);
    const to = this.#dma.allocate(bytes.length);
    memory.write(from, bytes);
    const token = this.#token++;
    this.#addresses[token] = from;
    this.#list.clear().readable(from, bytes.length).writable(to, bytes.length);
    if (!this.session.queue(queue).add(this.#list, token)) throw new Error("the queue is full");
    return new Promise((resolve) => {
      this.#waiting.set(token, () => {
        const result = new Uint8Array(bytes.length);
        memory.read(to, result);
        this.#dma.free(from);
        this.#dma.free(to);
        resolve(result);
      });
      this.session.publish(queue);
    });
  }

  /** Takes what was used. */
  reap(queue: number): void {
    const ring = this.session.queue(queue);
    do {
      for (let token = ring.take(); token >= 0; token = ring.take()) {
        const done = this.#waiting.get(token);
        this.#waiting.delete(token);
        done?.(new Uint8Array());
      }
    } while (ring.enableInterrupts());
  }
}

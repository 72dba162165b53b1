import { DriverError, type DriverSession } from "@virtio/device/driver";
import { VirtqueueError } from "@virtio/vring";
import { BufferList } from "@virtio/vring/driver";
import { VIRTIO_NET_OK } from "../control/constants.ts";

/** Commands that may wait for their turn. */
const MOST_WAITING = 1024;
/** `ack` that no device writes: what the byte holds before. */
const NO_ACK = 0xff;

/** The device did not do what a command asked of it. Nothing else is affected. */
export class NetControlError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "NetControlError";
  /** `ack`: VIRTIO_NET_ERR, 255 where the device gave none, or what it wrote though the standard does not know it. */
  readonly ack: number;

  /** Says what failed. */
  constructor(what: string, ack: number) {
    super(
      `The device could not ${what}: it answered ${ack === NO_ACK ? "nothing" : `ack ${ack}`}`,
    );
    this.ack = ack;
  }
}

interface Command {
  readonly what: string;
  readonly kind: number;
  readonly command: number;
  readonly data: Uint8Array;
  readonly resultSize: number;
  readonly sent: (() => void) | undefined;
  readonly resolve: (result: Uint8Array) => void;
  readonly reject: (error: Error) => void;
  address: number;
}

/** The control queue: one command after the other, as promises (virtio 1.4, 5.1.9.5). */
export class ControlQueue {
  /** Index of the virtqueue. */
  readonly index: number;
  readonly #session: DriverSession;
  readonly #timeout: number;
  readonly #giveUp: (reason: Error) => void;
  readonly #list: BufferList = new BufferList();
  /** The first one is with the device. */
  readonly #commands: Command[] = [];
  #timer: ReturnType<typeof setTimeout> | null = null;
  #closed: Error | null = null;
  /** While the device is suspended, it need not answer. */
  paused = false;

  /**
   * For `NetDriver`.
   *
   * @param timeout See `NetDriverOptions`.
   * @param giveUp Called if the device does not answer.
   */
  constructor(
    session: DriverSession,
    index: number,
    timeout: number,
    giveUp: (reason: Error) => void,
  ) {
    this.#session = session;
    this.index = index;
    this.#timeout = timeout;
    this.#giveUp = giveUp;
  }

  /**
   * Sends a command.
   *
   * @param what What it does, for errors.
   * @param kind `class`.
   * @param data `command-specific-data`.
   * @param resultSize Room for `command-specific-result`.
   * @param sent Called right before the device can see it.
   * @returns The result, as many bytes as the device wrote.
   * @throws {NetControlError} If the device could not.
   * @throws {DriverError} If it was given up, or too many commands wait.
   */
  send(
    what: string,
    kind: number,
    command: number,
    data: Uint8Array,
    resultSize = 0,
    sent?: () => void,
  ): Promise<Uint8Array> {
    return new Promise((resolve, reject) => {
      if (this.#closed !== null) return reject(this.#closed);
      if (this.#commands.length >= MOST_WAITING) {
        return reject(new DriverError(`${MOST_WAITING} commands wait for the device already`));
      }
      this.#commands.push({
        what,
        kind,
        command,
        data,
        resultSize,
        sent,
        resolve,
        reject,
        address: -1,
      });
      if (this.#commands.length === 1) this.#start();
    });
  }

  #start(): void {
    for (;;) {
      const command = this.#commands[0];
      if (command === undefined) return;
      try {
        this.#submit(command);
        return;
      } catch (error) {
        // No memory for it: the others may be smaller.
        this.#commands.shift();
        command.reject(error as Error);
      }
    }
  }

  #submit(command: Command): void {
    const { dma } = this.#session;
    const { data, resultSize } = command;
    const readable = 2 + data.length;
    command.address = dma.allocate(readable + 1 + resultSize);
    const { address } = command;
    dma.memory.writeU8(address, command.kind);
    dma.memory.writeU8(address + 1, command.command);
    dma.memory.write(address + 2, data);
    dma.memory.fill(address + readable, 1 + resultSize);
    dma.memory.writeU8(address + readable, NO_ACK);
    command.sent?.();
    this.#add(command);
    this.#watch();
  }

  #add(command: Command): void {
    const readable = 2 + command.data.length;
    const { address } = command;
    this.#list.clear().readable(address, readable)
      .writable(address + readable, 1 + command.resultSize);
    // One command at a time always finds room: the queue has two entries at least, which `NetDriver.open` saw to.
    this.#session.queue(this.index).add(this.#list, 0);
    this.#session.publish(this.index);
  }

  /**
   * Takes answers.
   *
   * @param ending Whether the queue was reset, so that the next command has to wait for its successor.
   * @throws {VirtqueueError} If the device broke a rule.
   */
  collect(ending = false): void {
    const queue = this.#session.queue(this.index);
    do {
      while (queue.take() >= 0) this.#answered(queue.usedLength, ending);
    } while (!ending && queue.enableInterrupts());
  }

  #answered(used: number, ending: boolean): void {
    const command = this.#commands.shift();
    if (command === undefined) throw new VirtqueueError("5.1.9.5", "An answer without a command");
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    const { memory } = this.#session.dma;
    const at = command.address + 2 + command.data.length;
    // 2.7.8.3: what lies beyond the used length may not be relied on.
    const ack = used >= 1 ? memory.readU8(at) : NO_ACK;
    const result = new Uint8Array(Math.max(0, used - 1));
    memory.read(at + 1, result);
    this.#session.dma.free(command.address);
    if (!ending) this.#start();
    if (ack === VIRTIO_NET_OK) command.resolve(result);
    else command.reject(new NetControlError(command.what, ack));
  }

  #watch(): void {
    if (this.#timeout === 0) return;
    this.#timer = setTimeout(() => {
      this.#timer = null;
      if (this.paused) this.#watch();
      else {
        const { what } = this.#commands[0]!;
        this.#giveUp(
          new DriverError(
            `The device was asked to ${what} and said nothing for ${this.#timeout} ms`,
          ),
        );
      }
    }, this.#timeout);
  }

  /** The queue was reset: a command that was not answered is sent again. */
  restart(lost: readonly number[]): void {
    const [command] = this.#commands;
    if (command !== undefined) {
      if (lost.length > 0 && command.address >= 0) this.#add(command);
      else this.#start();
    }
    this.collect();
  }

  /** Fails everything, now and later. The device may still write to the command that it has. */
  abandon(reason: Error): void {
    this.#closed ??= reason;
    if (this.#timer !== null) clearTimeout(this.#timer);
    this.#timer = null;
    for (const command of this.#commands) command.reject(reason);
  }

  /** Gives the memory back, after a reset of the device. */
  release(): void {
    const [command] = this.#commands.splice(0);
    if (command !== undefined && command.address >= 0) this.#session.dma.free(command.address);
  }
}

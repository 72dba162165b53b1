import { VIRTIO_NET_F_CTRL_VQ } from "../constants.ts";
import { ControlQueue } from "./control_queue.ts";
import type { NetDriverSettings } from "./options.ts";
import { controlIndex, type OpenedQueues } from "./queues.ts";
import { ReceivePump } from "./receive_pump.ts";
import type { ReceiveQueue } from "./receive_queue.ts";
import { RoomWaiters } from "./room.ts";
import { TransmitPublisher } from "./transmit_publisher.ts";
import type { TransmitQueue } from "./transmit_queue.ts";

/** The queues of a driver, who sees to each, and which index is whose (virtio 1.4, 5.1.2). */
export class QueueSet {
  /** Receive queues, by pair. */
  readonly receive: readonly ReceiveQueue[];
  /** Transmit queues, by pair. */
  readonly transmit: readonly TransmitQueue[];
  /** The commands; null without VIRTIO_NET_F_CTRL_VQ. */
  readonly control: ControlQueue | null;
  /** Takes received frames. */
  readonly pump: ReceivePump;
  /** Makes frames available. */
  readonly publisher: TransmitPublisher;
  /** Who waits until frames can be sent. */
  readonly room: RoomWaiters;
  /** Indexes of those that are being reset. */
  readonly resetting: Set<number> = new Set();
  readonly #giveUp: (reason: Error) => void;
  #abandoned = false;

  /**
   * @param finished See `NetDriverOptions`.
   * @param giveUp Called if the device broke a rule, or does nothing.
   */
  constructor(
    { session, info, receive, transmit }: OpenedQueues,
    settings: NetDriverSettings,
    finished: boolean,
    giveUp: (reason: Error) => void,
  ) {
    this.receive = receive;
    this.transmit = transmit;
    this.#giveUp = giveUp;
    this.control = session.has(VIRTIO_NET_F_CTRL_VQ)
      ? new ControlQueue(session, controlIndex(info), settings.timeout, giveUp)
      : null;
    this.pump = new ReceivePump(receive, finished, this.resetting, giveUp);
    this.publisher = new TransmitPublisher(transmit);
    this.room = new RoomWaiters(transmit, settings.timeout, giveUp);
    transmit.forEach((queue, pair) => {
      queue.onAdd = () => this.publisher.soon(pair);
      queue.disableInterrupts();
    });
  }

  /** The device used buffers of a queue. */
  used(index: number): void {
    if (this.#abandoned) return;
    if (index === this.control?.index) {
      try {
        this.control.collect(this.resetting.has(index));
      } catch (error) {
        this.#giveUp(error as Error);
      }
    } else if (index % 2 === 0) {
      this.pump.collect(index >> 1);
    } else {
      this.room.settle(index >> 1);
    }
  }

  /** Looks at all queues, whether or not the device said that it used something. */
  usedAny(): void {
    for (const { index } of this.receive) {
      this.used(index);
      this.used(index + 1);
    }
    if (this.control !== null) this.used(this.control.index);
  }

  /**
   * A queue was reset and set up again.
   *
   * @param lost Tokens of what the device did not take.
   * @throws {Error} As the queue's own `restart`.
   */
  restart(index: number, lost: readonly number[]): void {
    if (index === this.control?.index) {
      this.control.restart(lost);
    } else if (index % 2 === 0) {
      this.receive[index >> 1]!.restart(lost);
      this.pump.collect(index >> 1);
    } else {
      this.transmit[index >> 1]!.restart(lost);
      this.room.settle(index >> 1);
    }
  }

  /** While the device is suspended, it need not answer in time. */
  set suspended(suspended: boolean) {
    this.room.paused = suspended;
    if (this.control !== null) this.control.paused = suspended;
  }

  /** Fails everybody who waits, now and later. */
  abandon(reason: Error): void {
    this.#abandoned = true;
    this.publisher.stop();
    this.control?.abandon(reason);
    this.room.abandon(reason);
    this.pump.stop();
  }

  /** Gives all memory back, after the device was reset. */
  release(): void {
    for (const queue of this.receive) queue.release();
    for (const queue of this.transmit) queue.release();
    this.control?.release();
  }
}

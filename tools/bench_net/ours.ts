/** Two drivers of ours, two network devices and a switch in one process. */
import { DEFAULT_FEATURES, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { setImmediate } from "node:timers/promises";
import { allocateBytes, GuestMemory } from "@virtio/memory";
import { NetDevice } from "@virtio/net";
import { NetDriver } from "@virtio/net/driver";
import { Switch } from "@virtio/net/switch";
import { PciTransport } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import { DmaPool } from "@virtio/vring/driver";

const MEMORY = 8 * 2 ** 20;
/** Turns of the event loop after which a frame that did not come is lost. */
const PATIENCE = 1000;
const MACS = [[2, 0, 0, 0, 0, 1], [2, 0, 0, 0, 0, 2]] as const;

/** A guest: a driver, and its device, which is plugged into the switch. */
async function guest(network: Switch, format: "split" | "packed", mac: readonly number[]) {
  const memory = GuestMemory.allocate(MEMORY);
  const device = new NetDevice({ backend: network.port(), mac: new Uint8Array(mac) });
  const features = format === "packed"
    ? DEFAULT_FEATURES
    : DEFAULT_FEATURES & ~VIRTIO_F_RING_PACKED;
  const { driver } = connectPci((host) => new PciTransport(device, { memory, host, features }), {
    delivery: "sync",
  });
  return await NetDriver.open(driver, { dma: new DmaPool(memory, 0, MEMORY) });
}

/** Frames from one driver to the other. */
export class OurNet {
  readonly #sender: NetDriver;
  readonly #receiver: NetDriver;
  readonly #frame: Uint8Array;
  readonly #batch: number;
  #received = 0;

  private constructor(sender: NetDriver, receiver: NetDriver, length: number, batch: number) {
    this.#sender = sender;
    this.#receiver = receiver;
    this.#batch = batch;
    // Bytes of a kind that are copied fast into guest memory.
    this.#frame = allocateBytes(length);
    for (let i = 0; i < length; i++) this.#frame[i] = i * 37 + (i >> 8) * 11;
    // An EtherType for experiments.
    this.#frame.set([...MACS[1], ...MACS[0], 0x88, 0xb5]);
    receiver.onFrame = () => void this.#received++;
  }

  /**
   * Plugs two drivers into a switch, and lets it know where the receiver is.
   *
   * @param length Bytes of each frame.
   * @param batch Frames that are sent together.
   */
  static async open(format: "split" | "packed", length: number, batch: number): Promise<OurNet> {
    const network = new Switch();
    const sender = await guest(network, format, MACS[0]);
    const receiver = await guest(network, format, MACS[1]);
    const hello = new Uint8Array(60);
    hello.set([255, 255, 255, 255, 255, 255, ...MACS[1], 0x88, 0xb5]);
    receiver.sendBytes(hello);
    receiver.flush();
    const net = new OurNet(sender, receiver, length, batch);
    await net.run(1);
    return net;
  }

  /** Sends batches of frames, and receives them. @throws {Error} If one is lost. */
  async run(batches: number): Promise<void> {
    const sender = this.#sender;
    const frame = this.#frame;
    for (let n = 0; n < batches; n++) {
      const goal = this.#received + this.#batch;
      for (let i = 0; i < this.#batch; i++) {
        if (!sender.sendBytes(frame)) throw new Error("The transmit queue is full");
      }
      // The kick: both devices, the switch and the receiving driver are done when it returns,
      sender.flush();
      // but for a driver that lets the event loop turn after a thousand frames.
      for (let turn = 0; this.#received !== goal; turn++) {
        if (turn === PATIENCE) throw new Error(`${goal - this.#received} frames are lost`);
        await setImmediate();
      }
    }
  }

  /** Whether a frame comes as it was sent. */
  async isWhole(): Promise<boolean> {
    const { onFrame } = this.#receiver;
    let whole = false;
    this.#receiver.onFrame = (frame, queue) => {
      const { bytes } = frame;
      whole = bytes.length === this.#frame.length &&
        bytes.every((byte, i) => byte === this.#frame[i]);
      onFrame!(frame, queue);
    };
    await this.run(1);
    this.#receiver.onFrame = onFrame;
    return whole;
  }

  /** Ends both drivers. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#sender.close();
    await this.#receiver.close();
  }
}

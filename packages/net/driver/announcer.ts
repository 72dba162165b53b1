import type { NetDriver } from "./net_driver.ts";

/** EtherType of RARP (RFC 903). */
const ETH_P_RARP = 0x8035;
/** Bytes of the shortest Ethernet frame, without its check sequence. */
const SHORTEST = 60;

/**
 * A frame to everybody that shows switches behind which port an address is: a request of RARP from the address about itself,
 * since that needs no IP address (virtio 1.4, 5.1.9.5.4). Nobody answers it who is not a server of RARP.
 *
 * @param mac 6 bytes.
 */
export function announcement(mac: Uint8Array): Uint8Array {
  const frame = new Uint8Array(SHORTEST);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, 6);
  frame.set(mac, 6);
  view.setUint16(12, ETH_P_RARP);
  // Ethernet, IPv4, their sizes of addresses, "request reverse".
  view.setUint16(14, 1);
  view.setUint16(16, 0x0800);
  view.setUint8(18, 6);
  view.setUint8(19, 4);
  view.setUint16(20, 3);
  frame.set(mac, 22);
  frame.set(mac, 32);
  return frame;
}

/** Announces a driver when the device asks for it (5.1.9.5.4.1). */
export class Announcer {
  readonly #driver: NetDriver;
  readonly #look: () => void;
  #busy = false;
  /** The device asked again meanwhile. */
  #again = false;

  /** @param look Looks again whether the device asks. */
  constructor(driver: NetDriver, look: () => void) {
    this.#driver = driver;
    this.#look = look;
  }

  /** VIRTIO_NET_S_ANNOUNCE was seen. */
  asked(): void {
    if (this.#busy) this.#again = true;
    else void this.#announce();
  }

  /** Tells the network, then the device. */
  async #announce(): Promise<void> {
    const driver = this.#driver;
    this.#busy = true;
    this.#again = false;
    let done = false;
    try {
      const frame = announcement(driver.mac);
      while (!driver.sendBytes(frame)) await driver.ready();
      driver.onAnnounce?.();
      driver.flush();
      await driver.control.acknowledgeAnnounce();
      done = true;
    } catch {
      // The device was given up, or does not take the command: there is nothing else to be done about it.
    }
    this.#busy = false;
    // Not without having been asked: a device that never clears the bit would be announced for ever.
    if (done && this.#again) this.#look();
  }
}

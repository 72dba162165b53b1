/**
 * A switch: many devices, and programs of the host, on one Ethernet.
 *
 * This module is browser compatible.
 *
 * @module
 */
import { checkInteger } from "@virtio/device";
import {
  ETHERNET_HEADER_SIZE,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_UDP,
} from "../constants.ts";
import { ethernetSize } from "../ethernet.ts";
import type { Frame } from "../frame.ts";
import { type Clock, coarseClock } from "./clock.ts";
import { formatMac } from "./mac_address.ts";
import { Learned, MacTable } from "./mac_table.ts";
import { Count, Drop } from "./port_counters.ts";
import { Port, type PortHost } from "./switch_port.ts";
import type { SwitchOptions, SwitchPort, SwitchPortOptions } from "./switch_options.ts";
import { Turn } from "./turn.ts";
import {
  hasInnerTag,
  hasTag,
  insertTag,
  removeTag,
  setTagControl,
  tagControl,
} from "./vlan_tag.ts";

export type { Clock } from "./clock.ts";
export type {
  DropReason,
  FloodLimit,
  SwitchOptions,
  SwitchPort,
  SwitchPortCounters,
  SwitchPortOptions,
  Trunk,
} from "./switch_options.ts";

const UDP_HEADER_SIZE = 8;
/** Bits of a frame's number that say by which port it came; those above say which of the port's lives it was. */
const PORT_BITS = 12;
const PORT_MASK = (1 << PORT_BITS) - 1;
const LIVES = 1 << 18;

/** A station that was heard. */
export interface Station {
  /** As text, with colons. */
  readonly mac: string;
  /** Of its frames; 0 for those without a tag on a port without VLANs. */
  readonly vlan: number;
  /** Where it is. */
  readonly port: SwitchPort;
}

/**
 * A learning switch. Each `port` is a back end for a network device.
 *
 * It remembers behind which port each station was heard, within bounds, and sends frames for a station there alone; frames
 * for groups, and for stations that it does not know, go to all ports of their VLAN, as often as the sender's limit allows.
 * A frame never leaves by the port by which it came. Frames pass as they are, unsegmented and with partial checksums, where
 * the receiver takes that.
 *
 * Ports of one switch must not be joined by another way: there is no spanning tree.
 *
 * On the way from a device to another nothing is copied but by the receiver, and nothing is allocated.
 *
 * @example Two ports, and a program of the host that answers
 * ```ts
 * import { Frame } from "@virtio/net";
 * import { Switch } from "@virtio/net/switch";
 * import { assertEquals } from "@std/assert";
 *
 * const network = new Switch();
 * const guest = network.port({ name: "guest" }); // new NetDevice({ backend: guest })
 * const host = network.port({ name: "host" });
 * host.listen((frame) => {
 *   const answer = new Frame().fromFrame(frame);
 *   answer.buffer.copyWithin(0, 6, 12); // back to the sender
 *   answer.buffer.set([2, 0, 0, 0, 0, 9], 6);
 *   host.send(answer);
 * });
 * const got: number[] = [];
 * guest.listen((frame) => got.push(frame.view.getUint8(11)));
 * const hello = new Frame().fromBytes(new Uint8Array(60));
 * hello.buffer.set([255, 255, 255, 255, 255, 255, 2, 0, 0, 0, 0, 1]);
 * guest.send(hello);
 * assertEquals(got, [9]);
 * assertEquals([...network.stations()].map(({ mac, port }) => `${mac} ${port.name}`).sort(), [
 *   "02:00:00:00:00:01 guest",
 *   "02:00:00:00:00:09 host",
 * ]);
 * ```
 */
export class Switch {
  readonly #clock: Clock;
  readonly #onError: SwitchOptions["onError"];
  readonly #table: MacTable;
  /** Addresses that belong to one port. */
  readonly #locks: MacTable;
  /** By index; null where there is none. */
  readonly #ports: (Port | null)[] = [];
  /** How many ports had each index. */
  readonly #lives: number[] = [];
  /** The ports that there are. */
  #open: readonly Port[] = [];
  readonly #maxPorts: number;
  /** To whom the frame in hand goes; made shorter only when a port goes, since that costs an allocation. */
  #targets: Port[] = [];
  readonly #turn: Turn = new Turn((frame, number) => this.#handle(frame, number));
  readonly #host: PortHost = {
    enter: (frame, port) => this.#enter(frame, port),
    down: (port) => this.#table.forgetPort(port.index),
    remove: (port) => this.#remove(port),
  };
  /** What a receiver threw while the frame in hand was given out. */
  #thrown: { readonly error: unknown } | null = null;

  /** @throws {RangeError} If an option is out of range. */
  constructor(options: SwitchOptions = {}) {
    this.#maxPorts = checkInteger("maxPorts", options.maxPorts, 1, 1 << PORT_BITS, 256);
    const stations = checkInteger("maxStations", options.maxStations, 1, 1 << 20, 8192);
    const age = options.age ?? 300;
    if (!(age > 0)) throw new RangeError(`age must be above 0 seconds: it is ${age}`);
    this.#clock = options.clock ?? coarseClock;
    this.#onError = options.onError;
    this.#table = new MacTable(stations, this.#maxPorts, age * 1000);
    this.#locks = new MacTable(this.#maxPorts, this.#maxPorts, Infinity);
  }

  /** The ports that there are. */
  get ports(): readonly SwitchPort[] {
    return this.#open;
  }

  /** Stations that are remembered; old ones that were not yet noticed included. */
  get size(): number {
    return this.#table.size;
  }

  /**
   * Adds a port.
   *
   * @throws {RangeError} If an option is out of range, another port has its MAC address, or there are too many ports.
   * @throws {TypeError} If options contradict each other.
   */
  port(options: SwitchPortOptions = {}): SwitchPort {
    let index = this.#ports.indexOf(null);
    if (index < 0) index = this.#ports.length;
    if (index >= this.#maxPorts) {
      throw new RangeError(
        `A switch has ${this.#maxPorts} ports at most: close one, or raise maxPorts`,
      );
    }
    const port = new Port(this.#host, index, options);
    const { lock } = port;
    if (lock !== null) {
      const other = this.#locks.find(lock.high, lock.low, 0, 0);
      if (other >= 0) {
        throw new RangeError(
          `The MAC address ${formatMac(lock)} belongs to ${this.#ports[other]!.name} already`,
        );
      }
      this.#locks.learn(lock.high, lock.low, 0, index, 1, 0);
    }
    this.#ports[index] = port;
    this.#lives[index] ??= 0;
    this.#open = this.#ports.filter((each) => each !== null);
    return port;
  }

  /** Which stations are remembered. */
  *stations(): Generator<Station> {
    for (const entry of this.#table.entries(this.#clock())) {
      yield { mac: formatMac(entry), vlan: entry.vlan, port: this.#ports[entry.port]! };
    }
  }

  /** Closes all ports. */
  close(): void {
    for (const port of this.#open) port.close();
    this.#turn.clear();
  }

  #remove(port: Port): void {
    const { index } = port;
    this.#table.forgetPort(index);
    this.#locks.forgetPort(index);
    this.#ports[index] = null;
    this.#targets = [];
    // What came by this port and still waits is not the next one's.
    this.#lives[index] = (this.#lives[index]! + 1) % LIVES;
    this.#open = this.#ports.filter((each) => each !== null);
  }

  #enter(frame: Frame, port: Port): void {
    const { counts } = port;
    counts[Count.framesIn]!++;
    counts[Count.bytesIn]! += frame.length;
    if (!port.linkUp) {
      counts[Drop.down]!++;
      return;
    }
    if (port.tap !== null) port.tap(frame, "sent", 0);
    const number = port.index | this.#lives[port.index]! << PORT_BITS;
    if (!this.#turn.take(frame, number)) counts[Drop.overrun]!++;
  }

  #handle(frame: Frame, number: number): void {
    const from = this.#ports[number & PORT_MASK];
    if (from == null || this.#lives[from.index] !== number >>> PORT_BITS) return;
    const reason = from.linkUp ? this.#forward(frame, from) : Drop.down;
    if (reason >= 0) from.counts[reason]!++;
    const thrown = this.#thrown;
    if (thrown === null) return;
    this.#thrown = null;
    throw thrown.error;
  }

  /** @returns The counter of the reason why the frame went nowhere; -1 if it was sent. */
  #forward(frame: Frame, from: Port): number {
    if (frame.length < ETHERNET_HEADER_SIZE) return Drop.short;
    const { view } = frame;
    const toHigh = view.getUint32(0) >>> 8;
    const toLow = view.getUint32(2) & 0xff_ffff;
    const high = view.getUint32(6) >>> 8;
    const low = view.getUint32(8) & 0xff_ffff;
    if ((high & 0x01_0000) !== 0 || (high | low) === 0) return Drop.source;
    const vlan = from.vlans.classify(frame);
    if (vlan < 0) return Drop.vlan;
    if (!this.#maySend(from, high, low)) return Drop.spoofed;
    const now = this.#clock();
    this.#learn(from, high, low, vlan, now);
    if ((toHigh & 0x01_0000) !== 0) {
      if (toHigh === 0x01_80c2 && (toLow & 0xff_fff0) === 0) return Drop.reserved;
      return this.#flood(frame, from, vlan, now);
    }
    // A locked address is its port's, whoever was heard with it before.
    let index = this.#locks.size > 0 ? this.#locks.find(toHigh, toLow, 0, 0) : -1;
    if (index < 0) index = this.#table.find(toHigh, toLow, vlan, now);
    if (index < 0) return this.#flood(frame, from, vlan, now);
    const to = this.#ports[index]!;
    if (!mayReach(from, to, vlan)) return Drop.filtered;
    this.#send(frame, to, vlan);
    return -1;
  }

  #maySend(from: Port, high: number, low: number): boolean {
    const { lock } = from;
    if (lock !== null) return lock.high === high && lock.low === low;
    return this.#locks.size === 0 || this.#locks.find(high, low, 0, 0) < 0;
  }

  #learn(from: Port, high: number, low: number, vlan: number, now: number): void {
    const learned = this.#table.learn(high, low, vlan, from.index, from.maxStations, now);
    if (learned === Learned.moved) from.counts[Count.moves]!++;
    else if (learned === Learned.refused) from.counts[Count.unlearned]!++;
  }

  #flood(frame: Frame, from: Port, vlan: number, now: number): number {
    from.counts[Count.flooded]!++;
    if (!from.bucket.take(now)) return Drop.flood;
    // Whoever gets the frame may add and remove ports.
    const targets = this.#targets;
    let count = 0;
    for (const port of this.#open) {
      if (port.linkUp && mayReach(from, port, vlan)) targets[count++] = port;
    }
    if (count > 1) frame.hold();
    for (let i = 0; i < count; i++) {
      if (i > 0) frame.rewind();
      this.#send(frame, targets[i]!, vlan);
    }
    return -1;
  }

  /** Sends a frame by a port, with or without a tag as the port wants it. The frame stays as it is. */
  #send(frame: Frame, to: Port, vlan: number): void {
    if (to.maxMtu < 65_535 && packetSize(frame) > to.maxMtu) {
      to.counts[Drop.long]!++;
      return;
    }
    const bare = to.vlans.native === vlan;
    if (!hasTag(frame)) {
      if (bare) this.#give(frame, to);
      else if (insertTag(frame, vlan)) {
        this.#give(frame, to);
        removeTag(frame);
      } else to.counts[Drop.long]!++;
      return;
    }
    const control = tagControl(frame);
    if (bare && vlan !== 0) {
      // What is under the tag must not become a tag: it would name a VLAN that nobody allowed.
      if (hasInnerTag(frame)) {
        to.counts[Drop.vlan]!++;
        return;
      }
      removeTag(frame);
      this.#give(frame, to);
      insertTag(frame, control);
    } else if ((control & 0xfff) === vlan) this.#give(frame, to);
    else {
      setTagControl(frame, control & 0xf000 | vlan);
      this.#give(frame, to);
      setTagControl(frame, control);
    }
  }

  #give(frame: Frame, to: Port): void {
    try {
      to.emit(frame);
    } catch (error) {
      to.counts[Drop.error]!++;
      if (this.#onError !== undefined) this.#onError(error, to);
      else this.#thrown ??= { error };
    }
  }
}

/** Whether frames of a VLAN go from one port to another. */
function mayReach(from: Port, to: Port, vlan: number): boolean {
  return from !== to && !(from.isolated && to.isolated) && to.vlans.has(vlan);
}

/** The largest packet that the frame becomes. */
function packetSize(frame: Frame): number {
  const header = ethernetSize(frame);
  if (frame.gsoType === VIRTIO_NET_HDR_GSO_NONE) return frame.length - header;
  // Of fragments, `gso_size` counts the UDP header too.
  const udp = frame.gsoType === VIRTIO_NET_HDR_GSO_UDP ? UDP_HEADER_SIZE : 0;
  return Math.min(frame.length, frame.headerLength - udp + frame.gsoSize) - header;
}

import { type FeatureSet, hasFeature } from "@virtio/device";
import type { ChainReader } from "@virtio/vring";
import {
  ETHERNET_HEADER_SIZE,
  VIRTIO_NET_F_CTRL_RX,
  VIRTIO_NET_F_CTRL_VLAN,
  VIRTIO_NET_F_MAC,
} from "../constants.ts";
import type { Frame } from "../frame.ts";
import { VIRTIO_NET_CTRL_RX_NOBCAST } from "./constants.ts";
import { MacSet } from "./mac_set.ts";
import { isBytes, isCount, isList, malformed, record } from "./saved.ts";
import { VlanTable } from "./vlan.ts";

// To the compiler names of this module are constants; imported names are looked up at every use.
const SHORTEST = ETHERNET_HEADER_SIZE;
/** Bytes of a MAC address. */
const MAC_SIZE = 6;
/** Bit of the first two bytes of an address: it is one of a group. */
const GROUP = 0x100;
/** EtherType of the tags that the VLAN filter is about. Outer tags of providers (802.1ad) are none of them. */
const ETH_P_8021Q = 0x8100;

// The modes, one bit for each command of VIRTIO_NET_CTRL_RX.
const PROMISC = 1;
const ALLMULTI = 2;
const ALLUNI = 4;
const NOMULTI = 8;
const NOUNI = 16;
const NOBCAST = 32;
const MODES = 63;

/** The filter's state as plain data. */
export interface SavedFilter {
  /** Bit n is the mode of command n of VIRTIO_NET_CTRL_RX. */
  readonly modes: number;
  /** The device's own address. */
  readonly mac: readonly number[];
  /** Whether the driver set it. */
  readonly macSet: boolean;
  /** The unicast table. */
  readonly unicast: readonly (readonly number[])[];
  /** The multicast table. */
  readonly multicast: readonly (readonly number[])[];
  /** Bit 0: the multicast table did not fit, bit 1: the unicast table. */
  readonly overflow: number;
  /** VLAN ids. */
  readonly vlans: readonly number[];
}

/**
 * Which frames the driver wants (virtio 1.4, 5.1.9.5.1 to 5.1.9.5.3).
 *
 * A frame that is asked for is never dropped; one that is not may arrive all the same: a table with more addresses than there
 * is room for lets all of its kind in. A driver without VIRTIO_NET_F_CTRL_RX cannot say what it wants, and gets everything;
 * one that accepted neither VIRTIO_NET_F_MAC nor sets an address chose its own, and gets every unicast frame.
 *
 * Hot path: nothing is allocated for a frame.
 */
export class ReceiveFilter {
  #modes = 0;
  /** Modes that are on because nothing else is known, by kind of frame: ALLUNI, ALLMULTI. */
  #open: number = ALLUNI | ALLMULTI;
  /** Tables that did not fit: ALLUNI, ALLMULTI. */
  #overflow = 0;
  #macHigh = 0;
  #macLow = 0;
  #macSet = false;
  #controlled = false;
  /** Whether every frame is wanted, since the driver cannot say anything else. */
  #all = true;
  #addressed = false;
  #vlanFilter = false;
  #unicast: MacSet;
  #multicast: MacSet;
  /** The tables that a command is filling. */
  #nextUnicast: MacSet;
  #nextMulticast: MacSet;
  readonly #vlans: VlanTable = new VlanTable();

  /** @param entries Addresses that each table has room for. */
  constructor(entries: number) {
    this.#unicast = new MacSet(entries);
    this.#multicast = new MacSet(entries);
    this.#nextUnicast = new MacSet(entries);
    this.#nextMulticast = new MacSet(entries);
  }

  /** What is received before the driver says more (5.1.9.5.2.1, 5.1.9.5.3). */
  reset(features: FeatureSet, mac: Uint8Array): void {
    this.#modes = 0;
    this.#overflow = 0;
    this.#unicast.clear();
    this.#multicast.clear();
    this.#vlans.clear();
    this.#controlled = hasFeature(features, VIRTIO_NET_F_CTRL_RX);
    this.#addressed = hasFeature(features, VIRTIO_NET_F_MAC);
    this.#vlanFilter = hasFeature(features, VIRTIO_NET_F_CTRL_VLAN);
    this.#all = !this.#controlled && !this.#vlanFilter;
    this.#own(mac, false);
  }

  /** Whether the driver wants a frame. Looks at its Ethernet header only. */
  accepts(frame: Frame): boolean {
    return frame.headLength >= SHORTEST && (this.#all || this.#wants(frame));
  }

  #wants(frame: Frame): boolean {
    const modes = this.#modes;
    if ((modes & PROMISC) !== 0) return true;
    const { view } = frame;
    if (this.#vlanFilter && view.getUint16(12) === ETH_P_8021Q) {
      if (frame.headLength < ETHERNET_HEADER_SIZE + 2) return false;
      if (!this.#vlans.has(view.getUint16(14) & 0xfff)) return false;
    }
    const high = view.getUint16(0);
    const low = view.getInt32(2);
    if ((high & GROUP) === 0) {
      if ((modes & NOUNI) !== 0) return false;
      if (((modes | this.#open) & ALLUNI) !== 0) return true;
      return low === this.#macLow && high === this.#macHigh || this.#unicast.has(high, low);
    }
    if (high === 0xffff && low === -1) return (modes & NOBCAST) === 0;
    if ((modes & NOMULTI) !== 0) return false;
    return ((modes | this.#open) & ALLMULTI) !== 0 || this.#multicast.has(high, low);
  }

  /** A command of VIRTIO_NET_CTRL_RX. @returns Whether it was right. */
  setMode(command: number, value: number): boolean {
    if (value > 1 || command > VIRTIO_NET_CTRL_RX_NOBCAST) return false;
    if (value === 1) this.#modes |= 1 << command;
    else this.#modes &= ~(1 << command);
    return true;
  }

  /** VIRTIO_NET_CTRL_MAC_ADDR_SET. @returns False if it is a group's address. */
  setMac(mac: Uint8Array): boolean {
    if ((mac[0]! & 1) !== 0) return false;
    this.#own(mac, true);
    return true;
  }

  /**
   * VIRTIO_NET_CTRL_MAC_TABLE_SET: both tables, or neither. Addresses that there is no room for are not looked at, so that no
   * command costs more than the tables are worth.
   *
   * @returns Whether the command was right.
   */
  setTables(reader: ChainReader): boolean {
    const unicast = readTable(reader, this.#nextUnicast, 0);
    if (unicast === BAD) return false;
    const multicast = readTable(reader, this.#nextMulticast, GROUP);
    if (multicast === BAD || reader.remaining > 0) return false;
    [this.#unicast, this.#nextUnicast] = [this.#nextUnicast, this.#unicast];
    [this.#multicast, this.#nextMulticast] = [this.#nextMulticast, this.#multicast];
    this.#overflow = (unicast === OVERFLOW ? ALLUNI : 0) | (multicast === OVERFLOW ? ALLMULTI : 0);
    this.#opens();
    return true;
  }

  /** VIRTIO_NET_CTRL_VLAN. @returns False if there is no such VLAN. */
  setVlan(id: number, present: boolean): boolean {
    return this.#vlans.set(id, present);
  }

  /** What `restore` takes. */
  save(): SavedFilter {
    const high = this.#macHigh;
    const low = this.#macLow;
    return {
      modes: this.#modes,
      mac: [high >>> 8, high & 255, low >>> 24, low >>> 16 & 255, low >>> 8 & 255, low & 255],
      macSet: this.#macSet,
      unicast: [...this.#unicast.entries()],
      multicast: [...this.#multicast.entries()],
      overflow: this.#overflow / ALLMULTI,
      vlans: [...this.#vlans.ids()],
    };
  }

  /** Checks what `save` gave. @throws {TypeError} If it is malformed. */
  check(saved: unknown): SavedFilter {
    const state = record<SavedFilter>(saved, "filter");
    const table = (entries: unknown, group: number): boolean =>
      isList(
        entries,
        this.#unicast.capacity,
        (entry) => isBytes(entry, MAC_SIZE) && (entry[0]! & 1) === group,
      );
    if (
      !isCount(state.modes, MODES) || !isCount(state.overflow, 3) ||
      typeof state.macSet !== "boolean" || !isBytes(state.mac, MAC_SIZE) ||
      !table(state.unicast, 0) || !table(state.multicast, 1) ||
      !isList(state.vlans, 4096, (id) => isCount(id, 4095))
    ) throw malformed("filter");
    return state;
  }

  /** Takes over what `check` gave back; `reset` came before. */
  restore(state: SavedFilter): void {
    this.#modes = state.modes;
    this.#overflow = state.overflow * ALLMULTI;
    fill(this.#unicast, state.unicast);
    fill(this.#multicast, state.multicast);
    for (const id of state.vlans) this.#vlans.set(id, true);
    this.#own(Uint8Array.from(state.mac), state.macSet);
  }

  #own(mac: Uint8Array, set: boolean): void {
    this.#macHigh = mac[0]! * 256 + mac[1]!;
    this.#macLow = mac[2]! << 24 | mac[3]! << 16 | mac[4]! << 8 | mac[5]!;
    this.#macSet = set;
    this.#opens();
  }

  #opens(): void {
    const known = this.#macSet || this.#addressed;
    if (!this.#controlled) this.#open = ALLUNI | ALLMULTI;
    else this.#open = this.#overflow | (known ? 0 : ALLUNI);
  }
}

/** What `readTable` says. */
const FITS = 0;
const OVERFLOW = 1;
const BAD = 2;

/** Reads a `struct virtio_net_ctrl_mac` whose addresses all have the group bit, or none. */
function readTable(reader: ChainReader, into: MacSet, group: number): number {
  into.clear();
  if (reader.remaining < 4) return BAD;
  const entries = reader.u32();
  if (reader.remaining < entries * MAC_SIZE) return BAD;
  for (let i = 0; i < entries; i++) {
    // Duplicates of what is there do not fill it, but they are looked at, so they count.
    if (i === into.capacity) {
      reader.skip((entries - i) * MAC_SIZE);
      return OVERFLOW;
    }
    const at = reader.struct(MAC_SIZE);
    const high = reader.view.getUint16(at);
    if ((high & GROUP) !== group) return BAD;
    into.add(high, reader.view.getInt32(at + 2));
  }
  return FITS;
}

function fill(set: MacSet, entries: readonly (readonly number[])[]): void {
  set.clear();
  for (const entry of entries) {
    const [a, b, c, d, e, f] = entry as [number, number, number, number, number, number];
    set.add(a * 256 + b, c << 24 | d << 16 | e << 8 | f);
  }
}

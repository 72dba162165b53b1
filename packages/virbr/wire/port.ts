import {
  ETHERNET_HEADER_SIZE,
  type Frame,
  type FrameSink,
  type FrameTap,
  type NetBackend,
  Offload,
  pass,
} from "@virtio/net";
import { type MacAddress, parseStationMac, TokenBucket } from "@virtio/net/wire";
import type { SwitchPort } from "@virtio/net/switch";
import type { Station } from "./station.ts";

/** Options of `Virbr.port`; all have defaults. */
export interface VirbrPortOptions {
  /** For people and captures; `port0` and so on unless given. The name of the guest too, unless its lease has one. */
  readonly name?: string;
  /** The only MAC address that may send on this port, as 52:54:00:12:34:56 or 6 bytes; any that is free unless given. */
  readonly mac?: string | Uint8Array;
  /**
   * MAC addresses that may be behind the port at a time, 1 to 1024; 8 unless given, since a guest may have stations of its
   * own. More for a port that leads to another network.
   */
  readonly maxStations?: number;
  /**
   * Leases that DHCP gives to stations behind the port at a time, 1 to 65,536; `maxStations` unless given. Those that belong to
   * a MAC address by the options do not count. Who is gone makes room. Ports of one name have one share.
   */
  readonly maxLeases?: number;
  /** An isolated port reaches the gateway, and ports that are not isolated; no unless given. */
  readonly isolated?: boolean;
  /** Frames a second that go to several ports; 10,000 unless given, half of that at once. */
  readonly floodRate?: number;
  /**
   * Bytes a second that the device behind the port may send, at least 1,000; as the network's `sendRate` unless given. A quarter
   * of a second's are let through at once, and four of the largest frames; what is more is dropped and counted.
   */
  readonly sendRate?: number;
  /** The same of what it receives. */
  readonly receiveRate?: number;
  /** Sees each frame that the device behind the port sent or received, for captures. */
  readonly tap?: FrameTap;
}

/** What a port may have, checked. */
export interface PortLimits {
  readonly maxStations: number;
  readonly maxLeases: number;
  readonly maxMtu: number;
  /** Bytes a second that the device behind it sends; Infinity for no limit. */
  readonly sendRate: number;
  /** The same of what it receives. */
  readonly receiveRate: number;
  /** Milliseconds. */
  readonly clock: () => number;
}

/** Why frames of a port went nowhere. */
export interface PortDrops {
  /** It spoke for somebody else: a MAC address, an address. */
  readonly spoofed: number;
  /** No frame that anybody understands. */
  readonly malformed: number;
  /** It claims to give out addresses or to be a router. */
  readonly rogue: number;
  /** It has a VLAN tag: there are no VLANs here. */
  readonly tagged: number;
  /** Nobody is behind the port, or it was closed. */
  readonly down: number;
  /** More than `sendRate` or `receiveRate` let through. */
  readonly limited: number;
}

/** What a port counted. */
export interface PortStats {
  /** Frames that the device behind the port sent. */
  readonly framesIn: number;
  /** Bytes of those. */
  readonly bytesIn: number;
  /** Frames that it received. */
  readonly framesOut: number;
  /** Bytes of those. */
  readonly bytesOut: number;
  /** Frames that went nowhere. */
  readonly drops: PortDrops;
}

/** A port of the network: the back end of a network device. */
export interface VirbrPort extends NetBackend {
  /** For people. */
  readonly name: string;
  /** What was counted until now. */
  readonly stats: PortStats;
  /** Whether the cable is plugged in; settable. */
  up: boolean;
  /** Whether it was closed. */
  readonly closed: boolean;
  /** Sees each frame that the device behind the port sent or received. */
  tap: FrameTap | null;
  /** Plugs a back end in instead of a device: a stream to another process, a tap. */
  plug(backend: NetBackend): void;
  /** Takes the port out of the network. Its guests are forgotten, their leases are not. */
  close(): void;
}

/** What a port needs of its network. */
export interface PortOwner {
  /** A frame comes in. */
  enter(frame: Frame, port: GuestPort): void;
  /** Whoever was behind the port is no more. */
  down(port: GuestPort): void;
  /** The port is no more. */
  remove(port: GuestPort): void;
}

/** At once: less, and the largest frame would never pass, or TCP get no further. */
const LEAST_BURST = 4 * 65_550;

function bucketOf(rate: number): TokenBucket | null {
  return rate === Infinity ? null : new TokenBucket(rate, Math.max(rate / 4, LEAST_BURST));
}

/** A port, with what the network has to know of it. */
export class GuestPort implements VirbrPort {
  readonly name: string;
  readonly offloads: number = Offload.all;
  readonly maxMtu: number;
  readonly lock: MacAddress | null;
  readonly maxStations: number;
  readonly maxLeases: number;
  /** Stations behind it. */
  stations = 0;
  /** The one that was heard last. */
  last: Station | null = null;
  /** Limits searches for room. */
  readonly search: TokenBucket = new TokenBucket(10, 10);
  /** The place on the switch. */
  readonly inner: SwitchPort;
  /** Frames and bytes in and out, then drops: spoofed, malformed, rogue, tagged, down, limited. */
  readonly counts: Float64Array = new Float64Array(10);
  tap: FrameTap | null;
  onLinkChange: (() => void) | null = null;
  readonly #owner: PortOwner;
  readonly #clock: () => number;
  /** Null without a limit. */
  readonly #sent: TokenBucket | null;
  readonly #received: TokenBucket | null;
  #peer: FrameSink | null = null;
  #up = true;
  #closed = false;

  constructor(
    owner: PortOwner,
    inner: SwitchPort,
    options: VirbrPortOptions,
    limits: PortLimits,
  ) {
    this.#owner = owner;
    this.#clock = limits.clock;
    this.#sent = bucketOf(limits.sendRate);
    this.#received = bucketOf(limits.receiveRate);
    this.inner = inner;
    this.name = inner.name;
    this.maxMtu = limits.maxMtu;
    this.lock = options.mac === undefined ? null : parseStationMac(options.mac);
    this.maxStations = limits.maxStations;
    this.maxLeases = limits.maxLeases;
    this.tap = options.tap ?? null;
    const peerOffloads = (): number => this.#peer?.offloads ?? Offload.all;
    inner.connect({
      get offloads(): number {
        return peerOffloads();
      },
      deliver: (frame) => this.emit(frame),
    });
  }

  get linkUp(): boolean {
    return this.#up && !this.#closed;
  }

  get up(): boolean {
    return this.#up;
  }

  set up(up: boolean) {
    if (up === this.#up) return;
    this.#up = up;
    this.inner.up = up;
    if (this.#closed) return;
    if (!up) this.#owner.down(this);
    this.onLinkChange?.();
  }

  get closed(): boolean {
    return this.#closed;
  }

  get stats(): PortStats {
    const c = this.counts;
    return {
      framesIn: c[0]!,
      bytesIn: c[1]!,
      framesOut: c[2]!,
      bytesOut: c[3]!,
      drops: {
        spoofed: c[4]!,
        malformed: c[5]!,
        rogue: c[6]!,
        tagged: c[7]!,
        down: c[8]!,
        limited: c[9]!,
      },
    };
  }

  /** Whether somebody is there to receive. */
  get reachable(): boolean {
    return this.#peer !== null && this.#up && !this.#closed;
  }

  /** Whether the device behind the port takes unfinished frames of this kind, bits of `Offload`. */
  takes(offloads: number): boolean {
    return this.#peer !== null && (this.#peer.offloads & offloads) === offloads;
  }

  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  plug(backend: NetBackend): void {
    const follow = (): void => {
      this.up = backend.linkUp ?? true;
    };
    backend.onLinkChange = follow;
    follow();
    this.connect(backend);
    backend.connect(this);
  }

  deliver(frame: Frame): void {
    const { counts } = this;
    counts[0]!++;
    counts[1]! += frame.length;
    if (!this.linkUp) counts[8]!++;
    else if (frame.length < ETHERNET_HEADER_SIZE) counts[5]!++;
    else if (this.#sent !== null && !this.#sent.take(this.#clock(), frame.length)) counts[9]!++;
    else {
      if (this.tap !== null) this.tap(frame, "sent", 0);
      this.#owner.enter(frame, this);
    }
  }

  /** Gives a frame to whoever is behind the port. */
  emit(frame: Frame): void {
    const { counts } = this;
    const peer = this.#peer;
    if (peer === null || !this.linkUp) {
      counts[8]!++;
      return;
    }
    const { length } = frame;
    if (this.#received !== null && !this.#received.take(this.#clock(), length)) {
      counts[9]!++;
      return;
    }
    if (this.tap !== null) this.tap(frame, "received", 0);
    if (!pass(frame, peer)) {
      counts[5]!++;
      return;
    }
    counts[2]!++;
    counts[3]! += length;
  }

  /** A station is no more. */
  forget(station: Station): void {
    if (this.last === station) this.last = null;
  }

  close(): void {
    if (this.#closed) return;
    const wasUp = this.linkUp;
    this.#closed = true;
    this.inner.close();
    this.#owner.remove(this);
    if (wasUp) this.onLinkChange?.();
  }
}

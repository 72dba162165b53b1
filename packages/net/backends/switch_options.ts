import type { Frame } from "../frame.ts";
import type { FrameTap } from "../options.ts";
import type { NetBackend } from "../sink.ts";
import type { Clock } from "./clock.ts";

/** Options of a `Switch`; all have defaults. */
export interface SwitchOptions {
  /** The most ports at a time, 1 to 4096; 256 unless given. */
  readonly maxPorts?: number;
  /** The most stations that are remembered, 1 to 1,048,576; 8192 unless given. */
  readonly maxStations?: number;
  /** Seconds after which a station that was not heard is forgotten; 300 unless given. */
  readonly age?: number;
  /** Milliseconds, never backwards; the host's clock unless given. It is read for each frame. */
  readonly clock?: Clock;
  /**
   * Told when whoever is behind a port throws while it gets a frame. Unless given, what was thrown is thrown on to the
   * sender, after all others got their frames.
   */
  readonly onError?: (error: unknown, port: SwitchPort) => void;
}

/** Several VLANs on one port, told apart by tags of IEEE 802.1Q. */
export interface Trunk {
  /** The VLANs, 1 to 4094; "all" unless given. */
  readonly vlans?: readonly number[] | "all";
  /**
   * The VLAN whose frames have no tag on this port; null for none: frames without a tag are dropped then. Unless given 0,
   * which is the VLAN of frames that have no tag anywhere.
   */
  readonly native?: number | null;
}

/** How often frames may go to several ports. */
export interface FloodLimit {
  /** Frames a second; 10,000 unless given. Infinity: no limit. */
  readonly rate?: number;
  /** Frames at once; 5,000 unless given. */
  readonly burst?: number;
}

/** Options of a port; all have defaults. */
export interface SwitchPortOptions {
  /** For people, captures and counters; `port0` and so on unless given. */
  readonly name?: string;
  /** An access port of this VLAN, 0 to 4094: frames have no tags on it. Not together with `trunk`. */
  readonly vlan?: number;
  /** Which VLANs pass, and how. Unless `vlan` or `trunk` is given all pass as they are, tags and all. */
  readonly trunk?: Trunk;
  /** An isolated port reaches only ports that are not isolated, such as an uplink; no unless given. */
  readonly isolated?: boolean;
  /**
   * The only MAC address that may send on this port, 6 bytes or "52:54:00:12:34:56". No other port may use it then.
   */
  readonly mac?: Uint8Array | string;
  /** The most stations that are remembered at this port; 1024 unless given. */
  readonly maxStations?: number;
  /** How often it may send frames that go to several ports: broadcast, multicast, and to stations that are not known. */
  readonly flood?: FloodLimit;
  /** Largest packet that leaves by this port, 68 to 65,535 bytes; 65,535 unless given. The driver is told. */
  readonly maxMtu?: number;
  /** Whether the cable is plugged in; yes unless given. */
  readonly up?: boolean;
  /** Sees each frame that the device behind the port sent or received, for captures; queue 0. */
  readonly tap?: FrameTap;
}

/** Why a port drops frames. */
export type DropReason =
  /** The port is down, or the switch is closed. */
  | "down"
  /** Shorter than an Ethernet header. */
  | "short"
  /** Longer than `maxMtu` of the port by which it would leave, or no room for a tag. */
  | "long"
  /** The sender's address is a group's, or zero. */
  | "source"
  /** The sender's address is not the port's own, or is that of another port. */
  | "spoofed"
  /** The VLAN does not pass the port. */
  | "vlan"
  /** To an address that no bridge passes on (IEEE 802.1Q, 8.6.3). */
  | "reserved"
  /** The receiver is at the port by which the frame came, or behind an isolated one. */
  | "filtered"
  /** Too many frames to several ports. */
  | "flood"
  /** Too many frames in answer to others. */
  | "overrun"
  /** What the net header says does not fit the frame. */
  | "malformed"
  /** Whoever is behind the port threw. */
  | "error";

/** What a port counted. */
export interface SwitchPortCounters {
  /** Frames that came in by the port, dropped ones included. */
  readonly framesIn: number;
  /** Bytes of those. */
  readonly bytesIn: number;
  /** Frames that left by the port. */
  readonly framesOut: number;
  /** Bytes of those. */
  readonly bytesOut: number;
  /** Frames that came in and went to several ports, or would have. */
  readonly flooded: number;
  /** Stations that came to this port from another one. */
  readonly moves: number;
  /** Stations that were not remembered, since there was no room. */
  readonly unlearned: number;
  /** Frames dropped, by reason; those that never came in or never left by this port. */
  readonly drops: Readonly<Record<DropReason, number>>;
}

/**
 * A port of a `Switch`: the back end of a network device, or, with `listen` and `send`, a place for a program of the host on
 * the network.
 */
export interface SwitchPort extends NetBackend {
  /** For people, captures and counters. */
  readonly name: string;
  /** Its number in the switch. That of a closed port is used again. */
  readonly index: number;
  /** Whether it reaches only ports that are not isolated. */
  readonly isolated: boolean;
  /** Largest packet that leaves by this port. */
  readonly maxMtu: number;
  /** Whether the cable leads somewhere: the port is up, and was not closed. */
  readonly linkUp: boolean;
  /** Told when `linkUp` changed. A device behind the port takes it. */
  onLinkChange: (() => void) | null;
  /** Sees each frame that the device behind the port sent or received. */
  tap: FrameTap | null;
  /** Whether the port is up. A port that is down passes no frames, and forgets who was behind it. */
  up: boolean;
  /** Whether it was closed. */
  readonly closed: boolean;
  /** What was counted until now. */
  readonly counters: SwitchPortCounters;
  /**
   * Puts a program of the host behind the port, in place of a device: `onFrame` gets the frames that leave by it. A frame is
   * valid during the call, and must not be changed. The program sends by `send`, at any time.
   *
   * @param offloads Which unfinished frames it takes, of `Offload`; none unless given.
   */
  listen(onFrame: (frame: Frame) => void, offloads?: number): void;
  /** Plugs another back end in, such as a tap or a stream: the way out of the switch. The port is up while its link is. */
  plug(backend: NetBackend): void;
  /** Sends a frame into the switch, as a device behind the port does; `deliver` by another name. */
  send(frame: Frame): void;
  /** Takes the port out of the switch. The device behind it sees its link go down. */
  close(): void;
}

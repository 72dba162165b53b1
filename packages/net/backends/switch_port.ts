import type { Frame } from "../frame.ts";
import type { FrameTap } from "../options.ts";
import { pass } from "../pass.ts";
import { type FrameSink, type NetBackend, Offload } from "../sink.ts";
import { type MacAddress, parseStationMac } from "./mac_address.ts";
import { Count, Drop, newCounts, readCounts } from "./port_counters.ts";
import { PortVlans } from "./port_vlans.ts";
import type { SwitchPortCounters, SwitchPortOptions } from "./switch_options.ts";
import { TokenBucket } from "./token_bucket.ts";

const MIN_MTU = 68;
const MAX_MTU = 65_535;

/** What a port needs of its switch. */
export interface PortHost {
  /** A frame comes in by a port. */
  enter(frame: Frame, port: SwitchPort): void;
  /** The port went down: nobody is behind it any more. */
  down(port: SwitchPort): void;
  /** The port is no more. */
  remove(port: SwitchPort): void;
}

/**
 * A port of a `Switch`: the back end of a network device, or, with `listen` and `send`, a place for a program of the host on
 * the network.
 */
export class SwitchPort implements NetBackend {
  /** For people, captures and counters. */
  readonly name: string;
  /** Its number in the switch. That of a closed port is used again. */
  readonly index: number;
  /** Whether it reaches only ports that are not isolated. */
  readonly isolated: boolean;
  /** Takes every frame: what a receiver cannot take is finished for it. */
  readonly offloads: number = Offload.all;
  /** Largest packet that leaves by this port. */
  readonly maxMtu: number;
  /** The only address that may send here; null if any may. */
  readonly lock: MacAddress | null;
  /** Which VLANs pass. */
  readonly vlans: PortVlans;
  /** The most stations that are remembered here. */
  readonly maxStations: number;
  /** Limits frames that go to several ports. */
  readonly bucket: TokenBucket;
  /** The counters; see `counters`. */
  readonly counts: Float64Array = newCounts();
  /** Sees each frame that the device behind the port sent or received. */
  tap: FrameTap | null;
  /** Told when `linkUp` changed. */
  onLinkChange: (() => void) | null = null;
  readonly #host: PortHost;
  #peer: FrameSink | null = null;
  #up: boolean;
  #closed = false;

  /**
   * Made by `Switch.port`.
   *
   * @throws {RangeError} If an option is out of range.
   * @throws {TypeError} If options contradict each other.
   */
  constructor(host: PortHost, index: number, options: SwitchPortOptions) {
    this.#host = host;
    this.index = index;
    this.name = options.name ?? `port${index}`;
    this.isolated = options.isolated ?? false;
    this.maxMtu = options.maxMtu ?? MAX_MTU;
    if (!(Number.isInteger(this.maxMtu) && this.maxMtu >= MIN_MTU && this.maxMtu <= MAX_MTU)) {
      throw new RangeError(
        `maxMtu is an integer from ${MIN_MTU} to ${MAX_MTU}: it is ${this.maxMtu}`,
      );
    }
    this.maxStations = options.maxStations ?? 1024;
    if (!(Number.isInteger(this.maxStations) && this.maxStations >= 0)) {
      throw new RangeError(`maxStations is an integer from 0: it is ${this.maxStations}`);
    }
    this.lock = options.mac === undefined ? null : parseStationMac(options.mac);
    this.vlans = new PortVlans(options);
    this.bucket = new TokenBucket(options.flood?.rate ?? 10_000, options.flood?.burst ?? 5_000);
    this.tap = options.tap ?? null;
    this.#up = options.up ?? true;
  }

  /** Whether the cable is plugged in. */
  get linkUp(): boolean {
    return this.#up && !this.#closed;
  }

  /** Whether the port is up. A port that is down passes no frames, and forgets who was behind it. */
  get up(): boolean {
    return this.#up;
  }

  set up(up: boolean) {
    if (up === this.#up) return;
    this.#up = up;
    if (this.#closed) return;
    if (!up) this.#host.down(this);
    this.onLinkChange?.();
  }

  /** What was counted until now. */
  get counters(): SwitchPortCounters {
    return readCounts(this.counts);
  }

  /** Says who is behind the port: frames that leave by it go to `peer`. Null for nobody. */
  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  /**
   * Puts a program of the host behind the port, in place of a device: `onFrame` gets the frames that leave by it. A frame is
   * valid during the call, and must not be changed. The program sends by `send`, at any time.
   *
   * @param offloads Which unfinished frames it takes, of `Offload`; none unless given.
   */
  listen(onFrame: (frame: Frame) => void, offloads: number = 0): void {
    this.connect({ offloads, deliver: onFrame });
  }

  /**
   * Plugs another back end in, such as a tap or a stream: the way out of the switch. The port is up while its link is.
   */
  plug(backend: NetBackend): void {
    const follow = (): void => {
      this.up = backend.linkUp ?? true;
    };
    backend.onLinkChange = follow;
    follow();
    this.connect(backend);
    backend.connect(this);
  }

  /** Sends a frame into the switch, as a device behind the port does. Needs no more than `Offload.all` to be finished. */
  send(frame: Frame): void {
    this.#host.enter(frame, this);
  }

  /** Takes a frame of the device behind the port. */
  deliver(frame: Frame): void {
    this.#host.enter(frame, this);
  }

  /** Takes the port out of the switch. The device behind it sees its link go down. */
  close(): void {
    if (this.#closed) return;
    const wasUp = this.linkUp;
    this.#closed = true;
    this.#host.remove(this);
    if (wasUp) this.onLinkChange?.();
  }

  /** Whether it was closed. */
  get closed(): boolean {
    return this.#closed;
  }

  /** For the switch: gives a frame to whoever is behind the port. */
  emit(frame: Frame): void {
    const { counts } = this;
    const peer = this.#peer;
    if (peer === null || !this.linkUp) {
      counts[Drop.down]!++;
      return;
    }
    const { length } = frame;
    if (this.tap !== null) this.tap(frame, "received", 0);
    if (!pass(frame, peer)) {
      counts[Drop.malformed]!++;
      return;
    }
    counts[Count.framesOut]!++;
    counts[Count.bytesOut]! += length;
  }
}

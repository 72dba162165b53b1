import { checkInteger } from "@virtio/device";
import type { Frame } from "../frame.ts";
import type { FrameTap } from "../options.ts";
import { pass } from "../pass.ts";
import { type FrameSink, type NetBackend, Offload } from "../sink.ts";
import { type MacAddress, parseStationMac } from "./mac_address.ts";
import { Count, Drop, newCounts, readCounts } from "./port_counters.ts";
import { PortVlans } from "./port_vlans.ts";
import type { SwitchPort, SwitchPortCounters, SwitchPortOptions } from "./switch_options.ts";
import { TokenBucket } from "./token_bucket.ts";

const MIN_MTU = 68;
const MAX_MTU = 65_535;

/** What a port needs of its switch. */
export interface PortHost {
  /** A frame comes in by a port. */
  enter(frame: Frame, port: Port): void;
  /** The port went down: nobody is behind it any more. */
  down(port: Port): void;
  /** The port is no more. */
  remove(port: Port): void;
}

/** A port, with what the switch has to know of it. */
export class Port implements SwitchPort {
  readonly name: string;
  readonly index: number;
  readonly isolated: boolean;
  readonly offloads: number = Offload.all;
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
  tap: FrameTap | null;
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
    this.maxMtu = checkInteger("maxMtu", options.maxMtu, MIN_MTU, MAX_MTU, MAX_MTU);
    this.maxStations = checkInteger("maxStations", options.maxStations, 0, Infinity, 1024);
    this.lock = options.mac === undefined ? null : parseStationMac(options.mac);
    this.vlans = new PortVlans(options);
    this.bucket = new TokenBucket(options.flood?.rate ?? 10_000, options.flood?.burst ?? 5_000);
    this.tap = options.tap ?? null;
    this.#up = options.up ?? true;
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
    if (this.#closed) return;
    if (!up) this.#host.down(this);
    this.onLinkChange?.();
  }

  get counters(): SwitchPortCounters {
    return readCounts(this.counts);
  }

  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  listen(onFrame: (frame: Frame) => void, offloads: number = 0): void {
    this.connect({ offloads, deliver: onFrame });
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

  send(frame: Frame): void {
    this.#host.enter(frame, this);
  }

  deliver(frame: Frame): void {
    this.#host.enter(frame, this);
  }

  close(): void {
    if (this.#closed) return;
    const wasUp = this.linkUp;
    this.#closed = true;
    this.#host.remove(this);
    if (wasUp) this.onLinkChange?.();
  }

  get closed(): boolean {
    return this.#closed;
  }

  /** Gives a frame to whoever is behind the port. */
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

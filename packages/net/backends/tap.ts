/**
 * A tap: a network interface of the Linux host's whose cable ends here, so that the host's own stack, bridges and nftables
 * serve a device. Needs Deno with the permission for foreign functions, and the right to use the interface.
 *
 * @module
 */
import { allocateBytes, GuestMemory, type MemoryRegion } from "@virtio/memory";
import { ETHERNET_HEADER_SIZE, MAX_FRAME_SIZE, NET_HEADER_SIZE } from "../constants.ts";
import { Frame } from "../frame.ts";
import { checkHeader } from "../offload/header.ts";
import { FrameLayout } from "../offload/parse.ts";
import { pass } from "../pass.ts";
import { type FrameSink, type NetBackend, Offload } from "../sink.ts";
import { TapError } from "./tap_error.ts";
import { readNetHeader, writeNetHeader } from "./tap_header.ts";
import { TapRead, TapSystem, TapWrite } from "./tap_system.ts";

export { TapError, type TapProblem } from "./tap_error.ts";

/** Frames that are read before the event loop gets its turn. */
const BUDGET = 64;

/** Options of `TapBackend.open`. */
export interface TapOptions {
  /** Name of the interface, up to 15 characters. It is made if it is not there, and goes then when the tap is closed. */
  readonly name: string;
  /** Path of the network namespace it is in, such as `/run/netns/lab`; the process's own unless given. */
  readonly namespace?: string;
  /** Told when the interface was removed: the link is down then, for good. */
  readonly onError?: (error: TapError) => void;
}

/** What a tap counted. */
export interface TapCounters {
  /** Frames that came from the host. */
  readonly framesIn: number;
  /** Bytes of those. */
  readonly bytesIn: number;
  /** Frames among them that were not segmented. */
  readonly gsoIn: number;
  /** Frames that went to the host. */
  readonly framesOut: number;
  /** Bytes of those. */
  readonly bytesOut: number;
  /** Frames among them that were not segmented. */
  readonly gsoOut: number;
  /** Frames for the host dropped since the interface was down, or gone. */
  readonly down: number;
  /** Frames for the host dropped since it had no room. */
  readonly overruns: number;
  /** Frames, either way, whose header or length was wrong. */
  readonly malformed: number;
  /** Frames from the host that nobody was there to take. */
  readonly unheard: number;
}

/**
 * A tap as a back end. Frames pass with their net headers, unsegmented and with partial checksums, both ways.
 *
 * The interface is the administrator's: its address, its MTU, and whether it is up are set with `ip`, not here.
 *
 * ```ts ignore
 * import { NetDevice } from "@virtio/net";
 * import { TapBackend } from "@virtio/net/tap";
 *
 * const tap = TapBackend.open({ name: "vm0" }); // ip addr add 192.0.2.1/24 dev vm0; ip link set vm0 up
 * const device = new NetDevice({ backend: tap });
 * // ...
 * await tap.close();
 * ```
 */
export class TapBackend implements NetBackend {
  /** What the system takes unfinished. */
  readonly offloads: number;
  /** The MTU that the interface had when it was opened. */
  readonly maxMtu: number;
  /** Name of the interface. */
  readonly name: string;
  /** Told when the interface was removed. */
  onLinkChange: (() => void) | null = null;
  readonly #system: TapSystem;
  readonly #onError: ((error: TapError) => void) | undefined;
  readonly #frame = new Frame();
  readonly #header = new Uint8Array(NET_HEADER_SIZE);
  readonly #headerView = new DataView(this.#header.buffer);
  readonly #layout = new FrameLayout();
  /** Header and frame to be written. */
  readonly #out: MemoryRegion;
  #peer: FrameSink | null = null;
  #linkUp = true;
  #closed = false;
  readonly #done: Promise<void>;
  readonly #counts = {
    framesIn: 0,
    bytesIn: 0,
    gsoIn: 0,
    framesOut: 0,
    bytesOut: 0,
    gsoOut: 0,
    down: 0,
    overruns: 0,
    malformed: 0,
    unheard: 0,
  };

  private constructor(options: TapOptions) {
    this.name = options.name;
    this.#onError = options.onError;
    const buffer = allocateBytes(NET_HEADER_SIZE + MAX_FRAME_SIZE).buffer;
    this.#out = new GuestMemory([{ base: 0, buffer }]).regions[0]!;
    this.#system = new TapSystem(
      options.name,
      options.namespace ?? null,
      this.#header,
      this.#frame.buffer,
    );
    this.offloads = this.#system.offloads;
    this.maxMtu = Math.min(65_535, Math.max(68, this.#system.mtu));
    this.#done = this.#system.serve((count) => this.#came(count));
  }

  /**
   * Opens a tap.
   *
   * @throws {TapError} If it cannot be had; the message says what to do.
   */
  static open(options: TapOptions): TapBackend {
    return new TapBackend(options);
  }

  /** Whether the interface is there. */
  get linkUp(): boolean {
    return this.#linkUp;
  }

  /** What was counted until now. */
  get counters(): TapCounters {
    return { ...this.#counts };
  }

  /** Plugs the cable in: frames of the host's go to `peer`. */
  connect(peer: FrameSink | null): void {
    this.#peer = peer;
  }

  /** Gives a frame to the host. */
  deliver(frame: Frame): void {
    const counts = this.#counts;
    if (!this.#linkUp) {
      counts.down++;
      return;
    }
    const { length } = frame;
    frame.hold();
    writeNetHeader(this.#out.view, frame);
    this.#out.copyFrom(NET_HEADER_SIZE, frame.buffer, 0, length);
    switch (this.#system.write(this.#out.bytes, NET_HEADER_SIZE + length)) {
      case TapWrite.done:
        counts.framesOut++;
        counts.bytesOut += length;
        if (frame.gsoType !== 0) counts.gsoOut++;
        return;
      case TapWrite.full:
        counts.overruns++;
        return;
      case TapWrite.refused:
        counts.malformed++;
        return;
      default:
        counts.down++;
    }
  }

  /** Gives the interface back, and ends the reader. */
  async close(): Promise<void> {
    if (!this.#closed) {
      this.#closed = true;
      this.#linkUp = false;
      this.#system.stop();
    }
    await this.#done;
  }

  /** @returns Whether it goes on. */
  #came(first: number): boolean {
    let count = first;
    for (let left = BUDGET; !this.#closed; left--) {
      if (count === TapRead.empty) return true;
      if (count === TapRead.gone) {
        this.#gone();
        return false;
      }
      this.#take(count - NET_HEADER_SIZE);
      if (left === 1) return true;
      count = this.#system.read();
    }
    return false;
  }

  #take(length: number): void {
    const counts = this.#counts;
    const frame = this.#frame;
    if (length < ETHERNET_HEADER_SIZE) {
      counts.malformed++;
      return;
    }
    frame.setLength(length);
    readNetHeader(this.#headerView, frame);
    if (frame.flags !== 0 || frame.gsoType !== 0) {
      // It may be another guest's that went through the host: nobody is believed.
      const layout = this.#layout.parse(frame.view, frame.headLength, length);
      if (checkHeader(frame, layout, Offload.all, true) !== null) {
        counts.malformed++;
        return;
      }
    }
    counts.framesIn++;
    counts.bytesIn += length;
    if (frame.gsoType !== 0) counts.gsoIn++;
    const peer = this.#peer;
    if (peer === null) counts.unheard++;
    else pass(frame, peer);
  }

  #gone(): void {
    this.#linkUp = false;
    this.onLinkChange?.();
    this.#onError?.(
      new TapError("gone", `The interface ${this.name} was removed: open the tap again`),
    );
  }
}

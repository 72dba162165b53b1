import { checkInteger } from "@virtio/device";
import { allocateBytes, GuestMemory, type MemoryRegion } from "@virtio/memory";
import {
  MAX_FRAME_SIZE,
  VIRTIO_NET_HDR_F_DATA_VALID,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_ECN,
  VIRTIO_NET_HDR_GSO_NONE,
  VIRTIO_NET_HDR_GSO_TCPV4,
  VIRTIO_NET_HDR_GSO_TCPV6,
  VIRTIO_NET_HDR_GSO_UDP,
  VIRTIO_NET_HDR_GSO_UDP_L4,
} from "../constants.ts";
import type { Frame } from "../frame.ts";
import type { Direction, FrameTap } from "../options.ts";

const SECTION_HEADER = 0x0a0d_0d0a;
const BYTE_ORDER = 0x1a2b_3c4d;
const INTERFACE_DESCRIPTION = 1;
const ENHANCED_PACKET = 6;
const LINKTYPE_ETHERNET = 1;

const OPT_END = 0;
const OPT_COMMENT = 1;
const SHB_USERAPPL = 4;
const IF_NAME = 2;
const IF_DESCRIPTION = 3;
const EPB_FLAGS = 2;
const EPB_QUEUE = 6;
const INBOUND = 1;
const OUTBOUND = 2;

/** Bytes of a block around the frame and its options: type, two lengths, interface, time, two more lengths. */
const PACKET_BLOCK = 32;
/** Bytes of options of a frame, its comment included. */
const MAX_OPTIONS = 256;
/** Bytes that are collected before they are written. */
const BUFFER = 256 * 1024;
const LARGEST = PACKET_BLOCK + MAX_FRAME_SIZE + MAX_OPTIONS;

const GSO_NAMES: Readonly<Record<number, string>> = {
  [VIRTIO_NET_HDR_GSO_TCPV4]: "GSO_TCPV4",
  [VIRTIO_NET_HDR_GSO_TCPV6]: "GSO_TCPV6",
  [VIRTIO_NET_HDR_GSO_UDP]: "GSO_UDP",
  [VIRTIO_NET_HDR_GSO_UDP_L4]: "GSO_UDP_L4",
};

/** Options of a `PcapngWriter`. */
export interface PcapngOptions {
  /** The most bytes of a frame that are kept; all unless given. */
  readonly snapLength?: number;
  /** The most bytes that are written; no limit unless given. Frames beyond are counted, and not captured. */
  readonly maxBytes?: number;
  /** Milliseconds since 1970; the host's clock unless given. */
  readonly clock?: () => number;
}

/**
 * Writes a capture. Each device gets a tap of its own, which makes it an interface of the capture.
 *
 * What is captured is collected, and given out when there is much of it, or by `flush`.
 *
 * @example
 * ```ts
 * import { Frame } from "@virtio/net";
 * import { PcapngWriter } from "@virtio/net/pcapng";
 * import { Switch } from "@virtio/net/switch";
 * import { assertEquals } from "@std/assert";
 *
 * const bytes: number[] = [];
 * const capture = new PcapngWriter((part) => bytes.push(...part));
 * const network = new Switch();
 * const port = network.port({ tap: capture.add("guest 1") }); // or new NetDevice({ tap: capture.add("guest 1"), ... })
 * port.send(new Frame().fromBytes(new Uint8Array(60)));
 * capture.flush();
 * assertEquals(capture.frames, 1);
 * assertEquals(bytes.slice(0, 4), [0x0a, 0x0d, 0x0d, 0x0a]);
 * ```
 */
export class PcapngWriter {
  /** Frames that were captured. */
  frames = 0;
  /** Frames that were not, for `maxBytes`. */
  dropped = 0;
  /** Bytes that were captured, with everything around the frames. */
  bytes = 0;
  readonly #write: (bytes: Uint8Array) => void;
  readonly #snapLength: number;
  readonly #maxBytes: number;
  readonly #clock: () => number;
  readonly #region: MemoryRegion;
  readonly #view: DataView;
  readonly #encoder = new TextEncoder();
  #at = 0;
  #interfaces = 0;

  /**
   * Begins a capture.
   *
   * @param write Gets the bytes in order. They are valid during the call.
   * @throws {RangeError} If an option is out of range.
   */
  constructor(write: (bytes: Uint8Array) => void, options: PcapngOptions = {}) {
    this.#snapLength = checkInteger("snapLength", options.snapLength, 1, Infinity, MAX_FRAME_SIZE);
    this.#maxBytes = options.maxBytes ?? Infinity;
    if (!(this.#maxBytes >= 0)) {
      throw new RangeError(`maxBytes is not below 0: it is ${this.#maxBytes}`);
    }
    this.#clock = options.clock ?? (() => performance.timeOrigin + performance.now());
    this.#write = write;
    const buffer = allocateBytes(BUFFER + LARGEST).buffer;
    this.#region = new GuestMemory([{ base: 0, buffer }]).regions[0]!;
    this.#view = this.#region.view;
    const start = this.#begin(SECTION_HEADER);
    this.#u32(BYTE_ORDER);
    this.#u16(1);
    this.#u16(0);
    // The length of the section is not known.
    this.#u32(0xffff_ffff);
    this.#u32(0xffff_ffff);
    this.#text(SHB_USERAPPL, "@virtio/net");
    this.#end(start);
  }

  /**
   * Adds an interface. Direction is what it is for the device: what its driver sends is outbound.
   *
   * @param name Of the interface.
   * @param description Of it; none unless given.
   * @returns For `NetDeviceOptions.tap` or `SwitchPort.tap`.
   */
  add(name: string, description: string = ""): FrameTap {
    const index = this.#interfaces++;
    const start = this.#begin(INTERFACE_DESCRIPTION);
    this.#u16(LINKTYPE_ETHERNET);
    this.#u16(0);
    this.#u32(this.#snapLength);
    this.#text(IF_NAME, name);
    if (description !== "") this.#text(IF_DESCRIPTION, description);
    this.#end(start);
    return (frame, direction, queue) => this.#packet(index, frame, direction, queue);
  }

  /** Gives out what was collected. */
  flush(): void {
    if (this.#at === 0) return;
    const bytes = this.#region.bytes.subarray(0, this.#at);
    this.#at = 0;
    this.#write(bytes);
  }

  #packet(index: number, frame: Frame, direction: Direction, queue: number): void {
    const { length } = frame;
    const kept = Math.min(length, this.#snapLength);
    if (this.bytes + PACKET_BLOCK + kept + MAX_OPTIONS > this.#maxBytes) {
      this.dropped++;
      return;
    }
    frame.hold();
    const start = this.#begin(ENHANCED_PACKET);
    this.#u32(index);
    const microseconds = Math.floor(this.#clock() * 1000);
    this.#u32(Math.floor(microseconds / 0x1_0000_0000));
    this.#u32(microseconds % 0x1_0000_0000);
    this.#u32(kept);
    this.#u32(length);
    this.#region.copyFrom(this.#at, frame.buffer, 0, kept);
    this.#at += kept;
    this.#pad();
    this.#u16(EPB_FLAGS);
    this.#u16(4);
    this.#u32(direction === "sent" ? OUTBOUND : INBOUND);
    this.#u16(EPB_QUEUE);
    this.#u16(4);
    this.#u32(queue);
    const comment = describe(frame);
    if (comment !== "") this.#text(OPT_COMMENT, comment);
    this.#end(start);
    this.frames++;
  }

  #begin(type: number): number {
    const start = this.#at;
    this.#u32(type);
    this.#u32(0);
    return start;
  }

  #end(start: number): void {
    this.#u16(OPT_END);
    this.#u16(0);
    const length = this.#at + 4 - start;
    this.#view.setUint32(start + 4, length, true);
    this.#u32(length);
    this.bytes += length;
    if (this.#at >= BUFFER) this.flush();
  }

  #text(option: number, text: string): void {
    const room = this.#region.bytes.subarray(this.#at + 4, this.#at + 4 + 200);
    const { written } = this.#encoder.encodeInto(text, room);
    this.#u16(option);
    this.#u16(written);
    this.#at += written;
    this.#pad();
  }

  #pad(): void {
    while (this.#at % 4 !== 0) this.#view.setUint8(this.#at++, 0);
  }

  #u16(value: number): void {
    this.#view.setUint16(this.#at, value, true);
    this.#at += 2;
  }

  #u32(value: number): void {
    this.#view.setUint32(this.#at, value, true);
    this.#at += 4;
  }
}

/** What the net header says, in its own words; nothing if it says nothing. */
function describe(frame: Frame): string {
  let text = "";
  if ((frame.flags & VIRTIO_NET_HDR_F_DATA_VALID) !== 0) text += " DATA_VALID";
  if ((frame.flags & VIRTIO_NET_HDR_F_NEEDS_CSUM) !== 0) {
    text += ` NEEDS_CSUM csum_start=${frame.csumStart} csum_offset=${frame.csumOffset}`;
  }
  if (frame.gsoType !== VIRTIO_NET_HDR_GSO_NONE) {
    const ecn = (frame.gsoType & VIRTIO_NET_HDR_GSO_ECN) !== 0 ? " ECN" : "";
    const type = frame.gsoType & ~VIRTIO_NET_HDR_GSO_ECN;
    text += ` ${GSO_NAMES[type] ?? `gso_type=${type}`}${ecn} gso_size=${frame.gsoSize}`;
    text += ` hdr_len=${frame.headerLength}`;
  }
  return text === "" ? "" : `virtio_net_hdr:${text}`;
}

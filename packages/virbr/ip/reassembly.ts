/** Puts fragments together (RFC 791, 3.2; RFC 8200, 4.5), within bounds of memory and time. */
import type { Station } from "../wire/station.ts";
import type { AddressWords } from "./packet.ts";
import { sameAddress } from "./address.ts";

/** Room before the payload for the header of the first fragment: as long as one of IPv4 can be. */
const HEADER_ROOM = 60;
const MOST = 65_535;
/** Fragments of one packet: enough for the longest at an MTU of 576. */
const MAX_FRAGMENTS = 128;

/** What reassembly may take. */
export interface ReassemblyLimits {
  /** Packets of one port at a time, each up to 64 KiB; 4 unless given. */
  readonly perGuest?: number;
  /** Packets of all guests; 32 unless given. */
  readonly total?: number;
  /** Milliseconds that a packet may take; 30,000 unless given. */
  readonly time?: number;
}

/** One fragment, as the IP layer reads it. */
export interface FragmentInfo {
  readonly guest: Station;
  readonly version: number;
  readonly source: AddressWords;
  readonly destination: AddressWords;
  readonly protocol: number;
  readonly identification: number;
  /** Where the fragment's first byte is in the packet's payload. */
  readonly place: number;
  /** Whether more follow. */
  readonly more: boolean;
  readonly buffer: Uint8Array;
  /** The IP header, without what belongs to fragments. */
  readonly headerOffset: number;
  readonly headerSize: number;
  /** The payload. */
  readonly offset: number;
  readonly length: number;
}

/** A packet that grows. */
class Assembly {
  guest: Station | null = null;
  version = 0;
  readonly source: AddressWords = new Uint32Array(4);
  readonly destination: AddressWords = new Uint32Array(4);
  protocol = 0;
  identification = 0;
  deadline = 0;
  buffer: Uint8Array = new Uint8Array(0);
  /** Bytes of the header, 0 until the first fragment came. */
  headerSize = 0;
  /** Bytes of the payload, -1 until the last fragment came. */
  end = -1;
  received = 0;
  /** What came: pairs of first byte and end, in order. */
  readonly ranges: number[] = [];

  matches(one: FragmentInfo): boolean {
    return this.guest === one.guest && this.identification === one.identification &&
      this.protocol === one.protocol && this.version === one.version &&
      sameAddress(this.source, one.source) && sameAddress(this.destination, one.destination);
  }
}

/** What became of a fragment. */
export type FragmentOutcome = "waits" | "whole" | "dropped";

/** The packets that are not whole yet. */
export class Reassembly {
  /** After "whole": where the packet is, header first. Valid until the next fragment. */
  buffer: Uint8Array = new Uint8Array(0);
  /** The same bytes. */
  view: DataView = new DataView(new ArrayBuffer(0));
  /** Where its header starts. */
  headerOffset = 0;
  /** Where its payload starts. */
  offset: number = HEADER_ROOM;
  /** Bytes of its payload. */
  length = 0;
  readonly #perGuest: number;
  readonly #total: number;
  readonly #time: number;
  /** The oldest first. */
  #list: Assembly[] = [];
  /** Buffers that nobody uses. */
  readonly #spare: Uint8Array[] = [];

  constructor(limits: ReassemblyLimits = {}) {
    this.#perGuest = limits.perGuest ?? 4;
    this.#total = limits.total ?? 32;
    this.#time = limits.time ?? 30_000;
  }

  /** Packets that wait for more. */
  get waiting(): number {
    return this.#list.length;
  }

  /** Takes a fragment. @param now Milliseconds. */
  take(one: FragmentInfo, now: number): FragmentOutcome {
    this.#expire(now);
    const { place, length, more } = one;
    if (length === 0 || place + length > MOST || (more && length % 8 !== 0)) return "dropped";
    const found = this.#list.find((each) => each.matches(one));
    const assembly = found ?? this.#open(one, now);
    if (assembly === null) return "dropped";
    const outcome = this.#add(assembly, one);
    if (outcome !== "waits") this.#close(assembly);
    return outcome;
  }

  /** Forgets what a guest sent. */
  forget(guest: Station): void {
    for (const each of this.#list.filter((each) => each.guest === guest)) this.#close(each);
  }

  #add(assembly: Assembly, one: FragmentInfo): FragmentOutcome {
    const { place, length, more } = one;
    const end = place + length;
    const { ranges } = assembly;
    let at = 0;
    while (at < ranges.length && ranges[at]! < place) at += 2;
    if (ranges[at] === place && ranges[at + 1] === end) return "waits";
    const before = at > 0 ? ranges[at - 1]! : 0;
    const behind = at < ranges.length ? ranges[at]! : MOST;
    // Fragments that overlap are an attack, never an accident (RFC 5722): the whole packet goes.
    if (place < before || end > behind || ranges.length >= 2 * MAX_FRAGMENTS) return "dropped";
    if (!more) {
      if (assembly.end >= 0) return "dropped";
      assembly.end = end;
    }
    if (assembly.end >= 0 && Math.max(end, ranges[ranges.length - 1] ?? 0) > assembly.end) {
      return "dropped";
    }
    ranges.splice(at, 0, place, end);
    assembly.received += length;
    const { buffer } = assembly;
    buffer.set(one.buffer.subarray(one.offset, one.offset + length), HEADER_ROOM + place);
    if (place === 0) {
      assembly.headerSize = one.headerSize;
      const header = one.buffer.subarray(one.headerOffset, one.headerOffset + one.headerSize);
      buffer.set(header, HEADER_ROOM - one.headerSize);
    }
    if (assembly.end < 0 || assembly.received < assembly.end) return "waits";
    if (assembly.headerSize + assembly.end > MOST) return "dropped";
    this.buffer = buffer;
    this.view = new DataView(buffer.buffer);
    this.headerOffset = HEADER_ROOM - assembly.headerSize;
    this.length = assembly.end;
    return "whole";
  }

  #open(one: FragmentInfo, now: number): Assembly | null {
    const own = this.#list.filter((each) => each.guest!.at === one.guest.at);
    // Of its own, the oldest goes; of others, none: a guest cannot take the room of another.
    if (own.length >= this.#perGuest) this.#close(own[0]!);
    if (this.#list.length >= this.#total) return null;
    const assembly = new Assembly();
    assembly.guest = one.guest;
    assembly.version = one.version;
    assembly.source.set(one.source);
    assembly.destination.set(one.destination);
    assembly.protocol = one.protocol;
    assembly.identification = one.identification;
    assembly.deadline = now + this.#time;
    assembly.buffer = this.#spare.pop() ?? new Uint8Array(HEADER_ROOM + MOST);
    this.#list.push(assembly);
    return assembly;
  }

  #close(assembly: Assembly): void {
    this.#list = this.#list.filter((each) => each !== assembly);
    if (this.#spare.length < this.#perGuest) this.#spare.push(assembly.buffer);
  }

  #expire(now: number): void {
    while (this.#list.length > 0 && this.#list[0]!.deadline <= now) this.#close(this.#list[0]!);
  }
}

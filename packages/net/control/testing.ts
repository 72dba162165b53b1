/** A control queue without a device around it: commands as bytes, in any framing. Not published. */
import type { FeatureSet } from "@virtio/device";
import { GuestMemory } from "@virtio/memory";
import { type Chain, openQueue } from "@virtio/vring";
import { placeQueue, rawDriver } from "../../vring/testing/raw_driver.ts";
import * as net from "../constants.ts";
import { Frame } from "../frame.ts";
import { HASH_TYPES } from "../offload/hash.ts";
import { buildFrame, type FrameSpec } from "../offload/testing.ts";
import type { CoalescingClock } from "./coalescing.ts";
import { CONTROL_LIMITS, type ControlHost, type ControlLimits, NetControl } from "./control.ts";
import type { ReceiveCounters, TransmitCounters } from "./counters.ts";

/** All features that the control queue knows. */
export const ALL_FEATURES: FeatureSet = net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_GUEST_CSUM |
  net.VIRTIO_NET_F_CTRL_GUEST_OFFLOADS | net.VIRTIO_NET_F_MAC | net.VIRTIO_NET_F_GUEST_TSO4 |
  net.VIRTIO_NET_F_GUEST_TSO6 | net.VIRTIO_NET_F_GUEST_ECN | net.VIRTIO_NET_F_GUEST_UFO |
  net.VIRTIO_NET_F_GUEST_USO4 | net.VIRTIO_NET_F_GUEST_USO6 | net.VIRTIO_NET_F_HOST_TSO4 |
  net.VIRTIO_NET_F_STATUS | net.VIRTIO_NET_F_CTRL_VQ | net.VIRTIO_NET_F_CTRL_RX |
  net.VIRTIO_NET_F_CTRL_VLAN | net.VIRTIO_NET_F_CTRL_RX_EXTRA |
  net.VIRTIO_NET_F_GUEST_ANNOUNCE | net.VIRTIO_NET_F_MQ | net.VIRTIO_NET_F_CTRL_MAC_ADDR |
  net.VIRTIO_NET_F_DEVICE_STATS | net.VIRTIO_NET_F_VQ_NOTF_COAL | net.VIRTIO_NET_F_NOTF_COAL |
  net.VIRTIO_NET_F_HASH_REPORT | net.VIRTIO_NET_F_RSS;

/** What the device-writable memory of a command holds before. */
export const UNTOUCHED = 0xee;

/** A clock that stands still until a test moves it. */
export class TestClock implements CoalescingClock {
  /** Microseconds since the beginning. */
  now = 0;
  /** What is still to come. */
  readonly timers: Map<number, { readonly at: number; readonly run: () => void }> = new Map();
  #next = 0;

  set(run: () => void, microseconds: number): unknown {
    this.timers.set(this.#next, { at: this.now + microseconds, run });
    return this.#next++;
  }

  clear(timer: unknown): void {
    this.timers.delete(timer as number);
  }

  /** Lets time pass. */
  pass(microseconds: number): void {
    this.now += microseconds;
    for (const [timer, { at, run }] of [...this.timers]) {
      if (at > this.now) continue;
      this.timers.delete(timer);
      run();
    }
  }
}

/** A device as the control queue sees it. */
export class TestHost implements ControlHost {
  mac: Uint8Array = Uint8Array.of(2, 0, 0, 0, 0, 1);
  readonly maxPairs: number;
  /** Receive queues that are being reset. */
  readonly resetting: Set<number> = new Set();
  /** Queues that were notified. */
  notified: number[] = [];
  /** How often the driver said so. */
  announcements = 0;
  /** Addresses that the driver set. */
  macs: number[][] = [];
  readonly queueCounters: { kicks: number; interrupts: number }[];
  readonly received: { -readonly [key in keyof ReceiveCounters]: number }[];
  readonly sent: { -readonly [key in keyof TransmitCounters]: number }[];

  constructor(maxPairs: number) {
    this.maxPairs = maxPairs;
    this.queueCounters = Array.from({ length: 2 * maxPairs + 1 }, (_, queue) => ({
      kicks: 1000 + queue,
      interrupts: 2000 + queue,
    }));
    this.received = Array.from({ length: maxPairs }, (_, pair) => ({
      packets: 100 * pair + 1,
      bytes: 100 * pair + 2,
      drops: 100 * pair + 3,
      dropOverruns: 100 * pair + 4,
      csumValid: 100 * pair + 5,
      needsCsum: 100 * pair + 6,
      csumNone: 100 * pair + 7,
      csumBad: 100 * pair + 8,
      gsoPackets: 100 * pair + 9,
      gsoBytes: 100 * pair + 10,
      gsoPacketsCoalesced: 100 * pair + 11,
      gsoBytesCoalesced: 100 * pair + 12,
    }));
    this.sent = Array.from({ length: maxPairs }, (_, pair) => ({
      packets: 100 * pair + 51,
      bytes: 100 * pair + 52,
      drops: 100 * pair + 53,
      dropMalformed: 100 * pair + 54,
      csumNone: 100 * pair + 55,
      needsCsum: 100 * pair + 56,
      gsoPackets: 100 * pair + 57,
      gsoBytes: 100 * pair + 58,
      gsoSegments: 100 * pair + 59,
      gsoSegmentsBytes: 100 * pair + 60,
      gsoPacketsNoseg: 100 * pair + 61,
      gsoBytesNoseg: 100 * pair + 62,
    }));
  }

  setMac(mac: Uint8Array): void {
    this.macs.push([...mac]);
  }
  announced(): void {
    this.announcements++;
  }
  receives(pair: number): boolean {
    return !this.resetting.has(pair);
  }
  notify(queue: number): void {
    this.notified.push(queue);
  }
  receiveCounters(pair: number): ReceiveCounters {
    return this.received[pair]!;
  }
  transmitCounters(pair: number): TransmitCounters {
    return this.sent[pair]!;
  }
}

/** How a command is cut, and how much room it leaves. */
export interface Framing {
  /** Device-writable bytes, `ack` included; 1 unless given. */
  readonly room?: number;
  /** Lengths of the descriptors with readable bytes; the last takes what is left. */
  readonly readable?: readonly number[];
  /** Lengths of those with writable bytes. */
  readonly writable?: readonly number[];
}

/** What became of a command. */
export interface Answer {
  /** VIRTIO_NET_OK, VIRTIO_NET_ERR, or UNTOUCHED. */
  readonly ack: number;
  /** The bytes behind `ack`; UNTOUCHED where not written. */
  readonly result: number[];
  /** The used length. */
  readonly used: number;
}

const DATA = 0x20000;
const RESULT = 0x60000;

/** A chain with these readable bytes. */
export function commandChain(
  bytes: Uint8Array,
  framing: Framing = {},
): { chain: Chain; answer: () => Answer } {
  const memory = GuestMemory.allocate(0x80000);
  const config = placeQueue(256, 0, "split");
  const driver = rawDriver(memory, config, 0n);
  const room = framing.room ?? 1;
  memory.write(DATA, bytes);
  memory.fill(RESULT, room, UNTOUCHED);
  driver.send([
    ...pieces(DATA, bytes.length, framing.readable ?? [], false),
    ...pieces(RESULT, room, framing.writable ?? [], true),
  ]);
  const chain = openQueue(memory, config, 0n).pop()!;
  return {
    chain,
    answer: () => {
      const written = new Uint8Array(room);
      memory.read(RESULT, written);
      return { ack: written[0]!, result: [...written.subarray(1)], used: chain.written };
    },
  };
}

function pieces(
  address: number,
  total: number,
  cuts: readonly number[],
  write: boolean,
): { address: number; length: number; write: boolean }[] {
  const list: { address: number; length: number; write: boolean }[] = [];
  let at = 0;
  for (const cut of cuts) {
    const length = Math.min(cut, total - at);
    if (length <= 0 || list.length === 100) continue;
    list.push({ address: address + at, length, write });
    at += length;
  }
  if (at < total) list.push({ address: address + at, length: total - at, write });
  return list;
}

/** A control queue, and a driver that sends it whatever bytes a test wants. */
export class ControlRig {
  readonly host: TestHost;
  readonly clock: TestClock = new TestClock();
  readonly control: NetControl;
  readonly #frame: Frame = new Frame();

  constructor(
    features: FeatureSet = ALL_FEATURES,
    maxPairs = 4,
    limits: Partial<ControlLimits> = {},
  ) {
    this.host = new TestHost(maxPairs);
    this.control = new NetControl(this.host, { ...CONTROL_LIMITS, ...limits }, this.clock);
    this.control.reset(features);
  }

  /** Sends a command. */
  send(bytes: ArrayLike<number>, framing: Framing = {}): Answer {
    const { chain, answer } = commandChain(Uint8Array.from(bytes), framing);
    this.control.handle(chain);
    return answer();
  }

  /** Sends a command, and says what `ack` is. */
  ack(...parts: readonly (number | readonly number[])[]): number {
    return this.send(parts.flat()).ack;
  }

  /** Whether a frame gets through the filter. */
  accepts(spec: Partial<FrameSpec>): boolean {
    return this.control.filter.accepts(this.frame(spec));
  }

  /** A frame, valid until the next one. */
  frame(spec: Partial<FrameSpec>): Frame {
    return this.#frame.fromBytes(buildFrame({ ip: 4, ...spec }));
  }
}

/** Little-endian 16 bits. */
export function le16(value: number): number[] {
  return [value & 255, value >>> 8 & 255];
}
/** Little-endian 32 bits. */
export function le32(value: number): number[] {
  return [...le16(value & 0xffff), ...le16(value >>> 16)];
}
/** Little-endian 64 bits. */
export function le64(value: bigint): number[] {
  return [...le32(Number(value & 0xffff_ffffn)), ...le32(Number(value >> 32n & 0xffff_ffffn))];
}

/** A table of MAC addresses. */
export function macTable(...macs: readonly (readonly number[])[]): number[] {
  return [...le32(macs.length), ...macs.flat()];
}

/** Parameters of receive-side scaling. */
export interface RssSpec {
  readonly hashTypes?: number;
  readonly mask?: number;
  readonly unclassified?: number;
  readonly table?: readonly number[];
  readonly maxTxVq?: number;
  readonly keyLength?: number;
  readonly key?: readonly number[];
}

/** A key whose bytes differ. */
export const KEY: readonly number[] = Array.from({ length: 40 }, (_, i) => i * 37 + 11 & 255);

/** A `struct virtio_net_rss_config`. */
export function rssConfig(spec: RssSpec = {}): number[] {
  const table = spec.table ?? [0, 1, 2, 3];
  const key = spec.key ?? KEY;
  return [
    ...le32(spec.hashTypes ?? HASH_TYPES),
    ...le16(spec.mask ?? table.length - 1),
    ...le16(spec.unclassified ?? 0),
    ...table.flatMap(le16),
    ...le16(spec.maxTxVq ?? 4),
    spec.keyLength ?? key.length,
    ...key,
  ];
}

/** A `struct virtio_net_hash_config`. */
export function hashConfig(
  spec: { hashTypes?: number; reserved?: readonly number[]; key?: readonly number[] } = {},
): number[] {
  const key = spec.key ?? KEY;
  return [
    ...le32(spec.hashTypes ?? HASH_TYPES),
    ...(spec.reserved ?? [0, 0, 0, 0, 0, 0, 0, 0]),
    key.length,
    ...key,
  ];
}

/** An entry of a `struct virtio_net_ctrl_queue_stats`. */
export function statsEntry(queue: number, types: bigint, reserved = [0, 0, 0, 0, 0, 0]): number[] {
  return [...le16(queue), ...reserved, ...le64(types)];
}

/** What somebody who looks on sees of devices at one moment. Plain data: it crosses to a page, a worker, a socket. */

/** Where a ring slot stands. */
export type SlotState =
  /** The driver's, with nothing in it. */
  | "free"
  /** Made available, and not yet taken by the device. */
  | "available"
  /** Taken by the device. */
  | "in flight"
  /** Packed: used by the device, and maybe not yet seen by the driver. */
  | "used";

/** One descriptor as it lies in guest memory. */
export interface SlotView {
  /** Number of the slot in the descriptor area. */
  readonly index: number;
  /** Whose it is. */
  readonly state: SlotState;
  /** Guest-physical address, in hexadecimal. */
  readonly address: string;
  /** Bytes. */
  readonly length: number;
  /** `flags`. */
  readonly flags: number;
  /** Split: `next`. Packed: the buffer id. */
  readonly link: number;
}

/** A chain that the device has. */
export interface ChainView {
  /** Split: the head. Packed: the buffer id. */
  readonly id: number;
  /** Counts the queue's chains. */
  readonly sequence: number;
  /** Descriptors. */
  readonly descriptors: number;
  /** Device-readable bytes. */
  readonly readable: number;
  /** Device-writable bytes. */
  readonly writable: number;
  /** Done, and waiting for earlier ones. */
  readonly waits: boolean;
  /** Milliseconds since it was first seen in flight: at most its true age. */
  readonly age: number;
}

/** A field with its value; `explain` tells what it is. */
export interface FieldView {
  /** Key of `EXPLANATIONS`. */
  readonly key: string;
  /** As it is to be shown. */
  readonly value: string;
}

/** A queue. */
export interface QueueView {
  /** Its index. */
  readonly index: number;
  /** What it is for. */
  readonly name: string;
  /** Whether the driver has set it going. What follows is empty otherwise. */
  readonly started: boolean;
  /** Whether chains stay in it, but for steps. */
  readonly held: boolean;
  /** "split" or "packed". */
  readonly format: "split" | "packed";
  /** Entries. */
  readonly size: number;
  /** Indexes, wrap counters, event fields. */
  readonly fields: readonly FieldView[];
  /** The slots, or a window of a long ring. */
  readonly slots: readonly SlotView[];
  /** Chains that the device has. */
  readonly chains: readonly ChainView[];
  /** Since the device was made. */
  readonly counters: {
    readonly kicks: number;
    readonly interrupts: number;
    readonly chains: number;
    readonly descriptors: number;
  };
}

/** A device. */
export interface DeviceView {
  /** As the embedder calls it. */
  readonly name: string;
  /** Device type (5). */
  readonly type: number;
  /** Its queues. */
  readonly queues: readonly QueueView[];
}

/** All of it. */
export interface Snapshot {
  /** Milliseconds, to tell rates from two of them. */
  readonly time: number;
  /** The devices. */
  readonly devices: readonly DeviceView[];
}

/** What somebody who looks on may do. */
export interface InspectCommand {
  /** `hold` a queue, let it go again (`release`), or give the device one chain (`step`). */
  readonly do: "hold" | "release" | "step";
  /** Number of the device in the snapshot. */
  readonly device: number;
  /** Index of the queue. */
  readonly queue: number;
}

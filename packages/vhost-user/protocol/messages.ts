/**
 * All messages of vhost-user that are known here, both ways: what each carries, what answers it, and which protocol feature
 * it needs. The only list: who sends asks it, and who receives checks by it.
 */
import { ProtocolError } from "./errors.ts";
import { ProtocolFeature } from "./features.ts";

/** Bytes of a message's header: request, flags, size of the payload. */
export const HEADER_SIZE = 12;
/** Flags: the protocol's version. */
export const VHOST_USER_VERSION = 1;
/** Flags: where the version is. */
export const VHOST_USER_VERSION_MASK = 3;
/** Flag: this is an answer. */
export const VHOST_USER_REPLY = 4;
/** Flag: an answer is wanted even if the message has none (protocol feature REPLY_ACK). */
export const VHOST_USER_NEED_REPLY = 8;

/** Regions of a memory table at most. */
export const MAX_TABLE_REGIONS = 8;
/** Bytes of configuration in a message at most. */
export const MAX_CONFIG_SIZE = 256;
/** Bytes of a payload at most, whatever the message. */
export const MAX_PAYLOAD_SIZE = 8 + 32 * MAX_TABLE_REGIONS + 16;
/** Descriptors of a message at most. */
export const MAX_DESCRIPTORS = MAX_TABLE_REGIONS;

/** What a payload is; `payloads.ts` reads and writes each. */
export type PayloadKind =
  | "none"
  | "u64"
  | "vringState"
  | "vringAddress"
  | "memoryTable"
  | "region"
  | "log"
  | "config"
  | "inflight"
  | "vringArea";

/** Sizes of payloads in bytes, from and to. Senders write the smaller one; some peers write what their compiler pads it to. */
const SIZES: Readonly<Record<PayloadKind, readonly [from: number, to: number]>> = {
  none: [0, 0],
  u64: [8, 8],
  vringState: [8, 8],
  vringAddress: [40, 40],
  // Its number of regions says how much of it counts; User Mode Linux always sends room for two.
  memoryTable: [8, 8 + 32 * MAX_TABLE_REGIONS],
  region: [40, 40],
  // Without LOG_SHMFD it is the size alone.
  log: [8, 16],
  config: [12, 12 + MAX_CONFIG_SIZE],
  inflight: [20, 24],
  vringArea: [24, 24],
};

/** How many descriptors come with a message, from and to. */
export type DescriptorCount = readonly [from: number, to: number];

/** One kind of message. */
export interface MessageShape {
  /** Its name, as the protocol has it, without VHOST_USER_. */
  readonly name: string;
  /** Its number. */
  readonly id: number;
  /** What it carries. */
  readonly payload: PayloadKind;
  /** How many descriptors come with it. */
  readonly descriptors: DescriptorCount;
  /** What always answers it; null if an answer has to be asked for by VHOST_USER_NEED_REPLY, and is a u64 then. */
  readonly reply: PayloadKind | null;
  /** How many descriptors come with the answer. */
  readonly replyDescriptors: DescriptorCount;
  /** Bits of `ProtocolFeature` that it needs; 0n if none. */
  readonly needs: bigint;
}

function shape(name: string, id: number, rest: Partial<MessageShape> = {}): MessageShape {
  return {
    name,
    id,
    payload: "none",
    descriptors: [0, 0],
    reply: null,
    replyDescriptors: [0, 0],
    needs: 0n,
    ...rest,
  };
}

const P = ProtocolFeature;
const one: DescriptorCount = [1, 1];
const maybe: DescriptorCount = [0, 1];

/** Requests of the front end. */
export const FrontEndRequest: Readonly<
  Record<
    | "GET_FEATURES"
    | "SET_FEATURES"
    | "SET_OWNER"
    | "RESET_OWNER"
    | "SET_MEM_TABLE"
    | "SET_LOG_BASE"
    | "SET_LOG_FD"
    | "SET_VRING_NUM"
    | "SET_VRING_ADDR"
    | "SET_VRING_BASE"
    | "GET_VRING_BASE"
    | "SET_VRING_KICK"
    | "SET_VRING_CALL"
    | "SET_VRING_ERR"
    | "GET_PROTOCOL_FEATURES"
    | "SET_PROTOCOL_FEATURES"
    | "GET_QUEUE_NUM"
    | "SET_VRING_ENABLE"
    | "SEND_RARP"
    | "NET_SET_MTU"
    | "SET_BACKEND_REQ_FD"
    | "GET_CONFIG"
    | "SET_CONFIG"
    | "GET_INFLIGHT_FD"
    | "SET_INFLIGHT_FD"
    | "RESET_DEVICE"
    | "VRING_KICK"
    | "GET_MAX_MEM_SLOTS"
    | "ADD_MEM_REG"
    | "REM_MEM_REG"
    | "SET_STATUS"
    | "GET_STATUS",
    MessageShape
  >
> = {
  GET_FEATURES: shape("GET_FEATURES", 1, { reply: "u64" }),
  SET_FEATURES: shape("SET_FEATURES", 2, { payload: "u64" }),
  SET_OWNER: shape("SET_OWNER", 3),
  RESET_OWNER: shape("RESET_OWNER", 4),
  SET_MEM_TABLE: shape("SET_MEM_TABLE", 5, {
    payload: "memoryTable",
    descriptors: [0, MAX_TABLE_REGIONS],
  }),
  /** Answered only with LOG_SHMFD. */
  SET_LOG_BASE: shape("SET_LOG_BASE", 6, { payload: "log", descriptors: maybe, reply: "u64" }),
  SET_LOG_FD: shape("SET_LOG_FD", 7, { descriptors: one }),
  SET_VRING_NUM: shape("SET_VRING_NUM", 8, { payload: "vringState" }),
  SET_VRING_ADDR: shape("SET_VRING_ADDR", 9, { payload: "vringAddress" }),
  SET_VRING_BASE: shape("SET_VRING_BASE", 10, { payload: "vringState" }),
  GET_VRING_BASE: shape("GET_VRING_BASE", 11, { payload: "vringState", reply: "vringState" }),
  SET_VRING_KICK: shape("SET_VRING_KICK", 12, { payload: "u64", descriptors: maybe }),
  SET_VRING_CALL: shape("SET_VRING_CALL", 13, { payload: "u64", descriptors: maybe }),
  SET_VRING_ERR: shape("SET_VRING_ERR", 14, { payload: "u64", descriptors: maybe }),
  GET_PROTOCOL_FEATURES: shape("GET_PROTOCOL_FEATURES", 15, { reply: "u64" }),
  SET_PROTOCOL_FEATURES: shape("SET_PROTOCOL_FEATURES", 16, { payload: "u64" }),
  /** Needs MQ, but only in the sense that it is offered: front ends ask before they agree on it. */
  GET_QUEUE_NUM: shape("GET_QUEUE_NUM", 17, { reply: "u64" }),
  SET_VRING_ENABLE: shape("SET_VRING_ENABLE", 18, { payload: "vringState" }),
  SEND_RARP: shape("SEND_RARP", 19, { payload: "u64", needs: P.RARP }),
  NET_SET_MTU: shape("NET_SET_MTU", 20, { payload: "u64", needs: P.NET_MTU }),
  SET_BACKEND_REQ_FD: shape("SET_BACKEND_REQ_FD", 21, { descriptors: one, needs: P.BACKEND_REQ }),
  GET_CONFIG: shape("GET_CONFIG", 24, { payload: "config", reply: "config", needs: P.CONFIG }),
  SET_CONFIG: shape("SET_CONFIG", 25, { payload: "config", needs: P.CONFIG }),
  GET_INFLIGHT_FD: shape("GET_INFLIGHT_FD", 31, {
    payload: "inflight",
    reply: "inflight",
    replyDescriptors: maybe,
    needs: P.INFLIGHT_SHMFD,
  }),
  SET_INFLIGHT_FD: shape("SET_INFLIGHT_FD", 32, {
    payload: "inflight",
    descriptors: one,
    needs: P.INFLIGHT_SHMFD,
  }),
  RESET_DEVICE: shape("RESET_DEVICE", 34, { needs: P.RESET_DEVICE }),
  VRING_KICK: shape("VRING_KICK", 35, { payload: "vringState", needs: P.INBAND_NOTIFICATIONS }),
  GET_MAX_MEM_SLOTS: shape("GET_MAX_MEM_SLOTS", 36, {
    reply: "u64",
    needs: P.CONFIGURE_MEM_SLOTS,
  }),
  ADD_MEM_REG: shape("ADD_MEM_REG", 37, {
    payload: "region",
    descriptors: one,
    needs: P.CONFIGURE_MEM_SLOTS,
  }),
  /** Some front ends send a descriptor with it; it is closed. */
  REM_MEM_REG: shape("REM_MEM_REG", 38, {
    payload: "region",
    descriptors: maybe,
    needs: P.CONFIGURE_MEM_SLOTS,
  }),
  SET_STATUS: shape("SET_STATUS", 39, { payload: "u64", needs: P.STATUS }),
  GET_STATUS: shape("GET_STATUS", 40, { reply: "u64", needs: P.STATUS }),
};

/** Requests of the back end, over the socket of SET_BACKEND_REQ_FD. */
export const BackEndRequest: Readonly<
  Record<
    "CONFIG_CHANGE_MSG" | "VRING_HOST_NOTIFIER_MSG" | "VRING_CALL" | "VRING_ERR",
    MessageShape
  >
> = {
  CONFIG_CHANGE_MSG: shape("BACKEND_CONFIG_CHANGE_MSG", 2, { needs: P.CONFIG }),
  /** Never sent here; a front end may meet it. */
  VRING_HOST_NOTIFIER_MSG: shape("BACKEND_VRING_HOST_NOTIFIER_MSG", 3, {
    payload: "vringArea",
    descriptors: maybe,
    needs: P.HOST_NOTIFIER,
  }),
  VRING_CALL: shape("BACKEND_VRING_CALL", 4, {
    payload: "vringState",
    needs: P.INBAND_NOTIFICATIONS,
  }),
  VRING_ERR: shape("BACKEND_VRING_ERR", 5, {
    payload: "vringState",
    needs: P.INBAND_NOTIFICATIONS,
  }),
};

function byId(requests: Readonly<Record<string, MessageShape>>): ReadonlyMap<number, MessageShape> {
  return new Map(Object.values(requests).map((each) => [each.id, each]));
}

/** Requests of the front end by their numbers. */
export const frontEndRequests: ReadonlyMap<number, MessageShape> = byId(FrontEndRequest);
/** Requests of the back end by their numbers. */
export const backEndRequests: ReadonlyMap<number, MessageShape> = byId(BackEndRequest);

/**
 * Checks what came with a request.
 *
 * @param size Bytes of the payload.
 * @param descriptors How many came.
 * @throws {ProtocolError} If it does not fit.
 */
export function checkRequest(shape: MessageShape, size: number, descriptors: number): void {
  checkShape(shape.name, SIZES[shape.payload], shape.descriptors, size, descriptors);
}

/**
 * Checks what came with an answer.
 *
 * @param kind What the answer carries: the message's own, or "u64" for an acknowledgement.
 * @throws {ProtocolError} If it does not fit.
 */
export function checkReply(
  shape: MessageShape,
  kind: PayloadKind,
  size: number,
  descriptors: number,
): void {
  checkShape(
    `The answer to ${shape.name}`,
    // An empty answer stands for an error.
    kind === "config" && size === 0 ? [0, 0] : SIZES[kind],
    shape.reply === null ? [0, 0] : shape.replyDescriptors,
    size,
    descriptors,
  );
}

function checkShape(
  name: string,
  [least, most]: readonly [number, number],
  [fewest, atMost]: DescriptorCount,
  size: number,
  descriptors: number,
): void {
  if (!(size >= least && size <= most)) {
    const wanted = least === most ? `${least}` : `${least} to ${most}`;
    throw new ProtocolError(`${name} has ${wanted} bytes: ${size} came`);
  }
  if (!(descriptors >= fewest && descriptors <= atMost)) {
    const wanted = fewest === atMost ? `${fewest}` : `${fewest} to ${atMost}`;
    throw new ProtocolError(`${name} comes with ${wanted} descriptors: ${descriptors} came`);
  }
}

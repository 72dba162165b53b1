/** What a front end and a back end agree on when they meet. */
import { DeviceId } from "@virtio/device";
import {
  decodeConfig,
  decodeU64,
  encodeConfig,
  encodeU64,
  FrontEndRequest as Request,
  MAX_CONFIG_SIZE,
  MAX_TABLE_REGIONS,
  ProtocolError,
  ProtocolFeature as P,
  VHOST_USER_F_PROTOCOL_FEATURES,
} from "../protocol/mod.ts";
import type { Connection } from "./connection.ts";

/** Protocol features that are built. */
export const FRONT_END_PROTOCOL_FEATURES: bigint = P.MQ | P.LOG_SHMFD | P.RARP | P.REPLY_ACK |
  P.NET_MTU | P.BACKEND_REQ | P.CONFIG | P.INFLIGHT_SHMFD | P.RESET_DEVICE |
  P.CONFIGURE_MEM_SLOTS | P.STATUS;

/** What came of it. */
export interface Agreement {
  /** Features that the back end offers, those of the protocol among them. */
  readonly features: bigint;
  /** Protocol features that both have. */
  readonly protocolFeatures: bigint;
  /** Queues that the back end says it has, or null if it does not say. */
  readonly queues: number | null;
  /** Regions of memory that it takes. */
  readonly slots: number;
  /** The configuration space; empty if it does not show any. */
  readonly config: Uint8Array;
}

/** Before anything came of it. */
export const NO_AGREEMENT: Agreement = {
  features: 0n,
  protocolFeatures: 0n,
  queues: null,
  slots: 0,
  config: new Uint8Array(0),
};

/** Queues of a vhost-user message: their number is one byte. */
export const MAX_QUEUES = 256;

/**
 * Sizes of configuration spaces, by device type, the newest first: back ends refuse more than they know. Other types are asked
 * for as much as there may be, and for less.
 */
const CONFIG_SIZES: ReadonlyMap<number, readonly number[]> = new Map([
  [DeviceId.net, [24, 17, 12, 10, 8, 6]],
  [DeviceId.block, [96, 72, 60, 56, 36, 34, 24, 8]],
  [DeviceId.console, [12, 8, 4]],
  [DeviceId.entropy, []],
]);

const ANY_SIZES: readonly number[] = [MAX_CONFIG_SIZE, 128, 64, 48, 32, 24, 16, 8, 4];

/**
 * Negotiates.
 *
 * @param allowed Protocol features that may be agreed on.
 * @throws {ProtocolError} If an answer makes no sense.
 */
export async function shakeHands(
  connection: Connection,
  deviceType: number,
  allowed: bigint,
  configSize: number | undefined,
): Promise<Agreement> {
  const features = await askU64(connection, Request.GET_FEATURES);
  let offered = 0n;
  let queues: number | null = null;
  let slots = MAX_TABLE_REGIONS;
  if ((features & VHOST_USER_F_PROTOCOL_FEATURES) !== 0n) {
    offered = await askU64(connection, Request.GET_PROTOCOL_FEATURES);
    const agreed = offered & allowed & FRONT_END_PROTOCOL_FEATURES;
    await connection.tell(Request.SET_PROTOCOL_FEATURES, encodeU64(agreed));
    connection.agreed = agreed;
  }
  await connection.tell(Request.SET_OWNER);
  if (connection.has(P.MQ)) {
    const count = await askU64(connection, Request.GET_QUEUE_NUM);
    if (count === 0n) throw new ProtocolError("The back end says that it has no queues");
    queues = count > BigInt(MAX_QUEUES) ? MAX_QUEUES : Number(count);
  }
  if (connection.has(P.CONFIGURE_MEM_SLOTS)) {
    const count = await askU64(connection, Request.GET_MAX_MEM_SLOTS);
    if (count === 0n) throw new ProtocolError("The back end says that it takes no memory");
    slots = Number(count);
  }
  if (connection.has(P.BACKEND_REQ)) await connection.openBackChannel();
  const config = connection.has(P.CONFIG)
    ? await firstConfig(connection, deviceType, configSize)
    : new Uint8Array(0);
  return { features, protocolFeatures: connection.agreed, queues, slots, config };
}

async function firstConfig(
  connection: Connection,
  deviceType: number,
  configSize: number | undefined,
): Promise<Uint8Array> {
  const sizes = configSize === undefined ? CONFIG_SIZES.get(deviceType) ?? ANY_SIZES : [configSize];
  for (const size of sizes) {
    const config = await readConfig(connection, size);
    if (config !== null) return config;
  }
  return new Uint8Array(0);
}

/** The first bytes of the configuration space; null if the back end refuses to show so many. */
export function readConfig(connection: Connection, size: number): Promise<Uint8Array | null> {
  if (size === 0) return Promise.resolve(new Uint8Array(0));
  return connection.ask(
    Request.GET_CONFIG,
    encodeConfig({ offset: 0, flags: 0, bytes: new Uint8Array(size) }),
    ({ payload }) => {
      if (payload.length === 0) return null;
      const { offset, bytes } = decodeConfig(payload);
      if (bytes.length === 0) return null;
      if (offset !== 0 || bytes.length !== size) {
        throw new ProtocolError(
          `${size} bytes of configuration were asked for, and ${bytes.length} from ${offset} came`,
        );
      }
      return bytes;
    },
  );
}

function askU64(
  connection: Connection,
  shape: (typeof Request)[keyof typeof Request],
): Promise<bigint> {
  return connection.ask(shape, undefined, ({ payload }) => decodeU64(payload));
}

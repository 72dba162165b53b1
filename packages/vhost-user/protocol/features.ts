/**
 * What the two sides of a vhost-user connection agree on, beside the features of the device. The names are those of the
 * protocol, with BACKEND where older texts of it had another word.
 */

/** Feature bit of GET_FEATURES: there are protocol features. No device has it. */
export const VHOST_USER_F_PROTOCOL_FEATURES: bigint = 1n << 30n;
/** Feature bit of GET_FEATURES: what the device writes can be logged. No driver sees it. */
export const VHOST_F_LOG_ALL: bigint = 1n << 26n;

/** Protocol features, as the bits of GET_PROTOCOL_FEATURES. */
export const ProtocolFeature: Readonly<
  Record<
    | "MQ"
    | "LOG_SHMFD"
    | "RARP"
    | "REPLY_ACK"
    | "NET_MTU"
    | "BACKEND_REQ"
    | "CROSS_ENDIAN"
    | "CRYPTO_SESSION"
    | "PAGEFAULT"
    | "CONFIG"
    | "BACKEND_SEND_FD"
    | "HOST_NOTIFIER"
    | "INFLIGHT_SHMFD"
    | "RESET_DEVICE"
    | "INBAND_NOTIFICATIONS"
    | "CONFIGURE_MEM_SLOTS"
    | "STATUS",
    bigint
  >
> = {
  /** GET_QUEUE_NUM. */
  MQ: 1n << 0n,
  /** The dirty log is shared memory. */
  LOG_SHMFD: 1n << 1n,
  /** SEND_RARP. */
  RARP: 1n << 2n,
  /** Every message may ask for an acknowledgement. */
  REPLY_ACK: 1n << 3n,
  /** NET_SET_MTU. */
  NET_MTU: 1n << 4n,
  /** A second socket for requests of the back end. */
  BACKEND_REQ: 1n << 5n,
  /** Not built. */
  CROSS_ENDIAN: 1n << 6n,
  /** Not built. */
  CRYPTO_SESSION: 1n << 7n,
  /** Not built. */
  PAGEFAULT: 1n << 8n,
  /** GET_CONFIG, SET_CONFIG. */
  CONFIG: 1n << 9n,
  /** Requests of the back end may carry descriptors. */
  BACKEND_SEND_FD: 1n << 10n,
  /** Not built. */
  HOST_NOTIFIER: 1n << 11n,
  /** Requests in flight are written down in memory that the front end keeps. */
  INFLIGHT_SHMFD: 1n << 12n,
  /** RESET_DEVICE. */
  RESET_DEVICE: 1n << 13n,
  /** Kicks and interrupts are messages. */
  INBAND_NOTIFICATIONS: 1n << 14n,
  /** ADD_MEM_REG and REM_MEM_REG. */
  CONFIGURE_MEM_SLOTS: 1n << 15n,
  /** GET_STATUS, SET_STATUS. */
  STATUS: 1n << 16n,
};

/** Names of the protocol features in a set, for status lines. */
export function protocolFeatureNames(features: bigint): string[] {
  return Object.entries(ProtocolFeature).filter(([, bit]) => (features & bit) !== 0n)
    .map(([name]) => name);
}

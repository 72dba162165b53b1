/** The other side of a vhost-user connection broke the protocol; the connection is of no use any more. */
export class ProtocolError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "ProtocolError";
}

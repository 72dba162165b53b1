/** How the resolver asks others: the part that needs the host's sockets. */

/** A resolver of the outside. */
export interface Resolver {
  /** An address as text. */
  readonly address: string;
  /** 53 mostly. */
  readonly port: number;
}

/** Asks resolvers of the outside. */
export interface DnsUpstream {
  /** The host's own resolvers, the best first. Asked again now and then, since a host may move. */
  resolvers(): readonly Resolver[] | Promise<readonly Resolver[]>;
  /**
   * Sends a message and waits for an answer. Over UDP each call has a socket of its own, connected to the resolver, at a port
   * that nobody can guess.
   *
   * @param accept Whether a message that came is the answer; others are ignored, and waited on.
   * @param signal Ends the waiting: the promise is rejected, the socket closed.
   */
  exchange(
    resolver: Resolver,
    message: Uint8Array,
    via: "udp" | "tcp",
    accept: (answer: Uint8Array) => boolean,
    signal: AbortSignal,
  ): Promise<Uint8Array>;
}

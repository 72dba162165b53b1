/**
 * The way out: what a network needs of the host to reach the outside for its guests. `denoOutside` is Deno's; in a browser it
 * can be made of fetch or a WebSocket relay. Addresses are text, such as `192.0.2.1` or `2001:db8::1`; never names.
 */

/** Why the outside did not do what was wanted, in words that can be told to a guest. */
export type OutsideProblem =
  /** Nobody listens there. */
  | "refused"
  /** No way to the network. */
  | "network"
  /** No way to the host, or it does not answer. */
  | "host"
  /** The host may not, or does not want to. */
  | "prohibited"
  /** The host has no more sockets or memory. */
  | "exhausted"
  /** The port is in use, or the address is not the host's. */
  | "taken"
  /** Anything else. */
  | "failed";

/** The outside did not do what was wanted. */
export class OutsideError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "OutsideError";
  /** What to tell the guest. */
  readonly problem: OutsideProblem;

  /** Makes an error with a sentence. */
  constructor(problem: OutsideProblem, message: string, cause?: unknown) {
    super(message, cause === undefined ? {} : { cause });
    this.problem = problem;
  }
}

/**
 * Bytes both ways, as a TCP connection has them. One read and one write may be under way at a time. The buffers belong to the
 * stream until its promise is settled, also after `close`.
 */
export interface OutsideStream {
  /**
   * Reads at least one byte.
   *
   * @returns How many; null at the end.
   * @throws {Error} If the other side reset the connection: after what it had said before.
   */
  read(into: Uint8Array): Promise<number | null>;
  /**
   * Writes at least one byte.
   *
   * @returns How many.
   * @throws {Error} If nobody takes it any more; its `code` is "EPIPE" if the other side had ended in order before, so that
   *   what it said is whole.
   */
  write(bytes: Uint8Array): Promise<number>;
  /** Nothing more will be written: the other side sees the end. */
  closeWrite(): Promise<void>;
  /** Gives it back; what is under way fails. */
  close(): void;
}

/** Where a stream or a datagram comes from. */
export interface OutsidePeer {
  /** Its address. */
  readonly address: string;
  /** Its port. */
  readonly port: number;
}

/** Something that listens. */
export interface OutsideListener {
  /** Where. */
  readonly address: string;
  /** The port, also if the system chose it. */
  readonly port: number;
  /** Ends it. Streams that were accepted stay. */
  close(): void;
}

/** Takes a datagram. `bytes` are valid during the call. */
export type DatagramHandler = (bytes: Uint8Array, from: OutsidePeer) => void;

/** A socket for datagrams. */
export interface OutsideSocket {
  /** Its address. */
  readonly address: string;
  /** Its port. */
  readonly port: number;
  /** Sends a copy of bytes. What is lost is lost: nothing is thrown. */
  send(bytes: Uint8Array, address: string, port: number): void;
  /** Gives it back. */
  close(): void;
}

/** What can be wanted of a socket for datagrams. */
export interface DatagramOptions {
  /** 4 or 6. */
  readonly version: 4 | 6;
  /** Where it is bound; anywhere unless given. */
  readonly address?: string;
  /** Its port; one that is free unless given. */
  readonly port?: number;
  /** Takes what comes. */
  readonly receive: DatagramHandler;
  /** Told what came back for a datagram, where the system tells: nobody is there. */
  readonly problem?: (problem: OutsideProblem, to: OutsidePeer) => void;
  /** The only one that is talked to, where it is known before: only then problems are told. */
  readonly peer?: OutsidePeer;
}

/** The way out. */
export interface Outside {
  /**
   * Connects to a host.
   *
   * @param signal Ends the attempt.
   * @throws {OutsideError} If it cannot.
   */
  connect(address: string, port: number, signal?: AbortSignal): Promise<OutsideStream>;
  /**
   * Opens a socket for datagrams.
   *
   * @throws {OutsideError} If it cannot.
   */
  datagrams?(options: DatagramOptions): Promise<OutsideSocket>;
  /**
   * Listens for connections.
   *
   * @throws {OutsideError} If it cannot.
   */
  listen?(
    address: string,
    port: number,
    accept: (stream: OutsideStream, from: OutsidePeer) => void,
  ): Promise<OutsideListener>;
  /**
   * Asks a host for an echo (ICMP).
   *
   * @returns Milliseconds; null if it did not answer in time.
   * @throws {OutsideError} If it cannot be asked.
   */
  echo?(address: string, data: Uint8Array, timeout: number): Promise<number | null>;
  /** The networks that the host itself is in, such as `192.0.2.0/24`; those of loopback need not be among them. */
  networks?(): readonly string[];
  /** The addresses of the host's resolvers. */
  resolvers?(): Promise<readonly string[]>;
}

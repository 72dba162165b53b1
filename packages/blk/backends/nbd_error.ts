/** What went wrong with a server. */
export type NbdProblem =
  | "address"
  | "refused"
  | "permission"
  | "protocol"
  | "export"
  | "tls"
  | "request"
  | "lost"
  | "timeout"
  | "changed"
  | "unflushed"
  | "alignment"
  | "write protected"
  | "closed";

/** A network block device that cannot be used, or a request that it refused; the message is one sentence. */
export class NbdError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "NbdError";
  /** What is wrong. */
  readonly problem: NbdProblem;
  /** The server's error number (`EIO` is 5); 0 where there is none. */
  readonly code: number;

  /** Says what is wrong. */
  constructor(problem: NbdProblem, message: string, options?: ErrorOptions & { code?: number }) {
    super(message, options);
    this.problem = problem;
    this.code = options?.code ?? 0;
  }
}

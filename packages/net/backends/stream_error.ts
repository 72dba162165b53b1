/** What became of a stream. */
export type StreamProblem =
  /** Nobody listens there, or there is no such address. */
  | "refused"
  /** The permission for sockets is missing. */
  | "permission"
  /** Something listens at the address already. */
  | "in use"
  /** A length that no frame has. */
  | "bad length"
  /** The stream ended within a frame. */
  | "cut off"
  /** The connection broke. */
  | "lost"
  /** Too many peers. */
  | "too many";

/** A stream that cannot be, or cannot go on; the message is one sentence. */
export class StreamError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "StreamError";
  /** What is wrong. */
  readonly problem: StreamProblem;

  /** Says what is wrong. */
  constructor(problem: StreamProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}

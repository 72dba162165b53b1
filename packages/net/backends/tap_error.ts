/** Why there is no tap. */
export type TapProblem =
  /** Not Linux, or no C library that is known. */
  | "unsupported"
  /** The permission for foreign functions, or the right to use the interface, is missing. */
  | "permission"
  /** There is no `/dev/net/tun`, or no such network namespace. */
  | "missing"
  /** Another program uses the interface. */
  | "busy"
  /** There is an interface of this name that is no tap, or the name is none. */
  | "not a tap"
  /** The interface was removed while it was used. */
  | "gone"
  /** Something else that the system refused. */
  | "system";

/** A tap that cannot be used; the message is one sentence that says what to do. */
export class TapError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "TapError";
  /** What is wrong. */
  readonly problem: TapProblem;

  /** Says what is wrong. */
  constructor(problem: TapProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}

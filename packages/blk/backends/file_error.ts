/** What is wrong with an image. */
export type ImageProblem =
  | "missing"
  | "directory"
  | "not a disk"
  | "permission"
  | "locked"
  | "empty"
  | "odd size"
  | "not direct"
  | "changed"
  | "truncated"
  | "exists"
  | "closed"
  | "write protected";

/** An image that cannot be used; the message is one sentence that names it. */
export class ImageError extends Error {
  /** Tells errors apart by name. */
  override readonly name = "ImageError";
  /** What is wrong. */
  readonly problem: ImageProblem;

  /** Says what is wrong. */
  constructor(problem: ImageProblem, message: string, options?: ErrorOptions) {
    super(message, options);
    this.problem = problem;
  }
}

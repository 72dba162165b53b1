/** What passes between the two halves of the back end in a browser's own storage. */

/** Asks the worker to open a file. The first message. */
export interface OpfsOpen {
  /** Marks the message. */
  readonly opfs: "open";
  /** Path below the origin's root, with slashes. */
  readonly path: string;
  /** Bytes to make the file if there is none; null: there has to be one. */
  readonly size: number | null;
}

/** Asks the worker for something. */
export interface OpfsRequest {
  /** What. */
  readonly opfs: "read" | "write" | "flush" | "zero" | "resize" | "close";
  /** Comes back with the answer. */
  readonly id: number;
  /** First byte; with `resize` the new size. */
  readonly position: number;
  /** Bytes. */
  readonly length: number;
  /** What to write; transferred. */
  readonly bytes: Uint8Array<ArrayBuffer> | null;
}

/** The worker's answer. */
export interface OpfsAnswer {
  /** Marks the message. */
  readonly opfs: "opened" | "done" | "failed";
  /** The request's; 0 for `OpfsOpen`. */
  readonly id: number;
  /** `opened`: the file's size. */
  readonly size: number;
  /** What was read; transferred. */
  readonly bytes: Uint8Array<ArrayBuffer> | null;
  /** `failed`: the error's name and message. */
  readonly name: string;
  /** See `name`. */
  readonly message: string;
}

/** What a run of an example is made of, whichever device and guest it has. */

/** The user's view of a run. */
export interface Progress {
  /** Something begins or has happened; one line. */
  step(line: string): void;
  /** Detail that replaces itself where there is a terminal. */
  detail(line: string): void;
}

/** One thing that was checked. */
export interface Check {
  readonly what: string;
  readonly ok: boolean;
}

/** How a run ended. */
export interface Outcome<Figures> {
  readonly guest: "linux" | "ts";
  readonly checks: readonly Check[];
  readonly figures: Figures;
  /** Milliseconds until the guest took commands. */
  readonly bootMs: number;
  /** Milliseconds of work after that. */
  readonly workMs: number;
}

/** The run cannot go on, for a reason that is the user's to mend: one sentence. */
export class RunError extends Error {
  override readonly name = "RunError";
}

/** Collects checks; a failed one does not end the run, so that the user sees all of them. */
export class Checks {
  readonly list: Check[] = [];

  /** Notes one. */
  add(what: string, ok: boolean): void {
    this.list.push({ what, ok });
  }

  /** Notes why devices asked for a reset, where they did. */
  addErrors(errors: readonly Error[]): void {
    if (errors.length > 0) this.add(`the device asked for no reset (${errors[0]!.message})`, false);
  }
}

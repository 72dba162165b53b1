/** What is known of a normative statement. */

/** Whom a statement binds. */
export type Side = "device" | "driver";
/** The strongest keyword of a statement. */
export type Level = "MUST" | "SHOULD" | "MAY";

/** One statement. */
export interface Clause {
  readonly id: string;
  readonly side: Side;
  readonly level: Level;
}

/** A part of the standard. */
export interface Area {
  /** Its number. */
  readonly number: string;
  /** What it is about. */
  readonly name: string;
  readonly clauses: readonly Clause[];
}

/** Reads the table of an area: a line for each statement, with its id, side and level. */
export function area(number: string, name: string, lines: string): Area {
  const clauses = lines.trim().split("\n").map((line): Clause => {
    const [id, side, level] = line.trim().split(" ") as [string, Side, Level];
    return { id, side, level };
  });
  return { number, name, clauses };
}

/**
 * The normative statements of virtio 1.4 that are in scope: id, side, level; none of their text. An id is the number of the
 * section, then D (device) or G (driver), then the statement's number there.
 *
 * A later chapter comes in by adding its area here; `deno task conformance` then fails until each of its statements is tested
 * or excluded.
 */
import type { Area } from "./clause.ts";
import { CHAPTER_2, CHAPTER_3, CHAPTER_6 } from "./clauses_2_3_6.ts";
import { CHAPTER_4 } from "./clauses_4.ts";
import { SECTION_5_1 } from "./clauses_5_1.ts";
import { SECTION_5_2, SECTION_5_3 } from "./clauses_5_2_3.ts";

export type { Area, Clause, Level, Side } from "./clause.ts";

/** The areas in scope, in the order of the standard. */
export const areas: readonly Area[] = [
  ...CHAPTER_2,
  ...CHAPTER_3,
  ...CHAPTER_4,
  ...SECTION_5_1,
  ...SECTION_5_2,
  ...SECTION_5_3,
  ...CHAPTER_6,
];

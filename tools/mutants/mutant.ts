/** One small breakage: exact pieces of source and what stands in their place. */
export interface Mutant {
  /** Unique, in kebab case; what `--only` takes. */
  readonly name: string;
  /** What is broken, in one line. */
  readonly about: string;
  /** Source and replacement. Each source has to occur exactly once in the file. */
  readonly edits: readonly (readonly [source: string, replacement: string])[];
  /** The breakage makes the device loop for ever, or grow without bound: a run that does not end is what shows it. */
  readonly hangs?: true;
  /** Tests to run first, from the root of the tree: for one that is noticed far from its file, or by a run that hangs. */
  readonly first?: readonly string[];
}

/** The mutants of one file. */
export interface MutatedFile {
  /** From the root of the tree. */
  readonly file: string;
  /** Its mutants. */
  readonly mutants: readonly Mutant[];
}

/** A mutant with its file. */
export interface PlacedMutant extends Mutant {
  /** From the root of the tree. */
  readonly file: string;
}

/** The mutant does not fit the source any more. */
export class MutantError extends Error {
  override readonly name = "MutantError";
}

/**
 * The text with the mutant in it.
 *
 * @throws {MutantError} If a piece of source does not occur exactly once, or is replaced by itself.
 */
export function mutate(mutant: PlacedMutant, text: string): string {
  for (const [source, replacement] of mutant.edits) {
    const at = text.indexOf(source);
    const again = at < 0 ? -1 : text.indexOf(source, at + 1);
    if (at < 0 || again >= 0 || source === replacement) {
      const problem = at < 0
        ? "does not occur any more"
        : again >= 0
        ? "occurs more than once"
        : "is replaced by itself";
      throw new MutantError(
        `Mutant ${mutant.name}: in ${mutant.file} this source ${problem}:\n${source}\n` +
          "The code has moved on: give the mutant the new source in tools/mutants.",
      );
    }
    text = text.slice(0, at) + replacement + text.slice(at + source.length);
  }
  return text;
}

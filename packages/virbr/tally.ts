/** Counts by name what is under way. A name with nothing takes no memory. */
export class Tally {
  readonly #counts: Map<string, number> = new Map();

  /** How many a name has. */
  of(name: string): number {
    return this.#counts.get(name) ?? 0;
  }

  /** One more. */
  enter(name: string): void {
    this.#counts.set(name, this.of(name) + 1);
  }

  /** One less. */
  leave(name: string): void {
    const left = this.of(name) - 1;
    if (left > 0) this.#counts.set(name, left);
    else this.#counts.delete(name);
  }
}

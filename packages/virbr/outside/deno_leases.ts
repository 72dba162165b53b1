/** Leases that survive a restart, in a file. Needs Deno. */
import type { Lease } from "../dhcp/leases.ts";
import type { LeaseStore } from "../options.ts";

/** Bytes of a file at most: more than 65,536 leases need. */
const MOST = 16 * 2 ** 20;

/** Keeps leases in a file, as JSON. It is replaced at once, so that nobody ever finds half of it. */
export class FileLeaseStore implements LeaseStore {
  readonly #path: string;

  /** @param path Of the file; it is made when there is a lease. */
  constructor(path: string) {
    this.#path = path;
  }

  /** @throws {SyntaxError} If the file is none of ours. */
  async load(): Promise<readonly Lease[]> {
    let text: string;
    try {
      const { size } = await Deno.stat(this.#path);
      if (size > MOST) throw new SyntaxError(`${this.#path} is too long for a file of leases`);
      text = await Deno.readTextFile(this.#path);
    } catch (error) {
      if (error instanceof Deno.errors.NotFound) return [];
      throw error;
    }
    const file = JSON.parse(text) as { version?: unknown; leases?: unknown } | null;
    if (file?.version !== 1 || !Array.isArray(file.leases)) {
      throw new SyntaxError(`${this.#path} is no file of leases`);
    }
    return file.leases.filter((lease) => typeof lease === "object" && lease !== null) as Lease[];
  }

  async save(leases: readonly Lease[]): Promise<void> {
    const next = `${this.#path}.new`;
    await Deno.writeTextFile(next, JSON.stringify({ version: 1, leases }, null, 1));
    await Deno.rename(next, this.#path);
  }
}

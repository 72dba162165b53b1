import type { LeaseStore } from "../options.ts";
import type { Leases } from "./leases.ts";

/** Keeps leases over a restart: reads them once, and saves the last state always. */
export class LeaseKeeper {
  readonly #store: LeaseStore | null;
  readonly #leases: Leases;
  readonly #report: (error: unknown) => void;
  #ready = true;
  #saving: Promise<void> | null = null;
  #unsaved = false;

  /**
   * Makes one that has read nothing yet.
   *
   * @param store Null to keep nothing.
   * @param report Told what the store refused.
   */
  constructor(store: LeaseStore | null, leases: Leases, report: (error: unknown) => void) {
    this.#store = store;
    this.#leases = leases;
    this.#report = report;
  }

  /** Whether what was kept is known, or could not be had. */
  get ready(): boolean {
    return this.#ready;
  }

  /** Leases changed: they are saved, one save at a time. */
  changed(): void {
    const store = this.#store;
    if (store === null) return;
    this.#unsaved = true;
    this.#saving ??= this.#save(store).finally(() => this.#saving = null);
  }

  /** Reads what was kept: at once if the store has it at once. @throws What the store said. */
  async load(): Promise<void> {
    if (this.#store === null) return;
    try {
      const loaded = this.#store.load();
      this.#ready = !(loaded instanceof Promise);
      this.#leases.restore(loaded instanceof Promise ? await loaded : loaded);
    } catch (error) {
      this.#report(error);
      throw error;
    } finally {
      this.#ready = true;
    }
  }

  /** Resolves when all is saved. */
  async close(): Promise<void> {
    while (this.#saving !== null) await this.#saving;
  }

  async #save(store: LeaseStore): Promise<void> {
    // What changes in one turn of the event loop is kept at once.
    await Promise.resolve();
    while (this.#unsaved) {
      this.#unsaved = false;
      try {
        await store.save(this.#leases.list());
      } catch (error) {
        this.#report(error);
      }
    }
  }
}

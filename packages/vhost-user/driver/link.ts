/**
 * A front end's link to its back end: one connection after another. Everything that takes messages is done in order, one after
 * the other, and finding the back end again is one of those things.
 */
import { UnixSocket } from "@virtio/linux";
import { BackEndError, type Connection } from "./connection.ts";
import { type Agreement, NO_AGREEMENT } from "./handshake.ts";
import { meet, type Met } from "./meet.ts";
import type { MemoryTable } from "./memory_table.ts";
import type { CheckedOptions } from "./options.ts";

/** What a link asks of its front end, and tells it. */
export interface LinkHandlers {
  /** The connection is gone. */
  lost(): void;
  /**
   * Another back end was met.
   *
   * @throws {RangeError} If it is not one to go on with.
   */
  check(now: Agreement): void;
  /** It is to be given everything. */
  restore(connection: Connection, now: Agreement): Promise<void>;
  /** There is no back end, and none to come. */
  failed(error: Error): void;
  /** The configuration changed. */
  configChanged(): void;
}

/** The link. */
export class Link {
  readonly #options: CheckedOptions;
  readonly #path: string | null;
  readonly #handlers: LinkHandlers;
  #connection: Connection | null = null;
  #agreement: Agreement = NO_AGREEMENT;
  #table: MemoryTable | null = null;
  #tasks: Promise<void> = Promise.resolve();
  /** While a back end is being met, whoever meets it is told of what goes wrong. */
  #meeting = false;
  #failure: Error | null = null;
  #closed = false;
  /** Nobody waits for the back end to come back: what it had is not wanted any more. */
  #hurry = false;

  /**
   * @param path Where the back end is found again; null if it is not.
   * @param met The first back end.
   */
  constructor(options: CheckedOptions, path: string | null, met: Met, handlers: LinkHandlers) {
    this.#options = options;
    this.#path = path;
    this.#handlers = handlers;
    this.#take(met);
  }

  /** The connection, or null while there is none. */
  get connection(): Connection | null {
    return this.#connection;
  }

  /** What was agreed on last. */
  get agreement(): Agreement {
    return this.#agreement;
  }

  /** What the back end was told of memory. */
  get table(): MemoryTable | null {
    return this.#table;
  }

  /** Why there is no back end any more; null if there is one, or may be again. */
  get failure(): Error | null {
    return this.#failure;
  }

  #take({ connection, agreement, table, heard }: Met): void {
    this.#connection = connection;
    this.#agreement = agreement;
    this.#table = table;
    heard.configChanged = () => this.#handlers.configChanged();
    heard.lost = (error) => this.#lost(connection, error);
    // It may have gone before anybody listened.
    if (!connection.open) this.#lost(connection, new BackEndError("The connection broke"));
  }

  /** Does something in its turn, if there is a back end then. What goes wrong costs the connection. */
  inTurn(task: (connection: Connection) => Promise<void>): Promise<void> {
    const done = this.#tasks.then(async () => {
      const connection = this.#connection;
      if (connection === null || this.#closed) return;
      try {
        await task(connection);
      } catch (error) {
        connection.fail(error as Error);
      }
    });
    this.#tasks = done;
    return done;
  }

  #lost(connection: Connection, error: Error): void {
    if (this.#connection !== connection || this.#closed) return;
    this.#connection = null;
    this.#handlers.lost();
    this.#options.onError(error);
    if (this.#meeting) return;
    const { reconnect } = this.#options;
    if (reconnect === null || this.#path === null) this.#fail(error);
    else this.#meetAgain(reconnect.attempts, reconnect.delay, error);
  }

  #fail(error: Error): void {
    if (this.#failure !== null || this.#closed) return;
    this.#failure = error;
    this.#handlers.failed(error);
  }

  #meetAgain(attempts: number, delay: number, reason: Error): void {
    this.#meeting = true;
    this.#tasks = this.#tasks.then(async () => {
      const failure = await this.#tryAgain(attempts, delay, reason);
      this.#meeting = false;
      if (failure === null) this.#failure = null;
      else this.#fail(failure);
    });
  }

  /** @returns Why it did not work, or null. */
  async #tryAgain(attempts: number, delay: number, reason: Error): Promise<Error | null> {
    let last = reason;
    for (let i = 0; i < attempts && !this.#closed; i++) {
      if (i > 0) await new Promise((resolve) => setTimeout(resolve, delay));
      if (this.#closed || (this.#hurry && i > 0)) break;
      try {
        const met = await meet(UnixSocket.connect(this.#path!), this.#options);
        this.#take(met);
        this.#handlers.check(met.agreement);
        await this.#handlers.restore(met.connection, met.agreement);
        if (this.#connection !== null) return null;
      } catch (error) {
        last = error as Error;
        this.#connection?.close();
        this.#connection = null;
        this.#handlers.lost();
        // Another device is there, or one that lost what is needed: that does not get better.
        if (error instanceof RangeError) break;
      }
    }
    return last;
  }

  /**
   * Does something in its turn that ends what the back end had; one that went away is not waited for, but looked for once.
   *
   * @returns Resolves when that is done.
   */
  async restart(task: (connection: Connection) => Promise<void>): Promise<void> {
    this.#hurry = true;
    await this.inTurn(task);
    this.#hurry = false;
    if (this.#connection === null && this.#path !== null && !this.#closed && !this.#meeting) {
      this.#meetAgain(1, 0, new BackEndError("There is no back end"));
    }
    await this.#tasks;
  }

  /** Closes the connection. @returns Resolves when nothing is under way. */
  async close(): Promise<void> {
    this.#closed = true;
    this.#connection?.close();
    this.#connection = null;
    await this.#tasks;
  }
}

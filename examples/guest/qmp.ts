/** A client of QMP, QEMU's protocol for machines: one JSON object a line, over a Unix socket. */

/** What QEMU refused, or that it is gone. */
export class QmpError extends Error {
  override readonly name: string = "QmpError";
}

/** Something that QEMU tells unasked. */
export interface QmpEvent {
  readonly event: string;
  readonly data: Record<string, unknown>;
}

interface Waiting {
  readonly resolve: (value: unknown) => void;
  readonly reject: (error: Error) => void;
}

/** A connection to a running QEMU. */
export class Qmp implements Disposable {
  readonly #connection: Deno.UnixConn;
  readonly #commands = new Map<number, Waiting>();
  readonly #events: QmpEvent[] = [];
  readonly #listeners = new Set<() => void>();
  #gone: QmpError | null = null;
  #next = 1;

  private constructor(connection: Deno.UnixConn) {
    this.#connection = connection;
    void this.#read();
  }

  /** Connects, and waits until QEMU takes commands. @throws {QmpError} If it is not there in `timeout` milliseconds. */
  static async connect(path: string, timeout = 10_000): Promise<Qmp> {
    const until = performance.now() + timeout;
    for (;;) {
      try {
        const qmp = new Qmp(await Deno.connect({ transport: "unix", path }));
        await qmp.execute("qmp_capabilities");
        return qmp;
      } catch (error) {
        if (error instanceof QmpError) throw error;
        if (performance.now() > until) {
          throw new QmpError(`QEMU does not answer at ${path}: ${(error as Error).message}`);
        }
        await new Promise((resolve) => setTimeout(resolve, 20));
      }
    }
  }

  async #read(): Promise<void> {
    let reason = "it has ended";
    try {
      let rest = "";
      for await (const text of this.#connection.readable.pipeThrough(new TextDecoderStream())) {
        const lines = (rest + text).split("\n");
        rest = lines.pop()!;
        for (const line of lines) if (line.trim() !== "") this.#take(JSON.parse(line));
      }
    } catch (error) {
      reason = (error as Error).message;
    }
    this.#gone ??= new QmpError(`The connection to QEMU is gone: ${reason}`);
    for (const { reject } of this.#commands.values()) reject(this.#gone);
    this.#commands.clear();
    for (const listener of this.#listeners) listener();
  }

  #take(message: Record<string, unknown>): void {
    if (typeof message.event === "string") {
      const data = (message.data ?? {}) as Record<string, unknown>;
      this.#events.push({ event: message.event, data });
      for (const listener of this.#listeners) listener();
      return;
    }
    const waiting = this.#commands.get(message.id as number);
    if (waiting === undefined) return; // the greeting
    this.#commands.delete(message.id as number);
    if (message.error === undefined) return waiting.resolve(message.return);
    waiting.reject(new QmpError((message.error as { desc: string }).desc));
  }

  /** Runs a command. @throws {QmpError} If QEMU refuses it. */
  async execute<T = unknown>(command: string, args: Record<string, unknown> = {}): Promise<T> {
    if (this.#gone !== null) throw this.#gone;
    const id = this.#next++;
    const answer = new Promise<unknown>((resolve, reject) => {
      this.#commands.set(id, { resolve, reject });
    });
    const line = new TextEncoder().encode(
      `${JSON.stringify({ execute: command, arguments: args, id })}\n`,
    );
    try {
      for (let at = 0; at < line.length;) at += await this.#connection.write(line.subarray(at));
    } catch (error) {
      this.#commands.delete(id);
      throw new QmpError(`The connection to QEMU is gone: ${(error as Error).message}`);
    }
    return await answer as T;
  }

  /** A command of QEMU's monitor for people. @returns What it prints. */
  monitor(command: string): Promise<string> {
    return this.execute("human-monitor-command", { "command-line": command });
  }

  /** Events so far. */
  get events(): readonly QmpEvent[] {
    return this.#events;
  }

  /** The first event that is wanted, of those from `since` on. @throws {QmpError} If it does not come in time. */
  event(
    wanted: (event: QmpEvent) => boolean,
    since = 0,
    timeout = 30_000,
  ): Promise<QmpEvent> {
    return new Promise((resolve, reject) => {
      const stop = (): void => {
        clearTimeout(timer);
        this.#listeners.delete(look);
      };
      const look = (): void => {
        const found = this.#events.slice(since).find(wanted);
        if (found !== undefined) {
          stop();
          resolve(found);
        } else if (this.#gone !== null) {
          stop();
          reject(this.#gone);
        }
      };
      const timer = setTimeout(() => {
        stop();
        reject(new QmpError(`QEMU told of nothing that was waited for in ${timeout / 1000} s`));
      }, timeout);
      this.#listeners.add(look);
      look();
    });
  }

  /** Leaves QEMU alone. */
  [Symbol.dispose](): void {
    this.#gone ??= new QmpError("The connection to QEMU was closed");
    try {
      this.#connection.close();
    } catch {
      // QEMU was faster.
    }
  }
}

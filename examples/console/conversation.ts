/** Talks to a guest as somebody at its console would: waits for the prompt, types a line, reads what comes. */
import type { MemoryConsole } from "@virtio/console/memory";
import { RunError } from "../shared/run.ts";

/** What a command at the console did. */
export interface Answer {
  readonly status: number;
  /** What it wrote, with plain newlines and without colours. */
  readonly output: string;
}

// deno-lint-ignore no-control-regex -- that is what such sequences begin with
const SEQUENCES = /\x1b\[[0-9;?]*[A-Za-z]/g;

/** A conversation over a console port. */
export class Conversation {
  readonly #console: MemoryConsole;

  constructor(console: MemoryConsole) {
    this.#console = console;
  }

  /** Waits for a text. @throws {RunError} If it does not come. */
  async expect(text: string | RegExp, timeout = 60_000): Promise<string> {
    try {
      return await this.#console.expect(text, timeout);
    } catch (error) {
      throw new RunError((error as Error).message.replaceAll(/\s+/g, " "));
    }
  }

  /** Types. */
  async type(keys: string): Promise<void> {
    await this.#console.send(keys);
  }

  /** Logs in as root, at the prompt of a getty. @returns What came before the prompt. */
  async logIn(timeout: number): Promise<string> {
    const before = await this.expect("login: ", timeout);
    await this.type("root\n");
    await this.expect("# ");
    return before;
  }

  /** Runs a line in the shell, and waits for its next prompt: keys before that may meet a terminal in another mode. */
  async run(line: string, timeout?: number): Promise<Answer> {
    // The echo of the line has quotes where the answer has none.
    await this.type(`echo @''begin; ${line}; echo @''end $?\n`);
    const pattern = /@begin\r?\n([^]*?)@end (\d+)\r?\n/;
    const [, output, status] = pattern.exec(await this.expect(pattern, timeout))!;
    await this.expect("# ");
    return {
      status: Number(status),
      output: output!.replaceAll("\r\n", "\n").replaceAll(SEQUENCES, "").replace(/\n$/, ""),
    };
  }
}

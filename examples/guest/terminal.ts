/** The user's terminal as a source of bytes for a guest. */

/** Input from a terminal in raw mode, or from a pipe as it is. */
export interface TerminalInput extends Disposable {
  /** What comes in. Ends with the input. */
  readonly chunks: AsyncIterable<Uint8Array>;
}

/** Takes the terminal over until disposed of: keys go to the guest one by one, Ctrl-C among them. */
export function terminalInput(): TerminalInput {
  const raw = Deno.stdin.isTerminal();
  if (raw) Deno.stdin.setRaw(true);
  const reader = Deno.stdin.readable.getReader();
  async function* chunks(): AsyncGenerator<Uint8Array> {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      yield value;
    }
  }
  return {
    chunks: chunks(),
    [Symbol.dispose]: () => {
      if (raw) Deno.stdin.setRaw(false);
      // A read that waits for a key would keep the process from ending.
      reader.cancel().catch(() => {});
    },
  };
}

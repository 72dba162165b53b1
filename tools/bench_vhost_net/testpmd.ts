/** DPDK's testpmd, told what to do over its command line. */

/** Looks for an answer, and milliseconds between them. */
const LOOKS = 5000;
const LOOK = 2;

export const pause = (ms: number): Promise<void> =>
  new Promise((resolve) => setTimeout(resolve, ms));

/** One testpmd, whose threads share a processor: that of its commands sleeps. */
export class Testpmd implements AsyncDisposable {
  readonly #child: Deno.ChildProcess;
  readonly #input: WritableStreamDefaultWriter<Uint8Array>;
  readonly #read: Promise<unknown>;
  /** What it said, and what its drivers wrote down. */
  #said = "";
  #log = "";
  #ended = false;

  /**
   * @param name Tells it from others that run.
   * @param device What it is to make, as for --vdev.
   */
  constructor(name: string, processor: number, device: string) {
    const child = this.#child = new Deno.Command("stdbuf", {
      // Its statistics would stay in the buffer of a pipe.
      args: [
        ...["-oL", "dpdk-testpmd"],
        ...[`--lcores=0@${processor},1@${processor}`, "--no-huge", "-m", "128", "--no-pci"],
        ...["--no-telemetry", "--log-level=pmd.net.virtio.init:debug", `--file-prefix=${name}`],
        ...[`--vdev=${device}`, "--", "-i"],
        ...["--total-num-mbufs=4096", "--no-mlockall", "--no-lsc-interrupt"],
      ],
      stdin: "piped",
      stdout: "piped",
      stderr: "piped",
    }).spawn();
    this.#input = child.stdin.getWriter();
    this.#read = Promise.all([
      this.#listen(child.stdout, (text) => this.#said += text),
      this.#listen(child.stderr, (text) => this.#log += text),
      child.status.then(() => this.#ended = true),
    ]);
  }

  async #listen(stream: ReadableStream<Uint8Array>, hear: (text: string) => void): Promise<void> {
    const decoder = new TextDecoder();
    for await (const bytes of stream) hear(decoder.decode(bytes, { stream: true }));
  }

  /** What the drivers wrote down. */
  get log(): string {
    return this.#log;
  }

  /** Gives commands, and returns what was said from then on, up to something. @throws {Error} If that never comes. */
  async say(text: string, until: RegExp): Promise<RegExpMatchArray> {
    const from = this.#said.length;
    await this.#input.write(new TextEncoder().encode(text));
    return await this.expect(until, from);
  }

  /** Waits until it said something. @throws {Error} If it never does, with what it said instead. */
  async expect(until: RegExp, from = 0): Promise<RegExpMatchArray> {
    for (let look = 0; look < LOOKS && !this.#ended; look++) {
      const match = this.#said.slice(from).match(until);
      if (match !== null) return match;
      await pause(LOOK);
    }
    throw new Error(
      `testpmd ${this.#ended ? "ended" : "hangs"} before it said ${until}:\n` +
        `${this.#said.slice(-500)}\n${this.#log.slice(-500)}`,
    );
  }

  /** Waits until it takes commands. */
  async ready(): Promise<void> {
    await this.expect(/testpmd> /);
  }

  /** Frames that its port has received. */
  async received(): Promise<number> {
    return Number((await this.say("show port stats 0\n", /RX-packets: (\d+)[^]*Tx-pps/))[1]);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    if (!this.#ended) this.#child.kill("SIGKILL");
    await this.#child.status;
    await this.#read;
    await this.#input.abort().catch(() => {});
  }
}

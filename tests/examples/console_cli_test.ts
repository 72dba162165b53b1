/** example:console as its user meets it: what it prints, its exit status, and a terminal given back as it was. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import {
  assertOneSentence,
  exampleCommand,
  lastLine,
  runExample,
  testHelp,
  testRefused,
  testWithoutKernel,
} from "./testing.ts";

testHelp("console", ["--transport", "--ring", "--port NAME=unix:PATH", "Ctrl-A x", "--escape"]);

testRefused("console", [
  [["--frobnicate"], "--frobnicate"],
  [["--transport", "usb"], "pci or mmio"],
  [["--port", "log"], "NAME=FILE"],
  [["--port", "agent=unix:"], "NAME=unix:PATH"],
  [["--port", "a/b=file"], "letters, digits"],
  [["--port", "a=1", "--port", "a=2"], "already a port named a"],
  [["--port", "example.data=x"], "already a port named example.data"],
  [["--escape", "m"], "--escape"],
  [["--escape", "ab"], "--escape"],
  [["--megabytes", "0"], "1 to 256"],
  [["--ring", "split", "--ring", "packed"], "once"],
  [["--guest", "ts", "--kernel", "x"], "--guest linux"],
]);

Deno.test("example:console says that the end of a port cannot be opened", async () => {
  for (const end of ["/nowhere/log", "unix:/nowhere/socket"]) {
    const { code, err } = await runExample("console", ["--guest", "ts", "--port", `one=${end}`]);
    assertEquals(code, 1);
    assertOneSentence("console", err);
    assertStringIncludes(err, "/nowhere/");
  }
});

for (const transport of ["pci", "mmio"]) {
  for (const ring of ["split", "packed"]) {
    Deno.test(`example:console --guest ts over ${transport}, ${ring} ring: ports at a file and a socket`, async () => {
      const folder = await Deno.makeTempDir();
      try {
        await Deno.writeTextFile(`${folder}/log`, "before\n");
        const { code, out, err } = await runExample("console", [
          ...["--guest", "ts", "--json", "--transport", transport, "--ring", ring],
          ...["--port", `log=${folder}/log`, "--port", `agent=unix:${folder}/agent`],
        ]);
        assertEquals([code, err], [0, ""]);
        const { ok, figures } = lastLine<{ outputBytes: number; inputBytes: number }>(out);
        assertEquals(ok, true);
        assert(figures.outputBytes > 2 ** 20 && figures.inputBytes > 2 ** 20);
        const log = await Deno.readTextFile(`${folder}/log`);
        assert(log.startsWith("before\nwritten by our driver, "), log);
        // The socket went with the program.
        assertEquals([...Deno.readDirSync(folder)].map(({ name }) => name), ["log"]);
      } finally {
        await Deno.remove(folder, { recursive: true });
      }
    });
  }
}

testWithoutKernel("console");

const ignore = await guestFiles() === null;

Deno.test({
  name: "example:console without a terminal logs in to Linux and checks what it says",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    try {
      const { code, out, err } = await runExample("console", [
        ...["--json", "--port", `log=${folder}/log`, "--port", `agent=unix:${folder}/agent`],
      ]);
      assertEquals([code, err], [0, ""]);
      assertEquals(lastLine(out).ok, true);
      assertStringIncludes(await Deno.readTextFile(`${folder}/log`), "written by Linux");
      assertStringIncludes(out, "The console works: Linux and the host understand each other.");
    } finally {
      await Deno.remove(folder, { recursive: true });
    }
  },
});

/** A program on a terminal of its own, which `script` (util-linux) makes. */
class OnTerminal {
  readonly #child: Deno.ChildProcess;
  readonly #writer: WritableStreamDefaultWriter<Uint8Array>;
  readonly #decoder = new TextDecoder();
  readonly #reader: ReadableStreamDefaultReader<Uint8Array>;
  #text = "";

  constructor(command: string) {
    this.#child = new Deno.Command("script", {
      args: ["--quiet", "--flush", "--return", "--command", command, "/dev/null"],
      env: { TERM: "xterm-256color", SHELL: "/bin/sh" },
      stdin: "piped",
      stdout: "piped",
      stderr: "inherit",
    }).spawn();
    this.#writer = this.#child.stdin.getWriter();
    this.#reader = this.#child.stdout.getReader();
  }

  async type(keys: string): Promise<void> {
    await this.#writer.write(new TextEncoder().encode(keys));
  }

  async #more(): Promise<boolean> {
    const { value, done } = await this.#reader.read();
    if (done) return false;
    this.#text += this.#decoder.decode(value, { stream: true });
    return true;
  }

  /** Reads until a text has come. */
  async expect(text: RegExp): Promise<RegExpExecArray> {
    const timer = setTimeout(() => this.#child.kill(), 120_000);
    try {
      for (;;) {
        const match = text.exec(this.#text);
        if (match !== null) {
          this.#text = this.#text.slice(match.index + match[0].length);
          return match;
        }
        if (!await this.#more()) throw new Error(`${text} did not come: ${this.#text}`);
      }
    } finally {
      clearTimeout(timer);
    }
  }

  async end(): Promise<{ code: number; text: string }> {
    while (await this.#more());
    const { code } = await this.#child.status;
    await this.#writer.close().catch(() => {});
    return { code, text: this.#text };
  }
}

Deno.test({
  name: "example:console on a terminal: its size, a resize, Ctrl-C, colours, and a key to leave",
  ignore,
  fn: async () => {
    const quoted = [Deno.execPath(), ...exampleCommand("console", ["--escape", "B"])]
      .map((word) => `'${word}'`).join(" ");
    // What the terminal was like before and is like after.
    const user = new OnTerminal(
      `stty cols 100 rows 30; tty; stty -g; ${quoted}; echo status=$?; stty -g`,
    );
    const tty = (await user.expect(/(\/dev\/\S+)\r\n/))[1]!;
    const before = (await user.expect(/([0-9a-f]+:\S+)\r\n/))[1]!;
    await user.expect(/Ctrl-B x leaves/);
    await user.expect(/login: /);
    await user.type("root\r");
    // deno-lint-ignore no-control-regex -- the prompt is in colours
    await user.expect(/\x1b\[1;32mvirtio\x1b\[0m/);
    await user.type("stty size; echo $TERM\r");
    await user.expect(/30 100\r+\n[^]*xterm-256color\r+\n/);
    const { success } = await new Deno.Command("stty", {
      args: ["-F", tty, "cols", "123", "rows", "45"],
    }).output();
    assert(success);
    await user.type(
      "for i in 1 2 3 4 5 6 7 8 9; do [ \"$(stty size)\" = '45 123' ] || usleep 100000; done; stty size\r",
    );
    await user.expect(/45 123\r+\n/);
    await user.type("sh -c \"echo wait''ing; exec sleep 1000\"\r");
    await user.expect(/waiting\r+\n/);
    await user.type("\x03");
    await user.expect(/# /);
    await user.type("echo status''=$?\r");
    await user.expect(/status=130\r+\n/);
    await user.type("\x02x");
    await user.expect(/you left the guest/);
    const { code, text } = await user.end();
    assertEquals(code, 0);
    assertStringIncludes(text, "status=0\r\n");
    assertEquals(text.trimEnd().split(/\s+/).at(-1), before, "the terminal is as it was");
  },
});

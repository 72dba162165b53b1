/** Runs examples as their users do. */
import { assertEquals, assertMatch, assertStringIncludes } from "@std/assert";

const root = new URL("../..", import.meta.url).pathname;

/** How an example ended. */
export interface Ended {
  readonly code: number;
  readonly out: string;
  readonly err: string;
}

/** What a user gives beside arguments. */
export interface RunOptions {
  /** Standard input; "" leaves it open. */
  readonly stdin?: string;
  readonly env?: Record<string, string>;
}

/** The command that runs an example. */
export function exampleCommand(name: string, args: readonly string[]): string[] {
  return [
    ...["run", "-A", "--quiet", "--v8-flags=--liftoff-only"],
    ...[`${root}examples/${name}.ts`, ...args],
  ];
}

/** Runs an example to its end. */
export async function runExample(
  name: string,
  args: readonly string[],
  options: RunOptions = {},
): Promise<Ended> {
  const child = new Deno.Command(Deno.execPath(), {
    args: exampleCommand(name, args),
    cwd: root,
    env: { NO_COLOR: "1", ...options.env },
    stdin: "piped",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  const writer = child.stdin.getWriter();
  if (options.stdin !== undefined) await writer.write(new TextEncoder().encode(options.stdin));
  if (options.stdin !== "") await writer.close().catch(() => {});
  const { code, stdout, stderr } = await child.output();
  const decoder = new TextDecoder();
  return { code, out: decoder.decode(stdout), err: decoder.decode(stderr) };
}

/** The JSON object in the last line. */
export function lastLine<Figures>(
  out: string,
): { ok: boolean; guest: string; figures: Figures } {
  return JSON.parse(out.trimEnd().split("\n").at(-1)!);
}

/** An error is one sentence, and says whose it is. */
export function assertOneSentence(name: string, text: string): void {
  assertMatch(text, new RegExp(`^example:${name}: [^\n]+\n$`));
}

/** A test that --help tells the user of these words. */
export function testHelp(name: string, words: readonly string[]): void {
  Deno.test(`example:${name} --help says what there is and ends with 0`, async () => {
    const { code, out, err } = await runExample(name, ["--help"]);
    assertEquals([code, err], [0, ""]);
    for (const word of words) assertStringIncludes(out, word);
  });
}

/** For each list of arguments a test that it is refused in one sentence, which contains the text. */
export function testRefused(
  name: string,
  cases: readonly (readonly [args: readonly string[], says: string])[],
): void {
  for (const [args, says] of cases) {
    Deno.test(`example:${name} ${args.join(" ")} is refused in one sentence`, async () => {
      const { code, out, err } = await runExample(name, args);
      assertEquals([code, out], [2, ""]);
      assertOneSentence(name, err);
      assertStringIncludes(err, says);
    });
  }
}

/** A test that without a network and without a kernel it goes on with this project's own driver. */
export function testWithoutKernel(name: string): void {
  Deno.test(`example:${name} goes on with --guest ts where no kernel can be had`, async () => {
    const cache = await Deno.makeTempDir();
    try {
      const { code, out } = await runExample(name, ["--json"], {
        env: { PATH: "/nowhere", VIRTIO_GUEST_CACHE: cache },
      });
      assertEquals(code, 0);
      assertStringIncludes(out, "Going on with --guest ts");
      assertEquals(lastLine(out).guest, "ts");
    } finally {
      await Deno.remove(cache, { recursive: true });
    }
  });
}

/** Runs examples as their users do. */
import { assertMatch } from "@std/assert";

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

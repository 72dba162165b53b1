/** Which tests notice what, and how a part of the suite is run. */

/** Everything that runs without a guest and in seconds, where most is noticed soonest first. */
export const FAST_SUITE: readonly string[] = [
  "packages/memory",
  "packages/vring",
  "packages/device",
  "packages/transport",
  "packages/blk",
  "packages/console",
  "packages/net",
  "packages/virbr",
  "packages/worker",
  "packages/vhost-user",
  "tests/conformance",
  "tests/memory",
  "tests/blk_matrix_test.ts",
  "tests/console_matrix_test.ts",
  "tests/net_matrix_test.ts",
  "tests/lifecycle",
  "tests/hostile",
  "tests/interleaving",
  "tests/properties",
];

/** Where to look first: the tests beside the code, then those of all packages together, then those of other packages. */
export function orderFor(
  file: string,
  first: readonly string[],
  suite: readonly string[],
): string[] {
  const beside = suite.filter((path) => file.startsWith(`${path}/`));
  const rules = suite.filter((path) => path.startsWith("tests/"));
  return [...new Set([...first, ...beside, ...rules, ...suite])];
}

/** How a run ended. */
export interface SuiteRun {
  /**
   * - `passed`: every test did.
   * - `failed`: a test did not, or a module threw when it was loaded.
   * - `late`: it was stopped at the time limit.
   * - `died`: the process ended without a verdict, such as out of memory.
   */
  readonly end: "passed" | "failed" | "late" | "died";
  /** The test that failed. */
  readonly test: string | null;
  /** Where it is, from the root of the tree. */
  readonly place: string | null;
  /** Seconds. */
  readonly seconds: number;
  /** What deno wrote. */
  readonly output: string;
}

/**
 * Runs tests in a copy of the tree, up to the first failure.
 *
 * @param root The copy.
 * @param path A folder or a file, from there.
 * @param limit Milliseconds after which the run is stopped.
 */
export async function runSuite(
  root: string,
  path: string,
  limit: number,
): Promise<SuiteRun> {
  const start = performance.now();
  const child = new Deno.Command(Deno.execPath(), {
    args: [
      "test",
      "-A",
      // Types are not what is measured.
      "--no-check",
      "--fail-fast",
      // A mutant may collect chains without end.
      "--v8-flags=--expose-gc,--max-old-space-size=512",
      path,
    ],
    cwd: root,
    env: { NO_COLOR: "1" },
    stdin: "null",
    stdout: "piped",
    stderr: "piped",
  }).spawn();
  let late = false;
  const timer = setTimeout(() => {
    late = true;
    // Not SIGTERM: an endless loop would not notice it.
    child.kill("SIGKILL");
  }, limit);
  const { success, stdout, stderr } = await child.output();
  clearTimeout(timer);
  const decoder = new TextDecoder();
  const output = decoder.decode(stdout) + decoder.decode(stderr);
  const seconds = (performance.now() - start) / 1000;
  const failure = / FAILURES \s+(.+?) => (?:\.\/)?(\S+?)(?::\d+)*\n/.exec(output);
  const end = late
    ? "late"
    : success
    ? "passed"
    : failure !== null || /^FAILED \|/m.test(output)
    ? "failed"
    : "died";
  return {
    end,
    test: failure?.[1] ?? null,
    place: failure?.[2] ?? null,
    seconds,
    output,
  };
}

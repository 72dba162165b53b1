/**
 * Everything that must hold before a change lands, in one command: `deno task test`.
 *
 * Format, lint, types, layers, a dry run of publishing, then all tests: units, doc examples, conformance, hostile drivers,
 * fuzzing, and real guests. Ends with one plain line, `N passed, N failed`.
 *
 * Arguments are passed on to `deno test` in place of the default folders, for a part of the suite:
 * `deno task test packages/vring`. Tests that take minutes stand in files named `*_long_test.ts`; `deno task test:long` runs
 * those and nothing else.
 */
import { installPackages, missingPackages, TEST_PACKAGES } from "./debian.ts";

const root = new URL("..", import.meta.url).pathname;
const inCi = (Deno.env.get("CI") ?? "") !== "";
const report = `${root}.cache/junit.xml`;

/** Runs deno with arguments, its output shown. */
async function deno(args: string[], quiet = false): Promise<boolean> {
  const command = new Deno.Command(Deno.execPath(), {
    args,
    cwd: root,
    stdin: "null",
    stdout: quiet ? "piped" : "inherit",
    stderr: quiet ? "piped" : "inherit",
  });
  const output = await command.output();
  if (quiet && !output.success) {
    await Deno.stdout.write(output.stdout);
    await Deno.stderr.write(output.stderr);
  }
  return output.success;
}

/** What the report of `deno test` counts. */
async function readReport(): Promise<{ passed: number; failed: number; skipped: number }> {
  const text = await Deno.readTextFile(report);
  let tests = 0;
  let failed = 0;
  let skipped = 0;
  for (const [, attributes] of text.matchAll(/<testsuite ([^>]*)>/g)) {
    const count = (name: string): number =>
      Number(new RegExp(`\\b${name}="(\\d+)"`).exec(attributes!)?.[1] ?? 0);
    tests += count("tests");
    failed += count("failures") + count("errors");
    skipped += count("disabled") + count("skipped");
  }
  return { passed: tests - failed - skipped, failed, skipped };
}

/** The files of tests that take minutes. */
async function longTests(folder = "tests"): Promise<string[]> {
  const found: string[] = [];
  for await (const entry of Deno.readDir(root + folder)) {
    const path = `${folder}/${entry.name}`;
    if (entry.isDirectory) found.push(...await longTests(path));
    else if (entry.name.endsWith("_long_test.ts")) found.push(path);
  }
  return found.sort();
}

let passed = 0;
let failed = 0;
let skipped = 0;
const failures: string[] = [];

async function step(name: string, run: () => Promise<boolean>): Promise<void> {
  const start = performance.now();
  const ok = await run();
  const seconds = ((performance.now() - start) / 1000).toFixed(1);
  console.log(`${ok ? "ok    " : "FAILED"}  ${name} (${seconds} s)`);
  if (ok) passed++;
  else {
    failed++;
    failures.push(name);
  }
}

await Deno.mkdir(`${root}.cache`, { recursive: true });
const long = Deno.args.includes("--long");
const chosen = Deno.args.filter((argument) => argument !== "--long");
if (long || chosen.length === 0) {
  // All at once, before tests that run beside each other want them one by one.
  const missing = await missingPackages(TEST_PACKAGES);
  if (missing.length > 0) console.log(`installing ${missing.join(", ")} through apt`);
  await installPackages(TEST_PACKAGES);
}
if (!long && chosen.length === 0) {
  const publish = ["publish", "--dry-run", "--allow-dirty", "--quiet"];
  await step("deno fmt --check", () => deno(["fmt", "--check", "--quiet"], true));
  await step("deno lint", () => deno(["lint", "--quiet"], true));
  await step("deno check", () => deno(["check", "--quiet", "."], true));
  await step("layers", () => deno(["run", "-A", "tools/check_layers.ts"], true));
  await step("deno publish --dry-run", () => deno(publish, true));
  await step("every clause in scope has a test", () => deno(["task", "conformance"], true));
}

await Deno.remove(report).catch(() => {});
const tested = await deno([
  "test",
  "-A",
  "--doc",
  // What takes minutes has the machine to itself.
  ...(long ? [] : ["--parallel", "--ignore=**/*_long_test.ts"]),
  "--preload=tools/same_cases.ts",
  // WebAssembly compiled by the base line compiler only: a guest boots in half the time.
  "--v8-flags=--liftoff-only,--expose-gc",
  `--junit-path=${report}`,
  ...(chosen.length > 0 ? chosen : long ? await longTests() : ["packages", "examples", "tests"]),
]);
try {
  const counts = await readReport();
  passed += counts.passed;
  failed += counts.failed;
  skipped = counts.skipped;
  if (!tested && counts.failed === 0) {
    failed++;
    failures.push("deno test ended with an error that no test reported");
  }
} catch {
  failed++;
  failures.push("deno test wrote no report");
}
if (skipped > 0) {
  console.log(
    inCi
      ? `${skipped} tests were skipped: in CI that is a failure`
      : `${skipped} TESTS WERE SKIPPED: a real guest or a tool was not to be had`,
  );
  if (inCi) failed += skipped;
}
for (const failure of failures) console.log(`FAILED: ${failure}`);
const line = `${passed} passed, ${failed} failed`;
console.log(skipped > 0 ? `${line}, ${skipped} skipped` : line);
if (failed > 0) Deno.exit(1);

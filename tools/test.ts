/**
 * Everything that must hold before a change lands, in one command: `deno task test`.
 *
 * Format, lint, types, layers, a dry run of publishing, then all tests: units, doc examples, conformance, hostile drivers,
 * fuzzing, and real guests. Ends with one plain line, `N passed, N failed`.
 *
 * Tests that take minutes stand in files named `*_long_test.ts`; `deno task test:long` runs those and nothing else. Tests that
 * count what the process has open stand in files named `*_alone_test.ts`: they run one after the other, since test files that
 * run beside each other share a process.
 */
import { installPackages, missingPackages, TEST_PACKAGES } from "./debian.ts";
import { filesBelow } from "./files.ts";

const HELP = `deno task test [part of the suite...]

Everything that must hold: format, lint, types, layers, a dry run of publishing, and all tests, real guests among them. Ends
with one line, "N passed, N failed".

  deno task test                 all of it, but for what takes minutes
  deno task test packages/vring  the tests of a folder or file; other arguments go to deno test too
  deno task test:long            the tests that take minutes, and nothing else
  deno task test --help          this text`;

if (Deno.args.includes("--help")) {
  console.log(HELP);
  Deno.exit(0);
}

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

/** Adds what the report of `deno test` counts. @returns Whether there was a failure among it. */
async function readReport(): Promise<boolean> {
  const text = await Deno.readTextFile(report);
  let failures = 0;
  for (const [, attributes] of text.matchAll(/<testsuite ([^>]*)>/g)) {
    const count = (name: string): number =>
      Number(new RegExp(`\\b${name}="(\\d+)"`).exec(attributes!)?.[1] ?? 0);
    const bad = count("failures") + count("errors");
    const left = count("disabled") + count("skipped");
    passed += count("tests") - bad - left;
    skipped += left;
    failures += bad;
  }
  failed += failures;
  return failures > 0;
}

/** Runs `deno test`, and counts. */
async function test(...args: string[]): Promise<void> {
  await Deno.remove(report).catch(() => {});
  const tested = await deno([
    ...["test", "-A", "--preload=tools/same_cases.ts"],
    // WebAssembly compiled by the base line compiler only: a guest boots in half the time.
    "--v8-flags=--liftoff-only,--expose-gc",
    `--junit-path=${report}`,
    ...args,
  ]);
  try {
    if (!await readReport() && !tested) {
      failed++;
      failures.push("deno test ended with an error that no test reported");
    }
  } catch {
    failed++;
    failures.push("deno test wrote no report");
  }
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

if (long) {
  // What takes minutes has the machine to itself.
  await test(...(chosen.length > 0 ? chosen : await filesBelow("tests", "_long_test.ts")));
} else {
  const folders = chosen.length > 0 ? chosen : ["packages", "examples", "tests"];
  const ignore = "--ignore=**/*_long_test.ts,**/*_alone_test.ts";
  await test("--doc", "--parallel", ignore, ...folders);
  if (chosen.length === 0) {
    const alone = [
      await filesBelow("packages", "_alone_test.ts"),
      await filesBelow("tests", "_alone_test.ts"),
    ];
    await test(...alone.flat());
  }
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

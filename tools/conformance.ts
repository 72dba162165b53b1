/**
 * How much of virtio 1.4 is tested: `deno task conformance [--json] [--verbose]`.
 *
 * Runs the tests of tests/conformance. A test stands for the statements whose ids its name begins with, and a statement
 * counts as tested when every test that names it passed. The table of ids is tests/conformance/clauses.ts; statements that
 * cannot apply, or are about what is not built, stand with their reasons in `excluded` and `notBuilt` of the files
 * tests/conformance/excluded_*.ts.
 *
 * Exits with 1 while a statement has neither test nor reason, has both, or is not in the table, and when a test fails or is
 * skipped.
 */
import { parseArgs } from "@std/cli/parse-args";
import { areas, type Clause } from "../tests/conformance/clauses.ts";

const HELP = `deno task conformance [options]

Runs the conformance tests and prints, by area of virtio 1.4, how many statements are tested.

  --verbose   also each statement that is not tested, with the reason
  --json      one JSON object instead
  --help      this text`;

/** What became of a statement. */
type State = "tested" | "failing" | "excluded" | "not built" | "missing";

interface Outcome extends Clause {
  readonly state: State;
  /** Why it is excluded or not built. */
  readonly reason?: string;
  /** The tests that name it. */
  readonly tests: readonly string[];
}

interface TestResult {
  readonly name: string;
  readonly ids: readonly string[];
  readonly passed: boolean;
}

const root = new URL("..", import.meta.url);
const folder = new URL("tests/conformance/", root);

/** The ids that a test's name begins with. */
function idsOf(name: string): string[] {
  const ids: string[] = [];
  for (const word of name.split(/\s+/)) {
    const id = /^(\d+(?:\.\d+)*-[DG]\d+)[:,]?$/.exec(word)?.[1];
    if (id === undefined) break;
    ids.push(id);
  }
  return ids;
}

function unescape(text: string): string {
  const names: Record<string, string> = { lt: "<", gt: ">", quot: '"', apos: "'", amp: "&" };
  return text.replace(/&(?:#(\d+)|#x([0-9a-f]+)|(\w+));/gi, (all, decimal, hex, name) => {
    if (decimal !== undefined) return String.fromCodePoint(Number(decimal));
    if (hex !== undefined) return String.fromCodePoint(parseInt(hex, 16));
    return names[name] ?? all;
  });
}

/** Runs the tests. */
async function runTests(
  quiet: boolean,
): Promise<{ tests: TestResult[]; ok: boolean; log: string }> {
  const report = await Deno.makeTempFile({ suffix: ".xml" });
  try {
    const output = await new Deno.Command(Deno.execPath(), {
      args: [
        "test",
        "-A",
        "--parallel",
        "--v8-flags=--expose-gc",
        "--reporter=dot",
        `--junit-path=${report}`,
        "tests/conformance",
      ],
      cwd: root,
      stdin: "null",
      stdout: "piped",
      stderr: "piped",
    }).output();
    const decoder = new TextDecoder();
    const log = decoder.decode(output.stdout) + decoder.decode(output.stderr);
    if (!output.success && !quiet) console.error(log);
    const xml = await Deno.readTextFile(report);
    const tests: TestResult[] = [];
    for (
      const [, attributes, body] of xml.matchAll(
        /<testcase\b((?:[^>"]|"[^"]*")*?)(?:\/>|>([\s\S]*?)<\/testcase>)/g,
      )
    ) {
      const name = unescape(/\bname="([^"]*)"/.exec(attributes!)?.[1] ?? "");
      const passed = !/<(failure|error|skipped)\b/.test(body ?? "");
      tests.push({ name, ids: idsOf(name), passed });
    }
    return { tests, ok: output.success, log };
  } finally {
    await Deno.remove(report);
  }
}

/** All `excluded...` and `notBuilt...` of the excluded_*.ts files. */
async function readReasons(
  problems: string[],
): Promise<Map<string, { state: "excluded" | "not built"; reason: string }>> {
  const reasons = new Map<string, { state: "excluded" | "not built"; reason: string }>();
  const files: string[] = [];
  for await (const entry of Deno.readDir(folder)) {
    if (/^excluded.*\.ts$/.test(entry.name)) files.push(entry.name);
  }
  for (const file of files.sort()) {
    const module = await import(new URL(file, folder).href) as Record<string, unknown>;
    for (const [name, value] of Object.entries(module)) {
      const state = name.startsWith("excluded")
        ? "excluded"
        : name.startsWith("notBuilt")
        ? "not built"
        : null;
      if (state === null) continue;
      for (const [id, reason] of Object.entries(value as Record<string, string>)) {
        if (reasons.has(id)) problems.push(`${id} is excluded twice, in ${file} the second time`);
        reasons.set(id, { state, reason });
      }
    }
  }
  return reasons;
}

const args = parseArgs(Deno.args, {
  boolean: ["json", "verbose", "help"],
  unknown: (arg: string) => {
    console.error(`${arg} is no option.\n\n${HELP}`);
    Deno.exit(2);
  },
});
if (args.help) {
  console.log(HELP);
  Deno.exit(0);
}

const problems: string[] = [];
const { tests, ok, log } = await runTests(args.json);
const reasons = await readReasons(problems);
const known = new Set(areas.flatMap(({ clauses }) => clauses.map(({ id }) => id)));

const byId = new Map<string, TestResult[]>();
for (const test of tests) {
  // A section alone is fine: much that binds stands outside of the numbered statements.
  if (test.ids.length === 0 && !/^\d+(\.\d+)* /.test(test.name)) {
    problems.push(`No id in the name of the test "${test.name}"`);
  }
  if (!test.passed) problems.push(`Failed or skipped: ${test.name}`);
  for (const id of test.ids) {
    if (!known.has(id)) problems.push(`${id} is not in the table: named by "${test.name}"`);
    byId.set(id, [...(byId.get(id) ?? []), test]);
  }
}
for (const id of reasons.keys()) {
  if (!known.has(id)) problems.push(`${id} is not in the table, but excluded`);
}
if (!ok && tests.every(({ passed }) => passed)) {
  problems.push(`The tests ended with an error that no test reported:\n${log}`);
}

function judge(clause: Clause): Outcome {
  const named = byId.get(clause.id) ?? [];
  const names = named.map(({ name }) => name);
  const why = reasons.get(clause.id);
  if (named.length > 0) {
    if (why !== undefined) problems.push(`${clause.id} is both tested and excluded`);
    const state = named.every(({ passed }) => passed) ? "tested" : "failing";
    return { ...clause, state, tests: names };
  }
  if (why !== undefined) return { ...clause, ...why, tests: [] };
  problems.push(`${clause.id} (${clause.side}, ${clause.level}) has no test`);
  return { ...clause, state: "missing", tests: [] };
}

const results = areas.map((area) => ({ ...area, clauses: area.clauses.map(judge) }));

function count(outcomes: readonly Outcome[], state: State): number {
  return outcomes.filter((outcome) => outcome.state === state).length;
}

function summary(outcomes: readonly Outcome[]): Record<string, number> {
  return {
    clauses: outcomes.length,
    tested: count(outcomes, "tested"),
    failing: count(outcomes, "failing"),
    cannotApply: count(outcomes, "excluded"),
    notBuilt: count(outcomes, "not built"),
    withoutTest: count(outcomes, "missing"),
  };
}

const all = results.flatMap(({ clauses }) => clauses);
if (args.json) {
  console.log(JSON.stringify(
    {
      ok: problems.length === 0,
      tests: tests.length,
      total: summary(all),
      areas: results.map(({ number, name, clauses }) => ({
        number,
        name,
        ...summary(clauses),
        statements: clauses,
      })),
      problems,
    },
    null,
    2,
  ));
} else {
  const header = ["virtio 1.4", "clauses", "tested", "cannot apply", "not built", "without a test"];
  const rows = [...results, { number: "", name: "In all", clauses: all }].map((area) => {
    const sums = summary(area.clauses);
    return [
      `${area.number} ${area.name}`.trim(),
      ...[sums.clauses, sums.tested, sums.cannotApply, sums.notBuilt].map(String),
      String(sums.withoutTest! + sums.failing!),
    ];
  });
  const widths = header.map((title, i) =>
    Math.max(title.length, ...rows.map((row) => row[i]!.length))
  );
  for (const row of [header, ...rows]) {
    console.log(
      row.map((cell, i) => i === 0 ? cell.padEnd(widths[i]!) : cell.padStart(widths[i]!)).join(
        "  ",
      ),
    );
  }
  if (args.verbose) {
    console.log();
    for (const outcome of all) {
      if (outcome.state === "tested") continue;
      console.log(`${outcome.id.padEnd(16)} ${outcome.state}: ${outcome.reason ?? ""}`);
    }
  }
  console.log(`\n${tests.length} tests`);
  for (const problem of problems) console.error(problem);
  console.log(
    problems.length === 0
      ? "Every statement in scope is tested or stands with its reason"
      : `${problems.length} problems`,
  );
}
if (problems.length > 0) Deno.exit(1);

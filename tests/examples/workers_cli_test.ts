/** The examples with their devices in workers: the same runs, the same checks. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import { lastLine, runExample, testHelp, testRefused } from "./testing.ts";

const NAMES = ["blk", "net", "console"] as const;
const hasLinux = await guestFiles() !== null && Deno.build.os === "linux";

for (const name of NAMES) {
  testHelp(name, ["--in PLACE", "worker-per-queue"]);
  testRefused(name, [[["--in", "kernel"], "process or worker"]]);
}
testRefused("net", [
  [["--in", "worker-per-queue"], "belong together"],
  [["--in", "worker", "--pcap", "x"], "--in process"],
]);
testRefused("console", [[["--in", "worker-per-queue"], "belong together"]]);
testRefused("blk", [[["--in", "worker", "--inspect"], "--in process"]]);

const RUNS: readonly (readonly [name: typeof NAMES[number], args: readonly string[]])[] = [
  ["blk", ["--in", "worker"]],
  ["blk", ["--in", "worker-per-queue", "--queues", "3", "--ring", "packed"]],
  ["net", ["--in", "worker"]],
  ["net", ["--in", "worker", "--transport", "mmio", "--ring", "packed"]],
  ["console", ["--in", "worker"]],
  ["console", ["--in", "worker", "--transport", "mmio", "--ring", "packed"]],
];

async function run(name: string, guest: string, args: readonly string[]): Promise<void> {
  const { code, out, err } = await runExample(name, [
    ...["--guest", guest, "--json", "--megabytes", "1"],
    ...args,
  ]);
  assertEquals([code, err], [0, ""]);
  const { ok, guest: ran, figures } = lastLine<Record<string, unknown>>(out);
  assertEquals([ok, ran], [true, guest]);
  assert(JSON.stringify(figures).includes('"interrupts":'));
}

for (const [name, args] of RUNS) {
  Deno.test(`example:${name} --guest ts ${args.join(" ")}`, () => run(name, "ts", args));
}

Deno.test("example:blk --in worker has its own driver in a worker too", async () => {
  const { out } = await runExample("blk", ["--guest", "ts", "--in", "worker", "--megabytes", "1"]);
  assertStringIncludes(out, "each run in a thread of their own");
});

for (const name of NAMES) {
  Deno.test({
    name: `example:${name} has Linux use what is in a worker`,
    ignore: !hasLinux,
    fn: () => run(name, "linux", ["--in", "worker"]),
  });
}

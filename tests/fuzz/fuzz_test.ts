/** A short run of every fuzz target, and fuzzing itself put to the test. */
import { assert, assertEquals } from "@std/assert";
import { fuzz, TARGET_NAMES } from "./fuzz.ts";

const inCi = (Deno.env.get("CI") ?? "") !== "";
/** A minute for all targets where it matters, less where somebody waits. */
const seconds = inCi ? 15 : 4;

for (const target of TARGET_NAMES) {
  Deno.test(`fuzz: ${target} keeps what must hold, whatever the driver does`, async () => {
    // Other cases every day, and the same ones for whoever runs it again today.
    const seed = Math.floor(Date.now() / 86_400_000) * 1_000_003;
    const result = await fuzz({ target, seconds, seed });
    assert(
      result.failure === null,
      `seed ${seed}: ${result.failure?.reason}\n${JSON.stringify(result.failure?.case)}`,
    );
    assert(result.cases > 100, `${result.cases} cases`);
  });
}

Deno.test("fuzz: a planted mistake is found, made small, and found again from its case", async () => {
  const result = await fuzz({ target: "vring", seconds: 20, seed: 1, plant: "used length" });
  assert(result.failure !== null, "it is found");
  assert(/used length/.test(result.failure!.reason), result.failure!.reason);
  const found = result.failure!.case as { steps: unknown[] };
  assert(found.steps.length <= 12, `${found.steps.length} steps`);
  const replay = JSON.parse(JSON.stringify(found));
  const again = await fuzz({ target: "vring", seconds: 1, seed: 1, replay, plant: "used length" });
  assert(again.failure !== null, "it is found again");
  assertEquals(again.cases, 1);
  const fine = await fuzz({ target: "vring", seconds: 1, seed: 1, replay });
  assertEquals(fine.failure, null, "and it is the mistake that is found");
});

Deno.test("fuzz: a case that hangs is ended, and told", async () => {
  const result = await fuzz({ target: "vring", seconds: 20, seed: 1, plant: "hang", patience: 2 });
  assert(/does not end/.test(result.failure?.reason ?? ""), JSON.stringify(result));
  assert(typeof result.failure!.case === "object");
});

Deno.test("fuzz: an exception that nobody catches is a failure", async () => {
  const result = await fuzz({ target: "vring", seconds: 20, seed: 1, plant: "escape" });
  assert(/nobody caught this/.test(result.failure?.reason ?? ""), JSON.stringify(result));
});

Deno.test("fuzz: the same seed makes the same cases", async () => {
  const runs = [];
  for (let i = 0; i < 2; i++) {
    const result = await fuzz({ target: "vring", seconds: 20, seed: 7, plant: "used length" });
    runs.push(JSON.stringify(result.failure?.case));
  }
  assertEquals(runs[0], runs[1]);
});

/** What bench:vhost-net says and refuses; the measurement itself needs DPDK, and two processors. */
import { assert, assertEquals, assertStringIncludes, assertThrows } from "@std/assert";
import { CASES, nameOf } from "../../tools/bench_vhost_net/cases.ts";
import { checkFeatures } from "../../tools/bench_vhost_net/measure.ts";
import { benchPicture, benchTable } from "../../tools/bench_vhost_net/report.ts";
import { root } from "../../tools/bench_arguments.ts";

const exact = (value: number) => ({ median: value, low: value, high: value });

const BENCH = {
  rounds: 3,
  seconds: 1,
  bursts: 4,
  mergeable: true,
  dpdk: "DPDK 1.2.3",
  processors: 2,
  load: 0.5,
  results: CASES.map((one, i) => ({
    case: one,
    ours: { speed: exact(5 + i), lost: i },
    dpdk: { speed: exact(10), lost: 0 },
    ratio: { median: 0.5, low: 0.25, high: 0.75 },
  })),
};

Deno.test("bench:vhost-net: the table has each case, what was lost, and how it came about", () => {
  const lines = benchTable(BENCH).split("\n");
  const row = lines.find((line) => line.startsWith("packed, 64 bytes"))!;
  assertEquals(row.split(/ {2,}/), [
    "packed, 64 bytes",
    "7.00 (7.00 to 7.00)",
    "2",
    "10.00 (10.00 to 10.00)",
    "0",
    "0.50 (0.25 to 0.75)",
  ]);
  for (const text of ["DPDK 1.2.3", "3 rounds of 1 s", "4 bursts", "Load was 0.5"]) {
    assert(lines.some((line) => line.includes(text)), text);
  }
});

Deno.test("bench:vhost-net: the picture has a bar for each case", () => {
  const picture = benchPicture(BENCH);
  for (const one of CASES) assertStringIncludes(picture, nameOf(one));
  assertStringIncludes(picture, "0.50 (8.00 of 10.00 M/s)");
});

Deno.test("bench:vhost-net: what was negotiated is checked", () => {
  const said = (features: string) => `x\nfunction(): features after negotiate = ${features}\ny`;
  const packed = { packed: true, bytes: 64 };
  const split = { packed: false, bytes: 64 };
  checkFeatures(said("d10018020"), packed, true);
  checkFeatures(said("910018020"), split, true);
  checkFeatures(said("910010020"), split, false);
  for (
    const [features, one, mergeable] of [
      ["910018020", packed, true],
      ["d10018020", split, true],
      ["d10018020", packed, false],
      ["d10010020", packed, true],
    ] as const
  ) {
    assertThrows(() => checkFeatures(said(features), one, mergeable), Error, features);
  }
  assertThrows(() => checkFeatures("", split, true), Error, "does not say");
});

for (
  const [argument, reason] of [
    ["--bursts=8", "--bursts"],
    ["--bursts=0", "--bursts"],
    ["--seconds=0", "--seconds"],
    ["--rounds=0", "--rounds"],
    ["--case=none", "none"],
    ["--nothing", "--nothing"],
  ] as const
) {
  Deno.test(`bench:vhost-net: ${argument} is refused`, async () => {
    const { code, stderr } = await new Deno.Command(Deno.execPath(), {
      args: ["run", "-A", "--no-check", `${root}tools/bench_vhost_net.ts`, argument],
    }).output();
    assertEquals(code, 2);
    assertStringIncludes(new TextDecoder().decode(stderr), reason);
  });
}

/** The comparison with v86's own network card and console, in miniature: that it runs and counts, not how fast anything is. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import { measureGuest, WORKS } from "../../tools/bench_net/measure_guest.ts";
import { CASES, measureSwitch } from "../../tools/bench_net/measure_switch.ts";
import { benchPicture, benchTable, type NetBench } from "../../tools/bench_net/report.ts";

Deno.test("bench:net sends frames from driver to driver in both formats, whole, and in C", async () => {
  for (const index of [0, 5, 7]) {
    const [what, format, length] = CASES[index]!;
    const row = await measureSwitch(index, 3);
    assertEquals([row.what, row.format, row.length], [what, format, length]);
    const { low, median, high } = row.frames;
    assert(low > 0 && low <= median && median <= high && high < Infinity);
    if (row.ratio !== null) assert(row.ratio.low > 0 && row.ratio.high < Infinity);
  }
});

Deno.test({
  name: "bench:net measures v86's own devices and ours in one Linux, and loses nothing",
  ignore: await guestFiles() === null,
  fn: async () => {
    // Counts on the host's side are compared in there.
    const guest = await measureGuest({ rounds: 1, warmUp: 0, size: 0.05, progress: () => {} });
    const cards = ["v86", "pci", "pci-packed", "mmio", "pci-plain"];
    for (const work of WORKS) {
      const rows = guest.rows.filter((row) => row.work === work);
      const names = work === "write" ? ["v86", "console", "port"] : cards;
      assertEquals(rows.map(({ name }) => name), names);
      for (const { speed, overV86 } of rows) {
        assert(speed.median > 0 && speed.median < Infinity && overV86.median > 0, work);
      }
      assertEquals(rows[0]!.overV86.median, 1);
    }
    const spread = { low: 1, median: 2, high: 3 };
    const bench: NetBench = {
      rounds: 1,
      compiler: "a compiler",
      switch: [{
        what: "driver to driver",
        format: "split",
        length: 1500,
        frames: spread,
        megabytes: spread,
        ratio: spread,
        allocated: 0,
      }],
      guest,
      processors: 2,
      load: 1,
    };
    const table = benchTable(bench);
    const picture = benchPicture(bench);
    for (const { label } of guest.rows) {
      assertStringIncludes(table, label);
      assertStringIncludes(picture, label);
    }
    assertStringIncludes(table, "a compiler");
    assertEquals(JSON.parse(JSON.stringify(bench)), bench);
  },
});

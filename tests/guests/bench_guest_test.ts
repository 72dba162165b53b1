/** The comparison with v86's own disk, in miniature: that it runs and counts, not how fast anything is. */
import { assert, assertEquals, assertStringIncludes } from "@std/assert";
import { guestFiles } from "../../examples/guest/testing.ts";
import { benchGuest, WORKS } from "../../tools/bench_guest/measure.ts";
import { benchPicture, benchTable } from "../../tools/bench_guest/report.ts";

const ignore = await guestFiles() === null;

Deno.test({
  name: "bench:guest measures all disks in one Linux and counts what a request costs",
  ignore,
  fn: async () => {
    const folder = await Deno.makeTempDir();
    const bench = await benchGuest({
      rounds: 1,
      warmUp: 0,
      reads: 20,
      megabytes: 2,
      folder,
      progress: () => {},
    });
    assertEquals([...Deno.readDirSync(folder)], [], "no file may stay");
    await Deno.remove(folder);

    const names = bench.rows.map((row) => row.name);
    const disks = ["ide", "pci", "pci-packed", "pci-io", "mmio", "pci-file"];
    assertEquals(names, bench.noHost === null ? [...disks, "host"] : disks);
    const [ide] = bench.rows;
    for (const row of bench.rows) {
      for (const work of WORKS) {
        const where = `${row.name}, ${work}`;
        for (const spread of [row.speed[work], row.overIde[work]]) {
          const { low, median, high } = spread;
          assert(low > 0 && low <= median && median <= high && high < Infinity, where);
        }
        const cost = row.perRequest?.[work];
        assertEquals(cost === undefined, row.name === "host", where);
        if (cost === undefined) continue;
        assert(cost.bytes >= 4096 && cost.interrupts > 0, where);
        // These are no matter of speed: each byte is copied at least once, and a kick is one exit.
        assert(cost.copies >= 1 && cost.copies < 2.5, `${where}: ${cost.copies} copies`);
        if (row !== ide) assert(cost.exits < ide!.perRequest![work].exits / 2, where);
      }
    }
    assertEquals(ide!.overIde.read4k.median, 1);
    // A whole request is one kick and one interrupt at most.
    assert(bench.rows[1]!.perRequest!.read4k.exits <= 1);
    assert(bench.guestClock > 0.5 && bench.guestClock < 2);

    const table = benchTable(bench);
    const picture = benchPicture(bench);
    for (const { label } of bench.rows) {
      assertStringIncludes(table, label);
      assertStringIncludes(picture, label);
    }
    assertEquals(JSON.parse(JSON.stringify(bench)), bench);
  },
});

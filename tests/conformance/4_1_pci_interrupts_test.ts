/** Virtio 1.4, 4.1.5: the interrupts of the device half of PCI. Its tables have no device: they are tested in process only. */
import * as pci from "@virtio/transport/pci";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MSIX_BAR, PciBench } from "../../packages/transport/testing/bench.ts";
import { PlacedPci } from "./placed_bench.ts";
import { everywhere } from "./places.ts";

Deno.test("4.1.5.1.2.1-D1 a device has 2 to 0x800 MSI-X vectors unless told otherwise", () => {
  for (const queues of [0, 1, 2, 100, 3000]) {
    const bench = new PciBench({ queueSizes: Array(queues).fill(8) });
    const at = bench.findCap(pci.PCI_CAP_ID_MSIX);
    const vectors = (bench.transport.configRead(at + 2, 2) & 0x7ff) + 1;
    assert(vectors >= 2 && vectors <= 0x800, `${queues} queues, ${vectors} vectors`);
  }
  assertThrows(() => new PciBench({ msix: 0x801 }), RangeError);
});

Deno.test("4.1.5.1.2.1-D2 Table Size tells the number of vectors", () => {
  for (const msix of [1, 2, 17, 0x800]) {
    const bench = new PciBench({ msix });
    const at = bench.findCap(pci.PCI_CAP_ID_MSIX);
    assertEquals(bench.transport.configRead(at + 2, 2) & 0x7ff, msix - 1);
    // And there are so many.
    bench.transport.barWrite(MSIX_BAR, 16 * (msix - 1) + 8, 4, 0x77);
    assertEquals(bench.transport.barRead(MSIX_BAR, 16 * (msix - 1) + 8, 4), 0x77);
  }
});

Deno.test("4.1.5.1.2.1-D3 Table Size is no more than the device can use", () => {
  const bench = new PciBench({ queueSizes: [8, 8, 8] });
  const at = bench.findCap(pci.PCI_CAP_ID_MSIX);
  assertEquals(bench.transport.configRead(at + 2, 2) & 0x7ff, 3);
});

/** Every place for a vector, and every vector. */
function forEachMapping(
  bench: PciBench | PlacedPci,
  each: (field: number, vector: number) => void,
): void {
  for (let vector = 0; vector < 4; vector++) {
    each(pci.CommonCfg.configMsixVector, vector);
    for (const queue of [0, 1]) {
      bench.select(queue);
      each(pci.CommonCfg.queueMsixVector, vector);
    }
  }
}

everywhere("4.1.5.1.2.1-D4 4.1.5.1.2.1-D8 any event can be mapped to any vector", async (place) => {
  const bench = await PlacedPci.open(place, { msix: 4 });
  bench.setMsix(pci.PCI_MSIX_FLAGS_ENABLE);
  for (let vector = 0; vector < 4; vector++) bench.setVector(vector, vector);
  bench.start();
  forEachMapping(bench, (field, vector) => {
    bench.setCommon(field, 2, vector);
    assertEquals(bench.common(field, 2), vector);
    bench.takeMessages();
    if (field === pci.CommonCfg.configMsixVector) {
      bench.echo.change();
    } else {
      const queue = bench.common(pci.CommonCfg.queueSelect, 2);
      bench.take(queue);
      bench.send(queue);
    }
    assertEquals(bench.takeMessages(), [vector]);
  });
});

Deno.test("4.1.5.1.2.1-D5 4.1.5.1.2.1-D6 any event can be unmapped, and reads back as it is", () => {
  const bench = new PciBench({ msix: 4 });
  forEachMapping(bench, (field, vector) => {
    bench.setCommon(field, 2, vector);
    assertEquals(bench.common(field, 2), vector);
    bench.setCommon(field, 2, pci.VIRTIO_MSI_NO_VECTOR);
    assertEquals(bench.common(field, 2), pci.VIRTIO_MSI_NO_VECTOR);
  });
});

Deno.test("4.1.5.1.2.1-D7 all events are unmapped by a reset", () => {
  const bench = new PciBench({ msix: 4 });
  forEachMapping(bench, (field) => bench.setCommon(field, 2, 1));
  bench.status = 1;
  bench.status = 0;
  forEachMapping(bench, (field) => {
    assertEquals(bench.common(field, 2), pci.VIRTIO_MSI_NO_VECTOR);
  });
});

Deno.test("4.1.5.1.2.1-D9 a mapping that fails reads NO_VECTOR", () => {
  const bench = new PciBench({ msix: 4 });
  forEachMapping(bench, (field, vector) => {
    bench.setCommon(field, 2, vector);
    bench.setCommon(field, 2, 4 + vector);
    assertEquals(bench.common(field, 2), pci.VIRTIO_MSI_NO_VECTOR);
  });
});

everywhere("4.1.5.3.1-D1 a queue without a vector does not interrupt", async (place) => {
  const bench = await PlacedPci.open(place);
  bench.setMsix(pci.PCI_MSIX_FLAGS_ENABLE);
  for (const vector of [0, 1, 2]) bench.setVector(vector, vector);
  bench.setCommon(pci.CommonCfg.configMsixVector, 2, 0);
  bench.start();
  bench.send(0);
  assertEquals(bench.take(0), 0);
  assertEquals([bench.messages, bench.levels], [[], []]);
});

everywhere(
  "4.1.5.4.1-D1 a configuration change without a vector does not interrupt",
  async (place) => {
    const bench = await PlacedPci.open(place);
    bench.setMsix(pci.PCI_MSIX_FLAGS_ENABLE);
    for (const vector of [0, 1, 2]) bench.setVector(vector, vector);
    bench.select(0);
    bench.setCommon(pci.CommonCfg.queueMsixVector, 2, 0);
    bench.start();
    bench.echo.change();
    assertEquals([bench.messages, bench.levels], [[], []]);
  },
);

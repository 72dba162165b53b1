/** Virtio 1.4, 4.1.5: what the driver half of PCI does about interrupts and kicks. */
import {
  CORE_FEATURES,
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_NOTIFICATION_DATA,
} from "@virtio/device";
import * as pci from "@virtio/transport/pci";
import { PciDriverTransport, ProbeError } from "@virtio/transport/pci/driver";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { FOUND, MEMORY, PciBench } from "../../packages/transport/testing/bench.ts";
import { type Access, RecordingPci } from "../../packages/transport/testing/fake_pci.ts";
import { type LifeOptions, recordPci } from "../../packages/transport/testing/recorded_life.ts";

import {
  accept,
  common,
  config,
  field,
  KICKS,
  withMessages,
  writesTo,
} from "./pci_driver_bench.ts";

Deno.test("4.1.5.1.2.2-G1 any MSI-X Table Size will do", async () => {
  for (const msix of [1, 2, 3, 4, 33, 0x800]) {
    const { device, log } = await recordPci({ msix });
    assert(device.handled[0]! > 0 && device.handled[1]! > 0);
    assert(log.some(({ bar }) => bar === 1), "messages are used");
  }
});

Deno.test("4.1.5.1.2.2-G2 without vectors to be had the driver falls back on INTx", async () => {
  for (const options of [{ msix: 1, messages: false }, { msix: false }] as LifeOptions[]) {
    const { device } = await recordPci(options);
    assert(device.handled[0]! > 0);
  }
});

Deno.test("4.1.5.1.2.2-G3 the driver takes Table Size for the number of vectors to use", () => {
  for (const [msix, expected] of [[1, [0, 0]], [2, [1, 1]], [3, [1, 2]], [100, [1, 2]]] as const) {
    const bench = new PciBench({ msix });
    const driver = withMessages(bench.transport);
    accept(driver);
    const vectors = [0, 1].map((queue) => {
      driver.enableQueue(queue, config(queue));
      return bench.common(field.queueMsixVector, 2);
    });
    assertEquals(vectors, [...expected]);
  }
});

Deno.test("4.1.5.1.2.2-G4 the driver maps no vector outside of the table", async () => {
  for (const msix of [1, 2, 3]) {
    const { log } = await recordPci({ msix, queueSizes: [8, 8, 8, 8] });
    const vectors = [field.configMsixVector, field.queueMsixVector]
      .flatMap((at) => writesTo(log, at));
    assert(vectors.length > 0 && vectors.every((vector) => vector < msix));
    // Nor does it touch table entries that are not there.
    assert(log.every(({ bar, offset }) => bar !== 1 || offset < 16 * msix));
  }
});

Deno.test("4.1.5.1.2.2-G5 the driver reads back what it mapped", async () => {
  const { log } = await recordPci();
  const accesses = common(log);
  let mapped = 0;
  accesses.forEach(({ write, offset }, i) => {
    if (!write || (offset !== field.configMsixVector && offset !== field.queueMsixVector)) return;
    mapped++;
    const next = accesses[i + 1]!;
    assertEquals([next.write, next.offset], [false, offset]);
  });
  assert(mapped >= 6);
});

Deno.test("4.1.5.1.2.2-G6 a mapping that fails is tried with a shared vector, then reported", () => {
  for (const [refused, expected] of [[[1], 2], [[1, 2], null]] as const) {
    const bench = new PciBench();
    const device = new RecordingPci(bench.transport);
    const driver = withMessages(device);
    accept(driver);
    device.onRead = ({ bar, offset, value }) =>
      bar === MEMORY.bar && offset === field.queueMsixVector &&
        (refused as readonly number[]).includes(value)
        ? pci.VIRTIO_MSI_NO_VECTOR
        : value;
    if (expected === null) {
      assertThrows(() => driver.enableQueue(0, config(0)), ProbeError, "4.1.5.1.2.2");
      assertEquals(bench.transport.state.queues[0]!.enabled, false);
    } else {
      driver.enableQueue(0, config(0));
      assertEquals(bench.common(field.queueMsixVector, 2), expected);
    }
  }
});

/** The kicks of a life, and what the queues' registers had said. */
async function kicks(core: bigint): Promise<Access[]> {
  const { log } = await recordPci({ core, notifyData: (queue) => 0x700 + queue });
  const found = log.filter(({ write, bar, offset }) =>
    write && bar === MEMORY.bar && offset >= MEMORY.notify
  );
  assert(found.length > 4);
  return found;
}

Deno.test("4.1.5.2.1-G1 4.1.5.2.1-G3 a kick is the queue's index in 16 bits", async () => {
  for (const { offset, size, value } of await kicks(CORE_FEATURES & ~KICKS)) {
    assertEquals([size, value], [2, (offset - MEMORY.notify) / 4]);
  }
});

Deno.test("4.1.5.2.1-G2 4.1.5.2.1-G4 with NOTIFICATION_DATA it has 32 bits, the index in the lower half", async () => {
  const found = await kicks(CORE_FEATURES & ~VIRTIO_F_NOTIF_CONFIG_DATA);
  for (const { offset, size, value } of found) {
    assertEquals([size, value & 0xffff], [4, (offset - MEMORY.notify) / 4]);
  }
  assert(found.some(({ value }) => value > 0xffff));
});

Deno.test("4.1.5.2.1-G5 with NOTIF_CONFIG_DATA it is queue_notif_config_data in 16 bits", async () => {
  for (const { offset, size, value } of await kicks(CORE_FEATURES & ~VIRTIO_F_NOTIFICATION_DATA)) {
    assertEquals([size, value], [2, 0x700 + (offset - MEMORY.notify) / 4]);
  }
});

Deno.test("4.1.5.2.1-G6 with both it has 32 bits, queue_notif_config_data in the lower half", async () => {
  const found = await kicks(CORE_FEATURES);
  for (const { offset, size, value } of found) {
    assertEquals([size, value & 0xffff], [4, 0x700 + (offset - MEMORY.notify) / 4]);
  }
  assert(found.some(({ value }) => value > 0xffff));
});

Deno.test("4.1.5.4.2-G1 one interrupt for queues and configuration is handled as both", () => {
  const events: (string | null)[] = [];
  const handlers = { queue: () => events.push("queue"), config: () => events.push("config") };
  const change = (bench: PciBench) => bench.device.config.update((view) => view.setUint8(0, 1));
  const intx = new PciBench();
  const first = PciDriverTransport.probe(intx.transport);
  first.interrupts = handlers;
  intx.start();
  intx.send(0);
  change(intx);
  assert(first.handleInterrupt());
  assertEquals(events.splice(0), ["queue", "config"]);

  const msix = new PciBench({ msix: 1 });
  const second = withMessages(msix.transport);
  second.interrupts = handlers;
  accept(second);
  msix.ring(0);
  second.enableQueue(0, config(0));
  second.writeStatus(FOUND | 8 | 4);
  msix.send(0);
  change(msix);
  assertEquals(msix.takeMessages(), [0, 0]);
  second.handleMessage(0);
  assertEquals(events, ["queue", "config"]);
});

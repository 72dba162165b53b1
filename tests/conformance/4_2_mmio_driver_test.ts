/** Virtio 1.4, 4.2: what the driver half of MMIO has to do. */
import { CORE_FEATURES, VIRTIO_F_RING_PACKED, VIRTIO_F_RING_RESET } from "@virtio/device";
import { type MmioAccess, MmioDriverTransport, ProbeError } from "@virtio/transport/mmio/driver";
import * as reg from "@virtio/transport/mmio";
import { assert, assertEquals, assertThrows } from "@std/assert";
import { MmioBench, ringAddress } from "../../packages/transport/testing/bench.ts";
import type { Access } from "../../packages/transport/testing/fake_pci.ts";
import { recordMmio } from "../../packages/transport/testing/recorded_life.ts";

type Direction = "R" | "W" | "RW";

/** The table of 4.2.2. */
const REGISTERS = new Map<number, Direction>([
  [0x000, "R"],
  [0x004, "R"],
  [0x008, "R"],
  [0x00c, "R"],
  [0x010, "R"],
  [0x014, "W"],
  [0x020, "W"],
  [0x024, "W"],
  [0x030, "W"],
  [0x034, "R"],
  [0x038, "W"],
  [0x044, "RW"],
  [0x050, "W"],
  [0x060, "R"],
  [0x064, "W"],
  [0x070, "RW"],
  [0x080, "W"],
  [0x084, "W"],
  [0x090, "W"],
  [0x094, "W"],
  [0x0a0, "W"],
  [0x0a4, "W"],
  [0x0ac, "W"],
  [0x0b0, "R"],
  [0x0b4, "R"],
  [0x0b8, "R"],
  [0x0bc, "R"],
  [0x0c0, "RW"],
  [0x0fc, "R"],
]);

/** Lives of a driver on both ring formats. */
async function lives(): Promise<(readonly Access[])[]> {
  const split = await recordMmio({ core: CORE_FEATURES & ~VIRTIO_F_RING_PACKED });
  const packed = await recordMmio({ queueSizes: [24, 24] });
  return [split.log, packed.log];
}

function change(bench: MmioBench): void {
  bench.device.config.update((view) => view.setUint8(0, view.getUint8(0) + 1));
}

function config(queue: number, size = 8) {
  const base = ringAddress(queue);
  return { size, descriptorArea: base, driverArea: base + 0x400, deviceArea: base + 0x800 };
}

function probe(access: MmioAccess): MmioDriverTransport {
  const driver = MmioDriverTransport.probe(access);
  if (driver === null) throw new Error("no device was found");
  return driver;
}

/** A live device, its driver's half, and all accesses from here on. */
function driven(features = 0n): { bench: MmioBench; driver: MmioDriverTransport; log: Access[] } {
  const bench = new MmioBench();
  const log: Access[] = [];
  const driver = probe({
    read(offset, size) {
      const value = bench.transport.read(offset, size);
      log.push({ write: false, bar: null, offset, size, value });
      return value;
    },
    write(offset, size, value) {
      log.push({ write: true, bar: null, offset, size, value });
      bench.transport.write(offset, size, value);
    },
  });
  bench.start(features);
  log.length = 0;
  return { bench, driver, log };
}

/** Registers of one's choice, and what was read. */
function registers(values: Record<number, number>): MmioAccess & { log: [string, number][] } {
  const log: [string, number][] = [];
  return {
    log,
    read(offset) {
      log.push(["read", offset]);
      return values[offset] ?? 0;
    },
    write(offset) {
      log.push(["write", offset]);
    },
  };
}

Deno.test("4.2.2.2-G1 the driver accesses described registers in their direction only", async () => {
  for (const log of await lives()) {
    assert(log.length > 100);
    for (const { write, offset, size } of log) {
      if (offset >= 0x100) {
        assert(offset + size <= 0x110);
        continue;
      }
      const direction = REGISTERS.get(offset);
      assert(direction?.includes(write ? "W" : "R"), `${write ? "write" : "read"} ${offset}`);
    }
  }
});

Deno.test("4.2.2.2-G2 the driver accesses control registers in aligned words", async () => {
  for (const log of await lives()) {
    for (const { offset, size } of log) {
      if (offset < 0x100) assertEquals([size, offset % 4], [4, 0]);
    }
  }
});

Deno.test("4.2.2.2-G3 the driver accesses the configuration in the widths of its fields", async () => {
  for (const log of await lives()) {
    const widths = log.filter(({ offset }) => offset >= 0x100)
      .map(({ offset, size }) => `${offset - 0x100}:${size}`);
    // What the life asks for: a byte at 0, a word at 4, a half word at 8.
    assertEquals([...new Set(widths)].sort(), ["0:1", "4:4", "8:2"]);
  }
});

Deno.test("4.2.2.2-G4 4.2.2.2-G5 the driver ignores another MagicValue or Version", () => {
  for (const magic of [0, 0x74726975, 0xffff_ffff]) {
    const device = registers({ 0: magic, 4: 2, 8: 2 });
    assertThrows(() => MmioDriverTransport.probe(device), ProbeError, "MagicValue");
    assert(device.log.every(([what]) => what === "read"));
  }
  for (const version of [0, 1, 3, 0xffff_ffff]) {
    const device = registers({ 0: 0x74726976, 4: version, 8: 2 });
    assertThrows(() => MmioDriverTransport.probe(device), ProbeError, "Version");
    assert(device.log.every(([what]) => what === "read"));
  }
});

Deno.test("4.2.2.2-G6 the driver ignores DeviceID 0 without an error", () => {
  assertEquals(MmioDriverTransport.probe(new reg.MmioPlaceholder()), null);
});

Deno.test("4.2.2.2-G7 4.2.2.2-G8 the driver selects a word before it reads or writes features", async () => {
  for (const log of await lives()) {
    for (const [select, at] of [[0x014, 0x010], [0x024, 0x020]] as const) {
      const accesses = log.filter(({ offset }) => offset === select || offset === at);
      assertEquals(accesses.filter(({ offset }) => offset === at).length, 8);
      accesses.forEach(({ offset }, i) => {
        if (offset === at) assertEquals(accesses[i - 1]?.offset, select);
      });
    }
  }
});

Deno.test("4.2.2.2-G9 the driver writes no QueueSize above QueueSizeMax", async () => {
  for (const log of await lives()) {
    let max = -1;
    let written = 0;
    for (const { write, offset, value } of log) {
      if (offset === reg.VIRTIO_MMIO_QUEUE_SEL) max = -1;
      if (offset === reg.VIRTIO_MMIO_QUEUE_SIZE_MAX) max = value;
      if (!write || offset !== reg.VIRTIO_MMIO_QUEUE_SIZE) continue;
      assert(value <= max);
      written++;
    }
    assert(written > 0);
  }
  const driver = probe(new MmioBench().transport);
  assertThrows(() => driver.enableQueue(0, config(0, 32)), RangeError, "allows 16");
});

Deno.test("4.2.2.2-G10 the driver leaves size and addresses of a ready queue alone", async () => {
  for (const log of await lives()) {
    const ready = new Set<number>();
    let selected = -1;
    for (const { write, offset, value } of log) {
      if (offset === reg.VIRTIO_MMIO_QUEUE_SEL) selected = value;
      if (offset === reg.VIRTIO_MMIO_QUEUE_READY && write && value === 1) ready.add(selected);
      if (offset === reg.VIRTIO_MMIO_QUEUE_RESET && !write && value === 0) ready.delete(selected);
      if (offset === reg.VIRTIO_MMIO_STATUS && write && value === 0) ready.clear();
      const own = offset === reg.VIRTIO_MMIO_QUEUE_SIZE || (offset >= 0x080 && offset <= 0x0a4);
      assert(!own || !ready.has(selected), `offset ${offset} of queue ${selected}`);
    }
  }
  const { driver, log } = driven();
  assertThrows(() => driver.enableQueue(0, config(0)), TypeError, "in use");
  assert(log.every(({ offset }) => offset < 0x080 && offset !== reg.VIRTIO_MMIO_QUEUE_SIZE));
});

Deno.test("4.2.2.2-G11 to stop a queue the driver writes 0 to QueueReady and reads it back", async () => {
  const { bench, driver, log } = driven();
  assertEquals(driver.disableQueue(1), true);
  const accesses = log.map(({ write, offset, value }) => [write, offset, value]);
  assertEquals(accesses, [[true, 0x030, 1], [true, 0x044, 0], [false, 0x044, 0]]);
  // It believes what it reads.
  bench.device.hold = true;
  bench.send(0);
  assertEquals(driver.disableQueue(0), false);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(driver.queueStopped(0), true);
});

Deno.test("4.2.2.2-G12 4.2.2.2-G13 undefined bits of InterruptStatus are ignored, and not acknowledged", () => {
  for (
    const [status, events, ack] of [
      [0xffff_fffc, 0, undefined],
      [0xffff_fffd, 1, 1],
      [0x8000_0002, 2, 2],
      [0xffff_ffff, 3, 3],
    ] as const
  ) {
    const writes: [number, number][] = [];
    let handled = 0;
    const driver = probe({
      read: (offset) => ({ 0: reg.VIRTIO_MMIO_MAGIC, 4: 2, 8: 4, 0x60: status })[offset] ?? 0,
      write: (offset, _size, value) => writes.push([offset, value]),
    });
    driver.interrupts = { queue: () => handled |= 1, config: () => handled |= 2 };
    assertEquals(driver.handleInterrupt(), events !== 0);
    assertEquals(handled, events);
    assertEquals(writes, ack === undefined ? [] : [[reg.VIRTIO_MMIO_INTERRUPT_ACK, ack]]);
  }
});

Deno.test("4.2.2.2-G14 4.2.2.2-G15 4.2.2.2-G16 a queue reset is over when QueueReset reads 0; then the queue is enabled again, smaller", async () => {
  for (const log of await lives()) {
    let resets = 0;
    log.forEach(({ write, offset, value }, i) => {
      if (!write || offset !== reg.VIRTIO_MMIO_QUEUE_RESET) return;
      assertEquals(value, 1);
      resets++;
      const after = log.slice(i + 1);
      const done = after.findIndex((a) =>
        !a.write && a.offset === reg.VIRTIO_MMIO_QUEUE_RESET && a.value === 0
      );
      const enabled = after.findIndex((a) => a.write && a.offset === reg.VIRTIO_MMIO_QUEUE_READY);
      assert(done >= 0 && enabled > done);
      const size = after.slice(done, enabled).find((a) =>
        a.write && a.offset === reg.VIRTIO_MMIO_QUEUE_SIZE
      );
      assertEquals(size?.value, 8);
    });
    assertEquals(resets, 2);
  }
  const { bench, driver } = driven(VIRTIO_F_RING_RESET);
  bench.device.hold = true;
  bench.send(0);
  driver.resetQueue(0);
  assertEquals(driver.queueResetDone(0), false);
  bench.device.release();
  await bench.transport.state.settled();
  assertEquals(driver.queueResetDone(0), true);
});

Deno.test("4.2.3.1.1-G1 the driver begins with MagicValue and Version", async () => {
  for (const log of await lives()) {
    assertEquals(log.slice(0, 3).map(({ write, offset }) => [write, offset]), [
      [false, 0x000],
      [false, 0x004],
      [false, 0x008],
    ]);
  }
});

Deno.test("4.2.3.1.1-G2 with DeviceID 0 the driver accesses no other register", () => {
  const device = registers({ 0: reg.VIRTIO_MMIO_MAGIC, 4: 2, 8: 0 });
  assertEquals(MmioDriverTransport.probe(device), null);
  assertEquals(device.log, [["read", 0], ["read", 4], ["read", 8]]);
});

Deno.test("4.2.3.1.1-G3 a driver without shared memory does not use its registers", async () => {
  for (const log of await lives()) {
    assert(log.every(({ offset }) => offset < 0x0ac || offset > 0x0bc));
  }
});

Deno.test("4.2.3.1.1-G4 initialisation goes in the order of 3.1", async () => {
  for (const log of await lives()) {
    const of = (write: boolean, offset: number, value?: number) =>
      log.findIndex((a) =>
        a.write === write && a.offset === offset && (value === undefined || a.value === value)
      );
    const steps = [
      of(true, reg.VIRTIO_MMIO_STATUS, 0),
      of(true, reg.VIRTIO_MMIO_STATUS, 1),
      of(true, reg.VIRTIO_MMIO_STATUS, 3),
      of(false, reg.VIRTIO_MMIO_DEVICE_FEATURES),
      of(true, reg.VIRTIO_MMIO_DRIVER_FEATURES),
      of(true, reg.VIRTIO_MMIO_STATUS, 11),
      of(false, reg.VIRTIO_MMIO_STATUS, 11),
      of(true, reg.VIRTIO_MMIO_QUEUE_READY, 1),
      of(true, reg.VIRTIO_MMIO_STATUS, 15),
      of(true, reg.VIRTIO_MMIO_QUEUE_NOTIFY),
    ];
    assert(steps.every((at) => at >= 0));
    assertEquals(steps, steps.toSorted((a, b) => a - b));
  }
});

Deno.test("4.2.3.4.1-G1 4.2.3.4.1-G2 4.2.3.4.1-G3 an interrupt is looked up, taken for all queues, then acknowledged", () => {
  const { bench, driver, log } = driven();
  const events: [string | number | null, boolean][] = [];
  driver.interrupts = {
    queue: (index) => events.push([index, bench.line]),
    config: () => events.push(["config", bench.line]),
  };
  bench.send(0);
  change(bench);
  log.length = 0;
  assertEquals(driver.handleInterrupt(), true);
  assertEquals([log[0]!.write, log[0]!.offset], [false, reg.VIRTIO_MMIO_INTERRUPT_STATUS]);
  // null: every queue. The first calls come before the acknowledgement, with the line up.
  assertEquals(events.slice(0, 2), [[null, true], ["config", true]]);
  const acks = log.filter(({ write, offset }) => write && offset === reg.VIRTIO_MMIO_INTERRUPT_ACK);
  assertEquals(acks.map(({ value }) => value), [3]);
  assertEquals(bench.line, false);
  log.length = 0;
  assertEquals(driver.handleInterrupt(), false);
  assertEquals(log.map(({ offset }) => offset), [reg.VIRTIO_MMIO_INTERRUPT_STATUS]);
});

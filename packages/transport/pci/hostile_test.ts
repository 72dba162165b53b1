import {
  VIRTIO_F_NOTIF_CONFIG_DATA,
  VIRTIO_F_RING_PACKED,
  VIRTIO_F_RING_RESET,
} from "@virtio/device";
import { assert, assertEquals } from "@std/assert";
import fc from "fast-check";
import { LIVE, PciBench } from "../testing/bench.ts";
import * as reg from "./mod.ts";

const size = fc.constantFrom<reg.Width>(1, 2, 4);
const value = fc.oneof(
  fc.nat(16),
  fc.constantFrom(LIVE, 0x8000, 0xc000, 0xffff_ffff, 0xffff),
  fc.nat(0xffff_ffff),
);
const config = fc.record({
  kind: fc.constant("config" as const),
  write: fc.boolean(),
  bar: fc.constant(0),
  offset: fc.oneof(fc.nat(0x110), fc.constantFrom(0x04, 0x10, 0x14, 0x18)),
  size,
  value,
});
const bar = fc.record({
  kind: fc.constant("bar" as const),
  write: fc.boolean(),
  bar: fc.oneof(fc.constantFrom(0, 1, 2, 2, 2), fc.nat(7)),
  offset: fc.oneof(
    fc.nat(0x48),
    fc.constantFrom(0x14, 0x16, 0x18, 0x1a, 0x1c, 0x3a),
    fc.nat(0x4000),
    fc.nat(0xffff_ffff),
  ),
  size,
  value,
});

Deno.test("PCI: no sequence of accesses throws, and a bus reset always helps", async () => {
  const features = VIRTIO_F_RING_RESET | VIRTIO_F_NOTIF_CONFIG_DATA | VIRTIO_F_RING_PACKED;
  const accesses = fc.array(fc.oneof(config, bar, bar), { maxLength: 60 });
  const layouts = fc.constantFrom<reg.PciLayout>("memory", "io", "memory+io-notify");
  await fc.assert(fc.asyncProperty(layouts, accesses, async (layout, accesses) => {
    const bytes = new Uint8Array(64);
    const bench = new PciBench({ features, layout, sharedMemory: [{ id: 0, bytes, address: 0 }] });
    const { transport } = bench;
    for (const access of accesses) {
      const { offset, size } = access;
      if (access.kind === "config") {
        if (access.write) transport.configWrite(offset, size, access.value);
        else assertWidth(transport.configRead(offset, size), size);
      } else if (access.write) {
        transport.barWrite(access.bar, offset, size, access.value);
      } else {
        assertWidth(transport.barRead(access.bar, offset, size), size);
      }
      for (let i = 0; i < 6; i++) transport.barAddress(i);
      // The line is what the registers say it is.
      const pending = (bench.pciStatus & reg.PCI_STATUS_INTERRUPT) !== 0;
      const disabled = transport.configRead(reg.PCI_COMMAND, 2) & reg.PCI_COMMAND_INTX_DISABLE;
      assertEquals(bench.line, pending && disabled === 0);
    }
    await transport.reset();
    assertEquals([bench.status, bench.line], [0, false]);
    transport.configWrite(reg.PCI_COMMAND, 2, 0x7);
    bench.start();
    bench.send(1, 1);
    assertEquals(bench.take(1), 1);
    assert(bench.line);
  }));
});

function assertWidth(value: number, size: reg.Width): void {
  assert(Number.isInteger(value) && value >= 0 && value < 2 ** (8 * size), `${value} of ${size}`);
}

import { assert, assertEquals, assertRejects, assertThrows } from "@std/assert";
import { buildAcpi } from "./acpi.ts";
import { type BootPlan, planLinuxBoot, unpackKernel } from "./boot.ts";
import { readElf } from "./elf.ts";

const ACPI = buildAcpi(4);
const MIB = 2 ** 20;

/** A 32-bit ELF kernel with one segment at 16 MiB, linked at 0xC1000000. */
function elfKernel(): Uint8Array {
  const bytes = new Uint8Array(0x1100);
  const view = new DataView(bytes.buffer);
  view.setUint32(0, 0x464c457f, true);
  bytes.set([1, 1, 1], 4);
  view.setUint16(16, 2, true);
  view.setUint16(18, 3, true);
  view.setUint32(24, 0xc100_0010, true); // entry, virtual
  view.setUint32(28, 52, true); // program headers
  view.setUint16(42, 32, true);
  view.setUint16(44, 2, true);
  view.setUint32(52, 4, true); // a note, not loaded
  const header = 84;
  [1, 0x1000, 0xc100_0000, 0x100_0000, 0x100, 0x2000, 5, 0x1000].forEach((value, i) =>
    view.setUint32(header + 4 * i, value, true)
  );
  bytes.fill(0xaa, 0x1000);
  return bytes;
}

/** A bzImage around a payload. */
function bzImage(payload: Uint8Array): Uint8Array {
  const setup = 5 * 512;
  const bytes = new Uint8Array(setup + 0x800 + payload.length);
  const view = new DataView(bytes.buffer);
  bytes[0x1f1] = 4;
  bytes[0x201] = 0x6a;
  view.setUint32(0x202, 0x53726448, true);
  view.setUint16(0x206, 0x20f, true);
  bytes[0x211] = 1;
  view.setUint32(0x22c, 0x37ff_ffff, true);
  view.setUint32(0x238, 2047, true);
  view.setUint32(0x248, 0x800, true);
  view.setUint32(0x24c, payload.length, true);
  bytes.set(payload, setup + 0x800);
  return bytes;
}

async function gzipped(bytes: Uint8Array): Promise<Uint8Array> {
  const stream = new Blob([bytes as Uint8Array<ArrayBuffer>]).stream()
    .pipeThrough(new CompressionStream("gzip"));
  const packed = new Uint8Array(await new Response(stream).arrayBuffer());
  const payload = new Uint8Array(packed.length + 4);
  payload.set(packed);
  new DataView(payload.buffer).setUint32(packed.length, bytes.length, true);
  return payload;
}

function at(plan: BootPlan, address: number): DataView {
  const write = plan.writes.findLast((write) =>
    address >= write.address && address < write.address + write.bytes.length
  );
  if (write === undefined) throw new Error(`nothing at 0x${address.toString(16)}`);
  return new DataView(write.bytes.buffer, write.bytes.byteOffset + address - write.address);
}

Deno.test("boot_params tell the kernel of its memory, command line, RAM disk and ACPI tables", async () => {
  const initrd = new Uint8Array(10_000).fill(0x55);
  const plan = await planLinuxBoot(
    { kernel: elfKernel(), initrd, commandLine: "console=ttyS0" },
    64 * MIB,
    ACPI,
  );
  assertEquals(plan.entry, 0x100_0010);
  assertEquals(at(plan, 0x100_0000).getUint8(0), 0xaa);
  const params = at(plan, plan.bootParams);
  assertEquals(params.getUint32(0x202, true), 0x53726448);
  assertEquals(params.getUint8(0x210), 0xff);
  const commandLine = at(plan, params.getUint32(0x228, true));
  assertEquals(
    String.fromCharCode(...Array.from({ length: 13 }, (_, i) => commandLine.getUint8(i))),
    "console=ttyS0",
  );
  assertEquals(commandLine.getUint8(13), 0);
  const ramdisk = params.getUint32(0x218, true);
  assertEquals(params.getUint32(0x21c, true), initrd.length);
  assertEquals(ramdisk % 4096, 0);
  assert(ramdisk + initrd.length <= 64 * MIB);
  assertEquals(at(plan, ramdisk).getUint8(9_999), 0x55);
  const rsdp = at(plan, params.getUint32(0x70, true));
  assertEquals(rsdp.getUint32(0, true), 0x20445352); // "RSD "

  const entries = params.getUint8(0x1e8);
  const map = Array.from({ length: entries }, (_, i) => {
    const offset = 0x2d0 + 20 * i;
    return {
      start: params.getUint32(offset, true),
      end: params.getUint32(offset, true) + params.getUint32(offset + 8, true),
      type: params.getUint32(offset + 16, true),
    };
  });
  for (let i = 1; i < map.length; i++) assert(map[i]!.start >= map[i - 1]!.end);
  assertEquals(map.at(-1), { start: MIB, end: 64 * MIB, type: 1 });
  const tables = map.find(({ start }) => start === 0xe_0000)!;
  assert(tables.type === 2 && params.getUint32(0x70, true) >= tables.start);
});

Deno.test("nothing of the layout overlaps", async () => {
  const plan = await planLinuxBoot(
    { kernel: elfKernel(), initrd: new Uint8Array(MIB), commandLine: "x".repeat(2000) },
    32 * MIB,
    ACPI,
  );
  const ranges = plan.writes
    .map(({ address, bytes }) => ({ address, end: address + bytes.length }))
    .sort((a, b) => a.address - b.address);
  for (let i = 1; i < ranges.length; i++) assert(ranges[i]!.address >= ranges[i - 1]!.end);
  assert(plan.stack > plan.gdt + plan.gdtLimit && plan.stack <= plan.bootParams);
});

Deno.test("a packed kernel is unpacked, and one in an unknown format unpacks itself", async () => {
  const kernel = elfKernel();
  const packed = bzImage(await gzipped(kernel));
  assertEquals(await unpackKernel(packed), kernel);
  const plan = await planLinuxBoot({ kernel: packed, commandLine: "" }, 32 * MIB, ACPI);
  assertEquals(plan.entry, 0x100_0010);
  assertEquals(at(plan, plan.bootParams).getUint16(0x206, true), 0x20f);

  const unknown = bzImage(new Uint8Array(4096).fill(0x11));
  assertEquals(await unpackKernel(unknown), null);
  const other = await planLinuxBoot({ kernel: unknown, commandLine: "" }, 32 * MIB, ACPI);
  assertEquals(other.entry, MIB);
  assertEquals(at(other, MIB + 0x800).getUint8(0), 0x11);
});

Deno.test("what cannot be booted is refused with a sentence", async () => {
  const boot = (kernel: Uint8Array, more = {}): Promise<BootPlan> =>
    planLinuxBoot({ kernel, commandLine: "", ...more }, 32 * MIB, ACPI);
  await assertRejects(() => boot(new Uint8Array(100)), RangeError, "neither a bzImage nor");
  await assertRejects(() => boot(new Uint8Array(100_000)), RangeError, "neither a bzImage nor");
  const low = bzImage(new Uint8Array(4096));
  low[0x211] = 0;
  await assertRejects(() => boot(low), RangeError, "zImage");
  await assertRejects(
    () => boot(elfKernel(), { initrd: new Uint8Array(20 * MIB) }),
    RangeError,
    "does not fit",
  );
  await assertRejects(
    () => boot(elfKernel(), { commandLine: "x".repeat(3000) }),
    RangeError,
    "command line",
  );
  const far = elfKernel();
  new DataView(far.buffer).setUint32(84 + 12, 0x7000_0000, true);
  await assertRejects(() => boot(far), RangeError, "MiB of guest memory");
});

Deno.test("an ELF file that lies about itself is refused", () => {
  const change = (offset: number, value: number): Uint8Array => {
    const bytes = elfKernel();
    new DataView(bytes.buffer).setUint32(offset, value, true);
    return bytes;
  };
  assertThrows(() => readElf(change(28, 0xffff_fff0)), RangeError, "headers");
  assertThrows(() => readElf(change(84 + 4, 0xffff_0000)), RangeError, "segment");
  assertThrows(() => readElf(change(84 + 16, 0x4000)), RangeError, "segment");
  assertThrows(() => readElf(change(84, 0)), RangeError, "nothing to load");
  assertThrows(() => readElf(change(4, 0x0101_0102)), RangeError, "32-bit");
  assertThrows(() => readElf(change(16, 0x3e_0002)), RangeError, "x86");
});

import { assertEquals, assertRejects, assertThrows } from "@std/assert";
import type { PciBar, PciFunction, PciHost } from "@virtio/transport/pci";
import type { AccessSize, BusHandler } from "./bus.ts";
import { mmioAddress } from "./acpi.ts";
import { V86Machine } from "./machine.ts";
import { Program, PROGRAM_ADDRESS } from "./testing/program.ts";
import { runProgram } from "./testing/run.ts";

/** A function with a memory BAR 0 and an I/O BAR 1 that remembers every access, and answers with the offset in each byte. */
class Recorder implements PciFunction {
  readonly bars: readonly (PciBar | null)[] = [
    { kind: "memory", size: 0x1000, is64: false },
    { kind: "io", size: 0x100, is64: false },
    null,
    null,
    null,
    null,
  ];
  readonly log: string[] = [];
  readonly config = new DataView(new ArrayBuffer(256));
  readonly host: PciHost;

  constructor(host: PciHost) {
    this.host = host;
    this.config.setUint32(0, 0x5678_1af4, true);
    this.config.setUint8(0x3d, 1);
  }

  configRead(offset: number, size: AccessSize): number {
    if (offset >= 0x40) this.log.push(`config r${size}@${offset.toString(16)}`);
    if (size === 1) return this.config.getUint8(offset);
    return size === 2 ? this.config.getUint16(offset, true) : this.config.getUint32(offset, true);
  }

  configWrite(offset: number, size: AccessSize, value: number): void {
    if (offset >= 0x40) {
      this.log.push(`config w${size}@${offset.toString(16)}=${value.toString(16)}`);
    }
    if (size === 1) this.config.setUint8(offset, value);
    else if (size === 2) this.config.setUint16(offset, value, true);
    else this.config.setUint32(offset, value, true);
  }

  barAddress(index: number): number | null {
    const on = this.config.getUint8(4) & (index === 0 ? 2 : 1);
    return on ? this.config.getUint32(0x10 + 4 * index, true) : null;
  }

  barRead(index: number, offset: number, size: AccessSize): number {
    this.log.push(`bar${index} r${size}@${offset.toString(16)}`);
    return offset * 0x0101_0101 + 0x0302_0100 & (size === 4 ? -1 : 2 ** (8 * size) - 1);
  }

  barWrite(index: number, offset: number, size: AccessSize, value: number): void {
    this.log.push(`bar${index} w${size}@${offset.toString(16)}=${value.toString(16)}`);
  }
}

const SLOT = 3;
const BAR = 0xc123_4000;
const PORTS = 0xc800;

/** Puts the BARs of a `Recorder` into place. */
function mapped(): Program {
  return new Program().configWrite(SLOT, 0x10, 4, BAR).configWrite(SLOT, 0x14, 4, PORTS)
    .configWrite(SLOT, 4, 2, 3);
}

Deno.test("accesses of every width reach BARs where the guest put them", async () => {
  let fn!: Recorder;
  const { reason, reports, machine } = await runProgram(
    mapped()
      .store(BAR + 8, 4, 0xdeadbeef).store(BAR + 2, 2, 0xbeef).store(BAR + 1, 1, 0xef)
      .load(BAR + 0x10, 4).report().load(BAR + 3, 1).report()
      .out(PORTS + 4, 4, 0xcafe_babe).out(PORTS + 6, 2, 0xbabe).out(PORTS + 7, 1, 0xbe)
      .in(PORTS + 8, 4).report().in(PORTS + 8, 2).report().in(PORTS + 9, 1).report()
      .powerOff(),
    (machine) => fn = machine.addPci(SLOT, (host) => new Recorder(host)),
  );
  assertEquals(reason, "poweroff");
  assertEquals(fn.log, [
    "bar0 w4@8=deadbeef",
    "bar0 w2@2=beef",
    "bar0 w1@1=ef",
    "bar0 r4@10",
    "bar0 r1@3",
    "bar1 w4@4=cafebabe",
    "bar1 w2@6=babe",
    "bar1 w1@7=be",
    "bar1 r4@8",
    "bar1 r2@8",
    "bar1 r1@9",
  ]);
  assertEquals(reports, [0x1312_1110, 0x03, 0x0b0a_0908, 0x0908, 0x09]);
  assertEquals(machine.exits.memoryReads, 2);
  assertEquals(machine.exits.memoryWrites, 3);
  assertEquals(machine.exits.portReads, 3);
  assertEquals(machine.exits.portWrites, 3);
});

Deno.test("unaligned accesses come a byte at a time, and 16-bit reads of memory too", async () => {
  let fn!: Recorder;
  const { reports } = await runProgram(
    mapped()
      .store(BAR + 0x21, 4, 0x4433_2211).load(BAR + 0x42, 2).report().load(BAR + 0x51, 4).report()
      .powerOff(),
    (machine) => fn = machine.addPci(SLOT, (host) => new Recorder(host)),
  );
  assertEquals(fn.log, [
    ..."21=11 22=22 23=33 24=44".split(" ").map((text) => `bar0 w1@${text}`),
    ..."42 43 51 52 53 54".split(" ").map((text) => `bar0 r1@${text}`),
  ]);
  assertEquals(reports, [0x4342, 0x5453_5251]);
});

Deno.test("BARs that are off, moved away or removed read as ones", async () => {
  let fn!: Recorder;
  const { reports } = await runProgram(
    mapped()
      .load(BAR, 4).report()
      .configWrite(SLOT, 0x10, 4, BAR + 0x10_0000)
      .load(BAR, 4).report().load(BAR + 0x10_0000, 4).report()
      .configWrite(SLOT, 4, 2, 0)
      .load(BAR + 0x10_0000, 4).report().in(PORTS, 4).report()
      .powerOff(),
    (machine) => fn = machine.addPci(SLOT, (host) => new Recorder(host)),
  );
  assertEquals(reports, [0x0302_0100, 0xffff_ffff, 0x0302_0100, 0xffff_ffff, 0xffff_ffff]);
  assertEquals(fn.log.length, 2);
});

Deno.test("configuration space is read when its data is, in the width of the access", async () => {
  let fn!: Recorder;
  const { reports } = await runProgram(
    new Program()
      .configRead(SLOT, 0, 4).report()
      .configWrite(SLOT, 0x40, 4, 0x1234_5678).configWrite(SLOT, 0x42, 2, 0xaaaa)
      .configWrite(SLOT, 0x41, 1, 0xbb)
      .configRead(SLOT, 0x40, 4).report().configRead(SLOT, 0x42, 2).report()
      .configRead(SLOT, 0x43, 1).report()
      .configRead(SLOT + 1, 0, 4).report() // nothing there
      .configRead(0, 0, 4).report() // v86's own host bridge
      .powerOff(),
    (machine) => fn = machine.addPci(SLOT, (host) => new Recorder(host)),
  );
  assertEquals(reports, [0x5678_1af4, 0xaaaa_bb78, 0xaaaa, 0xaa, 0xffff_ffff, 0x1237_8086]);
  assertEquals(fn.log, [
    "config w4@40=12345678",
    "config w2@42=aaaa",
    "config w1@41=bb",
    "config r4@40",
    "config r2@42",
    "config r1@43",
  ]);
});

Deno.test("an empty virtio-mmio window says so, and a device behind one is found", async () => {
  const log: string[] = [];
  const device: BusHandler = {
    read: (offset, size) => {
      log.push(`r${size}@${offset}`);
      return 0x1234;
    },
    write: (offset, size, value) => void log.push(`w${size}@${offset}=${value}`),
  };
  const { reports } = await runProgram(
    new Program()
      .load(mmioAddress(0), 4).report().load(mmioAddress(0) + 8, 4).report()
      .load(mmioAddress(1) + 0x70, 4).report().store(mmioAddress(1) + 0x50, 4, 7)
      .load(mmioAddress(4), 4).report() // no such window
      .powerOff(),
    (machine) => machine.addMmio(1, () => device),
  );
  assertEquals(reports, [0x7472_6976, 0, 0x1234, 0xffff_ffff]);
  assertEquals(log, ["r4@112", "w4@80=7"]);
});

Deno.test("code that a device wrote over is run anew, even if it was compiled", async () => {
  // A routine returns a constant in EAX; it is called often enough to be compiled, then a device changes the constant.
  const program = new Program();
  program.raw(0xeb, 6); // jump over the routine
  const routine = program.here;
  program.value(0x1111_1111).raw(0xc3);
  const callRoutine = (): void => {
    const distance = routine - (program.here + 5);
    program.raw(0xe8, ...[0, 8, 16, 24].map((shift) => distance >> shift & 0xff));
  };
  program.raw(0xb9, 0x40, 0x42, 0x0f, 0x00); // mov ecx, 1000000
  const loop = program.here;
  callRoutine();
  program.raw(0x49, 0x75, loop - (program.here + 3) & 0xff); // dec ecx; jnz loop
  program.report().store(mmioAddress(0), 4, 1);
  program.raw(0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0); // mov eax, cr0; mov cr0, eax: a processor may run old code until then
  callRoutine();
  program.report().powerOff();
  const { reports } = await runProgram(program, (machine) =>
    machine.addMmio(0, () => ({
      read: () => 0,
      write: () => {
        machine.memory.refresh();
        machine.memory.writeU32(routine + 1, 0x2222_2222);
      },
    })));
  assertEquals(reports, [0x1111_1111, 0x2222_2222]);
});

Deno.test("the machine tells why a guest will not go on", async () => {
  const run = async (program: Program) => {
    const { reason, machine } = await runProgram(program);
    assertEquals(machine.stopReason, reason);
    return reason;
  };
  assertEquals(await run(new Program().powerOff()), "poweroff");
  assertEquals(await run(new Program().raw(0xfa, 0xf4)), "halted"); // cli; hlt
  assertEquals(await run(new Program().out(0x64, 1, 0xfe).raw(0xeb, 0xfe)), "reset");
  const { reason, error, machine } = await runProgram(
    new Program().load(mmioAddress(0), 4).report().powerOff(),
    (machine) =>
      machine.addMmio(0, () => ({
        read: () => {
          throw new Error("broken device");
        },
        write: () => {},
      })),
  );
  assertEquals([reason, (error as Error).message], ["crashed", "broken device"]);
  assertThrows(() => machine.run(), TypeError, "has stopped (crashed)");
});

Deno.test("a machine goes on from a saved state", async () => {
  // Counts in memory until the host has changed a byte there.
  const flag = 0x30_0000;
  const program = new Program();
  const loop = program.here;
  program.raw(0xff, 0x05, 4, 0, 0x30, 0); // inc dword [flag + 4]
  program.load(flag, 1).raw(0x84, 0xc0); // test al, al
  program.raw(0x74, loop - (program.here + 2) & 0xff); // jz loop
  program.load(flag + 4, 4).report().powerOff();
  const first = await V86Machine.create({ memorySize: 32 << 20 });
  await first.bootLinux({ kernel: program.kernel(), commandLine: "" });
  first.run();
  await new Promise((resolve) => setTimeout(resolve, 50));
  await first.stop();
  first.memory.refresh();
  const count = first.memory.readU32(flag + 4);
  assertEquals(count > 0, true);
  const state = structuredClone(await first.saveState());
  await first.destroy();

  const bytes: number[] = [];
  const stopped = Promise.withResolvers<string>();
  const second = await V86Machine.create({
    memorySize: 32 << 20,
    onSerial: (byte) => bytes.push(byte),
    onStopped: (reason) => stopped.resolve(reason),
  });
  await second.restoreState(state);
  assertEquals(second.memory.readU32(flag + 4), count);
  second.memory.writeU8(flag, 1);
  second.run();
  assertEquals(await stopped.promise, "poweroff");
  const reported = new DataView(Uint8Array.from(bytes).buffer).getUint32(0, true);
  assertEquals(reported >= count && reported <= count + 1, true);
  await second.destroy();

  const other = await V86Machine.create({ memorySize: 33 << 20 });
  await assertRejects(() => other.restoreState(state), RangeError, "another size of memory");
  await other.destroy();
});

Deno.test("wrong use is refused with a sentence", async () => {
  for (const memorySize of [0, 1 << 20, (32 << 20) + 1, 2 ** 31, NaN]) {
    await assertRejects(() => V86Machine.create({ memorySize }), RangeError, "memorySize");
  }
  await assertRejects(() => V86Machine.create({ mmioWindows: 65 }), RangeError, "mmioWindows");
  const machine = await V86Machine.create({ memorySize: 32 << 20 });
  const make = (host: PciHost): Recorder => new Recorder(host);
  for (const slot of [0, 1, 32, 2.5]) {
    assertThrows(() => machine.addPci(slot, make), RangeError, "PCI slot");
  }
  assertThrows(() => machine.addPci(7, make), RangeError, "taken by a device of v86 itself");
  machine.addPci(SLOT, make);
  assertThrows(() => machine.addPci(SLOT, make), RangeError, "must be free");
  machine.removePci(SLOT);
  machine.addPci(SLOT, make);
  const device = { read: () => 0, write: () => {} };
  assertThrows(() => machine.addMmio(4, () => device), RangeError, "no virtio-mmio window 4");
  machine.addMmio(0, () => device);
  assertThrows(() => machine.addMmio(0, () => device), RangeError, "taken");
  await assertRejects(
    () => machine.bootLinux({ kernel: new Uint8Array(10), commandLine: "" }),
    RangeError,
    "neither a bzImage",
  );
  assertEquals(PROGRAM_ADDRESS < 32 << 20, true);
  await machine.destroy();
});

import { assertEquals, assertRejects } from "@std/assert";
import { V86Machine } from "./machine.ts";
import { Program } from "./testing/program.ts";
import { runProgram } from "./testing/run.ts";

/** Registers of the IDE controller and of its disk. */
const SLOT = 0x1e;
const COMMAND = 0x1f7;
const IDENTIFY = 0xec;

/** Reads the controller's id and decode bits; reads the status, asks the disk what it is, reads the first word of that. */
function look(): Program {
  const program = new Program();
  program.configRead(SLOT, 0, 4).report();
  program.configRead(SLOT, 0x40, 4).report();
  program.out(COMMAND, 1, IDENTIFY).in(COMMAND, 1).report();
  return program.in(0x1f0, 2).report().powerOff();
}

Deno.test("IDE: with a disk the controller is there and switched on, and each access is counted", async () => {
  const run = await runProgram(look(), undefined, { ide: { buffer: new ArrayBuffer(2 ** 20) } });
  assertEquals(run.reason, "poweroff");
  // PIIX3 IDE; both channels decode; ready with data, no error; a fixed disk.
  assertEquals(run.reports, [0x7010_8086, 0x8000_8000, 0x58, 0x40]);
  const { ideExits, exits } = run.machine;
  assertEquals([ideExits!.writes, ideExits!.reads, ideExits!.total], [1, 2, 3]);
  assertEquals(exits.total, 0);
});

Deno.test("IDE: without a disk there is no controller", async () => {
  const program = new Program().configRead(SLOT, 0, 4).report().powerOff();
  const run = await runProgram(program);
  assertEquals(run.reports, [0xffff_ffff]);
  assertEquals(run.machine.ideExits, null);
});

Deno.test("IDE: a disk has whole sectors", async () => {
  for (const size of [0, 511, 513]) {
    await assertRejects(
      () => V86Machine.create({ ide: { buffer: new ArrayBuffer(size) } }),
      RangeError,
      "512",
    );
  }
});

import type { StopReason } from "../adapter_types.ts";
import { V86Machine, type V86MachineOptions } from "../machine.ts";
import type { Program } from "./program.ts";

/** What became of a program. */
export interface ProgramRun {
  /** Why it stopped. */
  readonly reason: StopReason;
  /** What was thrown, if something was. */
  readonly error: unknown;
  /** What it reported: EAX at each `report()`. */
  readonly reports: readonly number[];
  /** The machine, stopped. */
  readonly machine: V86Machine;
}

/** Runs a program in a machine of 32 MiB until it stops. @throws {Error} After ten seconds. */
export async function runProgram(
  program: Program,
  attach: (machine: V86Machine) => void = () => {},
  options: Pick<V86MachineOptions, "ide"> = {},
): Promise<ProgramRun> {
  const bytes: number[] = [];
  const stopped = Promise.withResolvers<{ reason: StopReason; error: unknown }>();
  const machine = await V86Machine.create({
    ...options,
    memorySize: 32 << 20,
    onSerial: (byte) => bytes.push(byte),
    onStopped: (reason, error) => stopped.resolve({ reason, error }),
  });
  attach(machine);
  await machine.bootLinux({ kernel: program.kernel(), commandLine: "" });
  machine.run();
  const timer = setTimeout(() => stopped.reject(new Error("the program did not stop")), 10_000);
  try {
    const { reason, error } = await stopped.promise;
    await machine.destroy();
    const view = new DataView(Uint8Array.from(bytes).buffer);
    const reports = Array.from(
      { length: bytes.length >> 2 },
      (_, i) => view.getUint32(4 * i, true),
    );
    return { reason, error, reports, machine };
  } finally {
    clearTimeout(timer);
  }
}

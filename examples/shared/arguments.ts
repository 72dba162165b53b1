/** Reads the command line of an example: what is the same in all of them, and the means for the rest. */
import { parseArgs } from "@std/cli/parse-args";
import type { Seat } from "./seat.ts";
import { type Place, PLACES } from "./workers/place.ts";

/** A wrong argument: one sentence for the user. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What every example lets the user choose. */
export interface CommonOptions extends Seat {
  readonly guest: "linux" | "ts";
  /** Where the device runs. */
  readonly in: Place;
  readonly json: boolean;
}

/** What --help says of the options that are the same everywhere. */
export const COMMON_HELP = {
  first: `\
  --guest linux|ts        stock Linux in v86 (default), or this project's own driver
  --transport pci|mmio    how the device sits in the machine (default pci)
  --bar memory|io         PCI: registers in a memory BAR (default) or an I/O BAR
  --interrupt msix|intx   PCI: how the device interrupts (default msix)
  --ring split|packed     format of the virtqueues (default split)
  --in PLACE              where the device runs: process (default), worker, or worker-per-queue, over the same
                          guest memory. With Linux this needs a host that is Linux too: v86's own memory is not
                          shared, and only there can it be made so`,
  last: `\
  --json                  the last line is one JSON object with the figures and "ok"
  --help                  this text`,
} as const;

const STRINGS = ["guest", "transport", "bar", "interrupt", "ring", "in"];
const BOOLEANS = ["json", "help"];

/** The arguments of an example, and questions about them that throw a `UsageError`. */
export class Arguments {
  readonly #parsed: Record<string, unknown>;

  /**
   * Parses.
   *
   * @param strings Names of options with a value, beside the common ones.
   * @param booleans Names of options without one.
   * @param seat Whether there are the common options that say how a device sits in its machine.
   * @throws {UsageError} If there is anything else among the arguments.
   */
  constructor(
    args: string[],
    strings: readonly string[],
    booleans: readonly string[],
    seat = true,
  ) {
    const named = seat ? [...STRINGS, ...strings] : [...strings];
    this.#parsed = parseArgs(args, {
      string: named,
      collect: named,
      boolean: [...BOOLEANS, ...booleans],
      unknown: (argument: string) => {
        throw new UsageError(`There is no argument ${JSON.stringify(argument)}: see --help`);
      },
    }) as Record<string, unknown>;
  }

  /** Whether an option with a value was given. */
  given(name: string): boolean {
    return (this.#parsed[name] as string[]).length > 0;
  }

  /** Whether an option without a value was given. */
  flag(name: string): boolean {
    return this.#parsed[name] === true;
  }

  /** The value of an option; null if it was not given. */
  text(name: string): string | null {
    const values = this.texts(name);
    if (values.length > 1) throw new UsageError(`Give --${name} once`);
    return values[0] ?? null;
  }

  /** The values of an option that may be given several times. */
  texts(name: string): string[] {
    const values = this.#parsed[name] as string[];
    if (values.includes("")) throw new UsageError(`--${name} needs a value: see --help`);
    return values;
  }

  /** One of some words; the first unless given. */
  choice<T extends string>(name: string, values: readonly T[]): T {
    const value = this.text(name) ?? values[0]!;
    if (!values.includes(value as T)) {
      throw new UsageError(`--${name} is ${values.join(" or ")}, not ${value}`);
    }
    return value as T;
  }

  /** A whole number within bounds. */
  number(name: string, otherwise: number, min: number, max: number): number {
    const value = this.text(name);
    if (value === null) return otherwise;
    if (!/^\d+$/.test(value) || Number(value) < min || Number(value) > max) {
      throw new UsageError(`--${name} is a number from ${min} to ${max}, not ${value}`);
    }
    return Number(value);
  }

  /**
   * The options that are the same everywhere.
   *
   * @param apart Whether each queue of the device can have a worker of its own; else why not.
   */
  common(apart: true | string): CommonOptions {
    const options: CommonOptions = {
      guest: this.choice("guest", ["linux", "ts"]),
      transport: this.choice("transport", ["pci", "mmio"]),
      bar: this.choice("bar", ["memory", "io"]),
      interrupt: this.choice("interrupt", ["msix", "intx"]),
      ring: this.choice("ring", ["split", "packed"]),
      in: this.choice("in", PLACES),
      json: this.flag("json"),
    };
    if (options.transport === "mmio" && (this.given("bar") || this.given("interrupt"))) {
      throw new UsageError("--bar and --interrupt are for --transport pci");
    }
    if (options.in === "worker-per-queue" && apart !== true) {
      throw new UsageError(`--in worker-per-queue is not for this device: ${apart}`);
    }
    if (options.in !== "process" && options.guest === "linux" && Deno.build.os !== "linux") {
      throw new UsageError(
        "--in worker needs --guest ts here: v86's memory can be shared with workers on Linux only",
      );
    }
    return options;
  }
}

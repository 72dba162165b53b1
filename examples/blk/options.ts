/** The command line of example:blk. */
import { parseArgs } from "@std/cli/parse-args";

/** What the user asked for. */
export interface Options {
  readonly guest: "linux" | "ts";
  readonly transport: "pci" | "mmio";
  /** PCI: where the registers are. */
  readonly bar: "memory" | "io";
  /** PCI: how the device interrupts. */
  readonly interrupt: "msix" | "intx";
  readonly ring: "split" | "packed";
  readonly queues: number;
  readonly image: string | null;
  readonly format: boolean;
  readonly readonly: boolean;
  readonly shell: boolean;
  readonly json: boolean;
  /** Megabytes that the guest writes and reads back. */
  readonly megabytes: number;
  readonly kernel: string | null;
  readonly initrd: string | null;
}

/** A wrong argument: one sentence for the user. */
export class UsageError extends Error {
  override readonly name = "UsageError";
}

/** What --help prints. */
export const HELP =
  `Boots a stock Linux in a virtual machine on a virtio disk made of this project's packages, and checks that
what the guest writes is what the disk image holds.

Usage: deno task example:blk [options]

  --guest linux|ts        stock Linux in v86 (default), or this project's own driver
  --transport pci|mmio    how the device sits in the machine (default pci)
  --bar memory|io         PCI: registers in a memory BAR (default) or an I/O BAR
  --interrupt msix|intx   PCI: how the device interrupts (default msix)
  --ring split|packed     format of the virtqueues (default split)
  --queues N              number of virtqueues, 1 to 16 (default 1)
  --image FILE            use this raw image; it is formatted only with --format
  --format                make a file system on --image first; everything on it is lost
  --readonly              give the guest a disk that it cannot write; needs --image
  --megabytes N           how much the guest writes and reads back, 1 to 512 (default 8)
  --shell                 afterwards, the guest's shell on this terminal; "exit" leaves it
  --kernel FILE           a kernel of your own: an i386 bzImage
  --initrd FILE           an initial RAM disk of your own, for --kernel; needs --shell
  --json                  the last line is one JSON object with the figures and "ok"
  --help                  this text
`;

const CHOICES = {
  guest: ["linux", "ts"],
  transport: ["pci", "mmio"],
  bar: ["memory", "io"],
  interrupt: ["msix", "intx"],
  ring: ["split", "packed"],
} as const;

/**
 * Reads the arguments.
 *
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readOptions(args: string[]): Options | null {
  const strings = [
    ...Object.keys(CHOICES),
    "queues",
    "image",
    "megabytes",
    "kernel",
    "initrd",
  ];
  const booleans = ["format", "readonly", "shell", "json", "help"];
  const parsed = parseArgs(args, {
    string: strings,
    boolean: booleans,
    unknown: (argument: string) => {
      throw new UsageError(`There is no argument ${JSON.stringify(argument)}: see --help`);
    },
  }) as Record<string, unknown>;
  if (parsed["help"]) return null;
  const text = (name: string): string | null => {
    const value = parsed[name];
    if (value === undefined) return null;
    if (Array.isArray(value)) throw new UsageError(`Give --${name} once`);
    if (value === "") throw new UsageError(`--${name} needs a value: see --help`);
    return String(value);
  };
  const choice = <T extends string>(name: string, values: readonly T[]): T => {
    const value = text(name) ?? values[0]!;
    if (!values.includes(value as T)) {
      throw new UsageError(`--${name} is ${values.join(" or ")}, not ${value}`);
    }
    return value as T;
  };
  const number = (name: string, otherwise: number, min: number, max: number): number => {
    const value = text(name);
    if (value === null) return otherwise;
    if (!/^\d+$/.test(value) || Number(value) < min || Number(value) > max) {
      throw new UsageError(`--${name} is a number from ${min} to ${max}, not ${value}`);
    }
    return Number(value);
  };
  const options: Options = {
    guest: choice("guest", CHOICES.guest),
    transport: choice("transport", CHOICES.transport),
    bar: choice("bar", CHOICES.bar),
    interrupt: choice("interrupt", CHOICES.interrupt),
    ring: choice("ring", CHOICES.ring),
    queues: number("queues", 1, 1, 16),
    image: text("image"),
    format: parsed["format"] === true,
    readonly: parsed["readonly"] === true,
    shell: parsed["shell"] === true,
    json: parsed["json"] === true,
    megabytes: number("megabytes", 8, 1, 512),
    kernel: text("kernel"),
    initrd: text("initrd"),
  };
  const clash = findClash(options, parsed);
  if (clash !== null) throw new UsageError(clash);
  return options;
}

function findClash(options: Options, parsed: Record<string, unknown>): string | null {
  const given = (name: string): boolean => parsed[name] !== undefined;
  if (options.readonly && options.image === null) {
    return "--readonly needs --image: an empty disk that nobody can write holds nothing to read";
  }
  if (options.readonly && options.format) return "--readonly and --format contradict each other";
  if (options.format && options.image === null) {
    return "--format needs --image: the example's own image is always formatted";
  }
  if (options.transport === "mmio" && (given("bar") || given("interrupt"))) {
    return "--bar and --interrupt are for --transport pci";
  }
  if (options.guest === "ts" && (options.shell || given("kernel") || given("initrd"))) {
    return "--shell, --kernel and --initrd are for --guest linux";
  }
  if (options.initrd !== null && !options.shell) {
    return "--initrd needs --shell: only the example's own initial RAM disk takes its commands";
  }
  if (options.initrd !== null && options.kernel === null) {
    return "--initrd needs --kernel, since its modules must fit the kernel";
  }
  return null;
}

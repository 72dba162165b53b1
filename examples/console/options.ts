/** The command line of example:console. */
import { Arguments, COMMON_HELP, type CommonOptions, UsageError } from "../shared/arguments.ts";

/** A port that the user asked for. */
export interface PortOption {
  /** Its name in the guest. */
  readonly name: string;
  /** What is at the host's end. */
  readonly kind: "file" | "unix";
  readonly path: string;
}

/** What the user asked for. */
export interface Options extends CommonOptions {
  readonly ports: readonly PortOption[];
  /** Whether the console is the user's terminal; else a scripted conversation. */
  readonly interactive: boolean;
  /** The letter that, with Ctrl, begins a command to this program. */
  readonly escape: string;
  /** Mebibytes that go each way through a port of the conversation. */
  readonly megabytes: number;
  readonly kernel: string | null;
}

/** Names of the conversation's own ports. */
export const OWN_PORTS = { data: "example.data", late: "example.late" } as const;

/** What --help prints. */
export const HELP =
  `Boots a stock Linux in a virtual machine whose only console is a virtio console made of this project's packages.

On a terminal that console is yours: log in as root, without a password. Ctrl-C and all other keys go to the guest, which
also learns the size of your terminal. Ctrl-A x leaves; Ctrl-A Ctrl-A sends a Ctrl-A. What Linux says before it has loaded
its console driver appears when it has. Without a terminal the program itself logs in, talks to the guest and checks what
it says; so it does with --script.

Usage: deno task example:console [options]

${COMMON_HELP.first}
  --port NAME=FILE        one more port: what the guest writes to /dev/virtio-ports/NAME goes to the file
  --port NAME=unix:PATH   one more port: a Unix socket, made at PATH, where one program at a time may connect
  --escape LETTER         leave with Ctrl-LETTER x instead of Ctrl-A x
  --script                the scripted conversation, on a terminal too
  --megabytes N           how much the conversation sends through a port each way, 1 to 256 (default 1)
  --kernel FILE           a kernel of your own: an i386 bzImage that fits Debian's modules
${COMMON_HELP.last}
`;

/**
 * Reads the arguments.
 *
 * @param terminal Whether there is a terminal at both ends.
 * @returns The options, or null if help was asked for.
 * @throws {UsageError} If an argument is unknown or makes no sense.
 */
export function readOptions(args: string[], terminal: boolean): Options | null {
  const given = new Arguments(args, ["port", "escape", "megabytes", "kernel"], ["script"]);
  if (given.flag("help")) return null;
  const common = given.common("its ports share a control queue, and belong together");
  const escape = (given.text("escape") ?? "a").toLowerCase();
  // Ctrl-J and Ctrl-M are what the Enter key sends, Ctrl-I is the tabulator.
  if (!/^[a-hk-ln-z]$/.test(escape)) {
    throw new UsageError(`--escape is a letter other than i, j and m, not ${escape}`);
  }
  const interactive = terminal && common.guest === "linux" && !given.flag("script");
  if (interactive && common.json) {
    throw new UsageError("--json needs --script on a terminal: you judge your own conversation");
  }
  if (common.guest === "ts" && given.given("kernel")) {
    throw new UsageError("--kernel is for --guest linux");
  }
  return {
    ...common,
    ports: readPorts(given.texts("port")),
    interactive,
    escape,
    megabytes: given.number("megabytes", 1, 1, 256),
    kernel: given.text("kernel"),
  };
}

function readPorts(texts: readonly string[]): PortOption[] {
  const ports: PortOption[] = [];
  for (const text of texts) {
    const equals = text.indexOf("=");
    const name = text.slice(0, Math.max(equals, 0));
    const end = text.slice(equals + 1);
    if (name === "" || end === "" || end === "unix:") {
      throw new UsageError(`--port is NAME=FILE or NAME=unix:PATH, not ${text}`);
    }
    if (!/^[\w.:-]{1,100}$/.test(name) || /^\.+$/.test(name)) {
      throw new UsageError(
        `The name of a port becomes a file name in the guest: ${
          JSON.stringify(name)
        } has other characters than letters, digits, and _.:-`,
      );
    }
    const taken = ports.some((port) => port.name === name) ||
      (Object.values(OWN_PORTS) as string[]).includes(name);
    if (taken) throw new UsageError(`There is already a port named ${name}`);
    const unix = end.startsWith("unix:");
    ports.push({ name, kind: unix ? "unix" : "file", path: unix ? end.slice(5) : end });
  }
  if (ports.length > 24) throw new UsageError("There may be 24 ports at most");
  return ports;
}

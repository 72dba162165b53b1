/** The example's run with a stock Linux in v86. */
import type { ConsolePortOptions } from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { TerminalConsole } from "@virtio/console/terminal";
import type { Device } from "@virtio/device";
import { V86Machine } from "@virtio/v86";
import { COMMAND_LINE, GuestError } from "../guest/guest.ts";
import { type BootFiles, bootFiles } from "../shared/boot_files.ts";
import { randomBytes, sha256 } from "../shared/bytes.ts";
import { Checks, type Outcome, type Progress } from "../shared/run.ts";
import { attach, type Attached, seatName } from "../shared/seat.ts";
import { Conversation } from "./conversation.ts";
import { openConsole, type PlacedConsole, type Port } from "./device.ts";
import { type Figures, readFigures } from "./figures.ts";
import { consoleSystem, HOST_NAME } from "./init.ts";
import { type Options, OWN_PORTS, type PortOption } from "./options.ts";
import { openPorts, readAtEnd } from "./ports.ts";
import { until } from "./until.ts";

const MIB = 2 ** 20;
const BOOT_TIMEOUT = 180_000;

/** A machine that runs, and why it stopped. */
interface Running extends AsyncDisposable {
  readonly machine: V86Machine;
  readonly console: PlacedConsole;
  readonly attached: Attached<Device>;
  /** Resolves when the guest stopped. */
  readonly stopped: Promise<string>;
}

/** Boots Linux with a console device and nothing else. */
async function boot(
  options: Options,
  files: BootFiles,
  console: ConsolePortOptions,
  ports: readonly ConsolePortOptions[],
): Promise<Running> {
  const { promise: stopped, resolve } = Promise.withResolvers<string>();
  const machine = await V86Machine.create({
    // Workers see the guest's memory only if it is shared.
    shared: options.in !== "process",
    onStopped: (reason) => resolve(reason),
  });
  const maxPorts = ports.length + 1 + Object.keys(OWN_PORTS).length;
  const placed = await openConsole(options, [console, ...ports], maxPorts);
  const attached = attach(machine, options, placed.device);
  const words = [COMMAND_LINE.replace("console=ttyS0", "console=hvc0")];
  // The kernel does not know this word; the guest's /etc/profile does.
  if (options.interactive) words.push(`VIRTIO_TERM=${terminalName()}`);
  const commandLine = options.interactive ? words.join(" ").replace(" quiet", "") : words.join(" ");
  await machine.bootLinux({ ...files, commandLine });
  machine.run();
  const end = async (): Promise<void> => {
    await machine.destroy();
    placed[Symbol.dispose]();
  };
  return { machine, console: placed, attached, stopped, [Symbol.asyncDispose]: end };
}

function terminalName(): string {
  const name = Deno.env.get("TERM") ?? "";
  return /^[\w.+-]{1,40}$/.test(name) ? name : "linux";
}

/**
 * Boots Linux with its console at our end.
 *
 * @param judge Told how a scripted conversation went.
 */
export async function runLinux(
  options: Options,
  progress: Progress,
  judge: (outcome: Outcome<Figures>) => boolean,
): Promise<boolean> {
  await using ports = await openPorts(options.ports);
  const files = await bootFiles(progress, options.kernel, consoleSystem());
  progress.step(`booting Linux in v86, its only console on ${seatName(options)}`);
  if (options.interactive) {
    await converse(options, files, ports.options, progress);
    return true;
  }
  return judge(await runScript(options, files, ports.options, progress));
}

/** The user's terminal is the guest's, until one of them ends it. */
async function converse(
  options: Options,
  files: BootFiles,
  ports: readonly ConsolePortOptions[],
  progress: Progress,
): Promise<void> {
  const letter = options.escape.toUpperCase();
  progress.step(`log in as root when it asks. Ctrl-${letter} x leaves, Ctrl-${letter} h helps`);
  const terminal = new TerminalConsole({ escape: letter.charCodeAt(0) - 64 });
  await using running = await boot(options, files, { backend: terminal }, ports);
  const end = await Promise.race([terminal.ended, running.stopped]);
  await terminal.flush();
  terminal.close();
  const figures = readFigures(running.console.counted(), running.machine.exits.total);
  console.log();
  progress.step(
    `${end === "left" ? "you left the guest" : `the guest is off (${end})`}: it wrote ` +
      `${figures.outputBytes} bytes and read ${figures.inputBytes}`,
  );
}

async function runScript(
  options: Options,
  files: BootFiles,
  ports: readonly ConsolePortOptions[],
  progress: Progress,
): Promise<Outcome<Figures>> {
  const start = performance.now();
  const terminal = new MemoryConsole();
  const data = new MemoryConsole({ outputBuffer: options.megabytes * MIB + 4096 });
  await using running = await boot(options, files, { backend: terminal }, [
    { name: OWN_PORTS.data, backend: data },
    ...ports,
  ]);
  const { attached: { errors }, console: device, machine } = running;
  const talk = new Conversation(terminal);
  const checks = new Checks();
  let bootMs = 0;
  const work = async (): Promise<void> => {
    const before = await talk.logIn(BOOT_TIMEOUT);
    bootMs = performance.now() - start;
    progress.step(`logged in after ${(bootMs / 1000).toFixed(1)} s`);
    checks.add("the guest asks for a login", before.endsWith(`${HOST_NAME} login: `));
    await checkConsole(talk, options, checks);
    await checkSize(talk, device.port(0)!, checks);
    await checkKeys(talk, checks);
    progress.step(`${options.megabytes} MiB go each way through a port of their own`);
    await checkData(talk, data, options.megabytes, checks);
    await checkComing(talk, device, checks);
    for (const port of options.ports) await checkUsersPort(talk, port, device, checks);
    progress.step("logging out");
    await talk.type("exit\n");
    await talk.expect("login: ");
    checks.add("after the logout it asks for the next login", true);
  };
  await Promise.race([
    work(),
    running.stopped.then((reason) => {
      throw new GuestError(`The guest stopped (${reason}): ${terminal.takeText().slice(-500)}`);
    }),
  ]);
  checks.addErrors(errors);
  const workMs = performance.now() - start - bootMs;
  const figures = readFigures(device.counted(), machine.exits.total);
  return { guest: "linux", checks: checks.list, figures, bootMs, workMs };
}

async function checkConsole(talk: Conversation, options: Options, checks: Checks): Promise<void> {
  const { output } = await talk.run("tty; awk '{print $1}' /proc/consoles; ls -d /dev/vport*");
  const [tty, ...rest] = output.split("\n");
  checks.add("its terminal is /dev/hvc0", tty === "/dev/hvc0");
  const consoles = rest.filter((line) => !line.startsWith("/dev/"));
  checks.add("the kernel has no other console", consoles.join() === "hvc0");
  const { output: bits } = await talk.run("cat /sys/class/virtio-ports/vport*p0/device/features");
  checks.add(`it took ${options.ring} rings`, (bits[34] === "1") === (options.ring === "packed"));
}

async function checkSize(talk: Conversation, port: Port, checks: Checks): Promise<void> {
  const { output: before } = await talk.run("stty size");
  checks.add(`the guest's terminal has ${before} rows and columns`, before === "25 80");
  port.resize(132, 43);
  const { output: after } = await talk.run(
    "for i in 1 2 3 4 5 6 7 8 9 10; do [ \"$(stty size)\" = '43 132' ] && break; usleep 100000; done; stty size",
  );
  checks.add("after a resize it has 43 and 132", after === "43 132");
}

async function checkKeys(talk: Conversation, checks: Checks): Promise<void> {
  // The shell in the shell is what the terminal's keys go to by the time it says something.
  await talk.type("sh -c \"echo wait''ing; exec sleep 1000\"\n");
  await talk.expect("waiting\r\n");
  await talk.type("\x03");
  await talk.expect("# ");
  // 130 is what a shell says of a command that SIGINT ended.
  await talk.type("echo status''=$?\n");
  const said = await talk.expect(/status=\d+\r\n/);
  checks.add("Ctrl-C ends what runs there", said.endsWith("status=130\r\n"));
  const { output: text } = await talk.run("printf 'Grüße, \\342\\202\\254 5\\n' | tr a-z A-Z");
  checks.add("what is typed and written arrives byte by byte", text === "GRüßE, € 5");
}

async function checkData(
  talk: Conversation,
  data: MemoryConsole,
  megabytes: number,
  checks: Checks,
): Promise<void> {
  const size = megabytes * MIB;
  const timeout = 60_000 + megabytes * 20_000;
  const sent = randomBytes(size);
  const path = `/dev/virtio-ports/${OWN_PORTS.data}`;
  const sending = data.send(sent);
  const { output: received } = await talk.run(`head -c ${size} ${path} | sha256sum`, timeout);
  await sending;
  checks.add(
    `${megabytes} MiB arrive in the guest as they were sent`,
    received.slice(0, 64) === await sha256(sent),
  );
  const { output: written } = await talk.run(
    `head -c ${size} /dev/urandom >/tmp/data; cat /tmp/data >${path}; sha256sum /tmp/data; rm /tmp/data`,
    timeout,
  );
  // What a device in a worker has taken may still be on its way.
  await until(() => data.available >= size);
  checks.add(
    `${megabytes} MiB arrive here as the guest sent them`,
    data.available === size && written.slice(0, 64) === await sha256(data.takeBytes()),
  );
}

/** A port comes while the guest runs, and goes. */
async function checkComing(
  talk: Conversation,
  device: PlacedConsole,
  checks: Checks,
): Promise<void> {
  const backend = new MemoryConsole();
  const path = `/dev/virtio-ports/${OWN_PORTS.late}`;
  device.addPort({ name: OWN_PORTS.late, backend });
  const wait = (condition: string): string =>
    `for i in $(seq 50); do ${condition} && break; usleep 100000; done; ${condition}`;
  const { status } = await talk.run(`${wait(`[ -c ${path} ]`)} && echo hello >${path}`);
  checks.add("a port added while it runs appears there", status === 0);
  checks.add("and carries what is written to it", backend.takeText() === "hello\n");
  device.removePort(OWN_PORTS.late);
  const gone = await talk.run(wait(`[ ! -e ${path} ]`));
  checks.add("a port removed while it runs disappears there", gone.status === 0);
}

async function checkUsersPort(
  talk: Conversation,
  port: PortOption,
  device: PlacedConsole,
  checks: Checks,
): Promise<void> {
  const line = `written by Linux, ${crypto.randomUUID()}`;
  const { backend } = device.port(port.name)!;
  const bytes = await readAtEnd(port, backend, line.length + 1, async () => {
    await talk.run(`echo '${line}' >/dev/virtio-ports/${port.name}`);
  });
  if (bytes === null) return;
  const text = new TextDecoder().decode(bytes);
  checks.add(`what goes into port ${port.name} arrives at ${port.path}`, text === `${line}\n`);
}

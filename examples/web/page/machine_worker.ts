/**
 * The machine, in a worker of its own so that the page stays quick: v86 and, beside its processor, the devices. v86's memory
 * cannot be shared in a browser, so no device can be elsewhere; but what is slow, the disk's storage, is in yet another
 * worker.
 */
import { BlkDevice } from "@virtio/blk";
import { OpfsBackend, OpfsError } from "@virtio/blk/opfs";
import { ConsoleDevice } from "@virtio/console";
import type { QueueDevice } from "@virtio/device";
import { Inspector } from "@virtio/inspect";
import { NetDevice } from "@virtio/net";
import { BroadcastBackend } from "@virtio/net/broadcast";
import { V86Machine } from "@virtio/v86";
import { attach, type Seat } from "../../shared/seat.ts";
import type { DeviceFigures, StartMessage, ToMachine, ToPage } from "./messages.ts";
import { Screen } from "./screen.ts";

const SEAT: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "packed" };
const COMMAND_LINE = "console=hvc0 tsc=reliable mitigations=off random.trust_cpu=on " +
  "cryptomgr.notests noisapnp panic=-1 VIRTIO_TERM=xterm-256color quiet";

/** Milliseconds between two looks at the rings. */
const LOOK = 200;
const QUEUE_NAMES = {
  console: [
    "console, input",
    "console, output",
    "control, to the guest",
    "control, from the guest",
  ],
  disk: ["requests"],
  net: ["receive", "transmit", "control"],
};

const scope = globalThis as unknown as {
  postMessage(message: ToPage, transfer?: ArrayBuffer[]): void;
  addEventListener(type: "message", listener: (event: { data: ToMachine }) => void): void;
};
const say = (message: ToPage): void => scope.postMessage(message);

/** A file beside this one. What ends in .gz is unpacked. */
async function load(name: string): Promise<Uint8Array> {
  const response = await fetch(new URL(name, import.meta.url));
  if (!response.ok) throw new Error(`${name} cannot be loaded (${response.status})`);
  const body = name.endsWith(".gz")
    ? response.body!.pipeThrough(new DecompressionStream("gzip"))
    : response.body!;
  return new Uint8Array(await new Response(body).arrayBuffer());
}

/** All that runs. */
class Running {
  readonly machine: V86Machine;
  readonly screen: Screen = new Screen((bytes) => {
    scope.postMessage({ say: "output", bytes }, [bytes.buffer as ArrayBuffer]);
  });
  readonly console: ConsoleDevice;
  readonly disk: BlkDevice;
  readonly net: NetDevice;
  readonly #backend: OpfsBackend;
  readonly #cable: BroadcastBackend;
  readonly #timer: number;
  readonly inspector: Inspector;
  #looking: number | null = null;

  constructor(machine: V86Machine, backend: OpfsBackend, start: StartMessage) {
    const { guest, cols, rows } = start;
    this.machine = machine;
    this.#backend = backend;
    this.#cable = new BroadcastBackend("virtio guests");
    this.console = new ConsoleDevice({
      ports: [{ backend: this.screen, size: { cols, rows } }],
      size: { cols, rows },
      // Linux asks for the size of a console only where there can be several.
      maxPorts: 4,
    });
    this.disk = new BlkDevice({ backend, id: `guest-${guest}` });
    this.net = new NetDevice({
      backend: this.#cable,
      mac: `02:00:00:99:00:${guest.toString(16).padStart(2, "0")}`,
    });
    const devices: QueueDevice[] = [this.console, this.disk, this.net];
    devices.forEach((device, place) => attach(machine, SEAT, device, place));
    const { memory } = machine;
    this.inspector = new Inspector([
      { name: "Disk", device: this.disk, memory, queueNames: QUEUE_NAMES.disk },
      { name: "Network", device: this.net, memory, queueNames: QUEUE_NAMES.net },
      { name: "Console", device: this.console, memory, queueNames: QUEUE_NAMES.console },
    ]);
    this.#timer = setInterval(() => this.#tell(), 500) as unknown as number;
  }

  /** Looks at the rings, or no more; what was held then goes on. */
  look(on: boolean): void {
    if (on === (this.#looking !== null)) return;
    if (this.#looking !== null) {
      clearInterval(this.#looking);
      this.#looking = null;
      this.inspector.releaseAll();
      return;
    }
    const show = (): void => say({ say: "rings", snapshot: this.inspector.snapshot() });
    this.#looking = setInterval(show, LOOK) as unknown as number;
    show();
  }

  async end(): Promise<void> {
    clearInterval(this.#timer);
    this.look(false);
    this.#cable.close();
    await this.machine.destroy();
    await this.#backend.close();
  }

  #tell(): void {
    const { disk, net, console } = this;
    const frames = { received: 0, sent: 0 };
    for (const pair of net.stats.received) frames.received += pair.bytes;
    for (const pair of net.stats.sent) frames.sent += pair.bytes;
    say({
      say: "figures",
      exits: this.machine.exits.total,
      devices: [
        figures("Console", "The terminal on the left (virtio 1.4, 5.3)", console, {
          received: console.stats.inputBytes,
          sent: console.stats.outputBytes,
        }),
        figures("Disk", "In this browser's own storage, kept (virtio 1.4, 5.2)", disk, {
          received: disk.stats.bytesRead,
          sent: disk.stats.bytesWritten,
        }),
        figures("Network", "A cable to the guests of other tabs (virtio 1.4, 5.1)", net, frames),
      ],
    });
  }
}

function figures(
  name: string,
  about: string,
  device: QueueDevice,
  bytes: { received: number; sent: number },
): DeviceFigures {
  let kicks = 0;
  let interrupts = 0;
  let chains = 0;
  for (const counters of device.queueCounters) {
    kicks += counters.kicks;
    interrupts += counters.interrupts;
    chains += counters.chains;
  }
  return { name, about, kicks, interrupts, chains, ...bytes };
}

async function openDisk(start: StartMessage): Promise<{ backend: OpfsBackend; fresh: boolean }> {
  const make = () => new Worker(new URL("disk_worker.js", import.meta.url), { type: "module" });
  const path = `virtio/guest-${start.guest}.raw`;
  try {
    return { backend: await OpfsBackend.open({ worker: make(), path }), fresh: false };
  } catch (error) {
    if (!(error instanceof OpfsError) || error.reason !== "missing") throw error;
  }
  const backend = await OpfsBackend.open({ worker: make(), path, size: start.diskSize });
  return { backend, fresh: true };
}

async function boot(start: StartMessage): Promise<Running> {
  say({ say: "step", text: "Loading Linux" });
  const [kernel, initrd, wasm, { backend, fresh }] = await Promise.all([
    load("kernel.gz"),
    load("initrd.gz"),
    load("v86.wasm"),
    openDisk(start),
  ]);
  say({ say: "step", text: "Booting Linux" });
  const machine = await V86Machine.create({
    wasm,
    onStopped: (reason) => say({ say: "stopped", reason }),
  });
  const running = new Running(machine, backend, start);
  const commandLine = `${COMMAND_LINE} VIRTIO_GUEST=${start.guest}`;
  await machine.bootLinux({ kernel, initrd, commandLine });
  machine.run();
  say({ say: "running", diskBytes: backend.capacity, newDisk: fresh });
  return running;
}

let booting: Promise<Running> | null = null;

async function hear(message: ToMachine): Promise<void> {
  if (message.say === "start") {
    booting ??= boot(message);
    await booting;
    return;
  }
  const running = await booting;
  if (running === null) return;
  switch (message.say) {
    case "input":
      running.screen.type(message.bytes);
      break;
    case "shown":
      running.screen.shown(message.bytes);
      break;
    case "resize":
      running.console.port(0)?.resize(message.cols, message.rows);
      break;
    case "link":
      running.net.setLink(message.up);
      break;
    case "inspect":
      running.look(message.on);
      break;
    case "command":
      if (running.inspector.command(message.command)) {
        say({ say: "rings", snapshot: running.inspector.snapshot() });
      }
      break;
    case "end":
      await running.end();
      say({ say: "stopped", reason: "ended" });
      break;
  }
}

scope.addEventListener("message", ({ data }) => {
  hear(data).catch((error) => say({ say: "failed", reason: String(error?.message ?? error) }));
});

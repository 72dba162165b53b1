/** One Linux with v86's own virtio-net and virtio-console, and with ours. */
import { ConsoleDevice } from "@virtio/console";
import {
  Frame,
  NetDevice,
  Offload,
  VIRTIO_NET_F_CTRL_MAC_ADDR,
  VIRTIO_NET_F_CTRL_VQ,
  VIRTIO_NET_F_MAC,
  VIRTIO_NET_F_MTU,
  VIRTIO_NET_F_STATUS,
  VIRTIO_NET_HDR_F_NEEDS_CSUM,
  VIRTIO_NET_HDR_GSO_TCPV4,
} from "@virtio/net";
import { Switch } from "@virtio/net/switch";
import type { Rivals } from "@virtio/v86";
import type { GuestFiles } from "../../examples/guest/fetch.ts";
import { Guest } from "../../examples/guest/guest.ts";
import { buildInitrd } from "../../examples/guest/initrd.ts";
import { attach, type Seat } from "../../examples/shared/seat.ts";
import { type LoopTimes, loopTimes } from "../bench_guest/loop.ts";
import { netParameters, netProgram, PROGRAM_PATH, type Work } from "./program.ts";
import { Responder } from "./responder.ts";

const MSS = 1460;
const AT = 34;
const PCI: Seat = { transport: "pci", bar: "memory", interrupt: "msix", ring: "split" };
/** What v86's own card offers, less several queues: the same work for both drivers. */
const PLAIN = VIRTIO_NET_F_MAC | VIRTIO_NET_F_STATUS | VIRTIO_NET_F_MTU | VIRTIO_NET_F_CTRL_VQ |
  VIRTIO_NET_F_CTRL_MAC_ADDR;
const PORT_NAME = "bench";

interface CardSeat {
  readonly name: string;
  readonly label: string;
  readonly seat: Seat;
  readonly place: number;
  readonly plain?: true;
}

/** PCI slots 10 and 12, places 2 and 4, are those of v86's own. */
const CARDS: readonly CardSeat[] = [
  { name: "pci", label: "ours, PCI", seat: PCI, place: 0 },
  {
    name: "pci-packed",
    label: "ours, PCI, packed ring",
    seat: { ...PCI, ring: "packed" },
    place: 1,
  },
  { name: "mmio", label: "ours, MMIO", seat: { ...PCI, transport: "mmio" }, place: 0 },
  { name: "pci-plain", label: "ours, PCI, no offloads", seat: PCI, place: 3, plain: true },
];
const CONSOLE_PLACE = 5;

/** A network card of the guest, and the station at the other end of its cable. */
export interface Card {
  readonly kind: "net";
  /** Short, for JSON. */
  readonly name: string;
  /** For people. */
  readonly label: string;
  /** The station's address. */
  readonly ip: string;
  readonly responder: Responder;
}

/** A line of the guest's: a console, or a port. */
export interface Line {
  readonly kind: "console";
  /** Short, for JSON. */
  readonly name: string;
  /** For people. */
  readonly label: string;
  /** The guest's device node. */
  readonly path: string;
  /** Bytes that came so far. */
  bytes(): number;
}

/** Counts and copies what a console gives: nobody can keep the guest's memory. */
class Collector {
  count = 0;
  readonly #copy = new Uint8Array(65_536);
  text = "";

  write(bytes: Uint8Array, offset: number, length: number): number {
    const taken = Math.min(length, this.#copy.length);
    this.#copy.set(bytes.subarray(offset, offset + taken));
    this.count += taken;
    if (this.text.length < 4096) this.text += String.fromCharCode(...this.#copy.subarray(0, 16));
    return taken;
  }
}

/** A card of ours on a switch, with the station on another port. */
function ourCard(at: CardSeat, ip: string, mac: readonly number[]): [NetDevice, Responder] {
  const network = new Switch();
  const device = new NetDevice({
    backend: network.port(),
    mac: new Uint8Array(mac),
    mtu: 1500,
    ...(at.plain ? { features: PLAIN } : {}),
  });
  const port = network.port();
  const frame = new Frame();
  // A card without offloads gets segments that are finished.
  const responder = new Responder([2, 0, 0, 0, 1, mac[5]!], ip, {
    bulk: at.plain ? 0 : 44 * MSS,
    send: (bytes, header) => {
      frame.fromBytes(bytes);
      if (header > 0) {
        frame.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
        frame.csumStart = AT;
        frame.csumOffset = 16;
        frame.headerLength = header;
        if (bytes.length - header > MSS) {
          frame.gsoType = VIRTIO_NET_HDR_GSO_TCPV4;
          frame.gsoSize = MSS;
        }
      }
      port.send(frame);
    },
  });
  port.listen((frame) => responder.receive(frame.bytes), Offload.all);
  return [device, responder];
}

function rivalCard(rivals: Rivals, ip: string): Responder {
  const responder = new Responder([2, 0, 0, 0, 1, 0], ip, {
    bulk: 0,
    send: (bytes) => rivals.sendFrame(bytes),
  });
  rivals.onFrame = (frame) => responder.receive(frame);
  return responder;
}

/** The booted guest, its cards and its lines. */
export class NetGuest implements AsyncDisposable {
  /** v86's own card first. */
  readonly cards: readonly Card[];
  /** v86's own console first. */
  readonly lines: readonly Line[];
  /** Release of the guest's kernel. */
  readonly kernel: string;
  readonly #guest: Guest;
  readonly #devices: readonly NetDevice[];
  readonly #errors: readonly Error[];

  private constructor(
    guest: Guest,
    kernel: string,
    cards: readonly Card[],
    lines: readonly Line[],
    devices: readonly NetDevice[],
    errors: readonly Error[],
  ) {
    this.#guest = guest;
    this.kernel = kernel;
    this.cards = cards;
    this.lines = lines;
    this.#devices = devices;
    this.#errors = errors;
  }

  /** Boots the guest and sets its cards and lines up. @throws {Error} If one is not there. */
  static async boot(files: GuestFiles): Promise<NetGuest> {
    const cards: Card[] = [];
    const devices: NetDevice[] = [];
    const errors: Error[] = [];
    const collectors = [new Collector(), new Collector(), new Collector()] as const;
    const macs = new Map<string, string>();
    const guest = await Guest.boot({
      kernel: files.kernel,
      initrd: buildInitrd({
        ...files,
        files: [{ path: PROGRAM_PATH, mode: 0o755, bytes: netProgram() }],
      }),
      machine: { memorySize: 128 * 2 ** 20, rivals: { net: true, console: true } },
      attach: (machine) => {
        const rivals = machine.rivals!;
        rivals.onConsole = (bytes) => void collectors[0].write(bytes, 0, bytes.length);
        const ip = (index: number): string => `10.9.${index}.2`;
        cards.push({
          kind: "net",
          name: "v86",
          label: "v86's own",
          ip: ip(0),
          responder: rivalCard(rivals, ip(0)),
        });
        CARDS.forEach((at, i) => {
          const mac = [2, 0, 0, 0, 0, i + 1];
          const [device, responder] = ourCard(at, ip(i + 1), mac);
          const attached = attach(machine, at.seat, device, at.place);
          errors.push(...attached.errors);
          devices.push(device);
          macs.set(mac.map((byte) => byte.toString(16).padStart(2, "0")).join(":"), ip(i + 1));
          cards.push({ kind: "net", name: at.name, label: at.label, ip: ip(i + 1), responder });
        });
        const ports = [
          { backend: collectors[1] },
          { backend: collectors[2], name: PORT_NAME },
        ];
        attach(machine, PCI, new ConsoleDevice({ ports }), CONSOLE_PLACE);
      },
    });
    try {
      await guest.check("modprobe -a virtio_pci virtio_mmio virtio_net virtio_console");
      await findCards(guest, macs, cards[0]!.ip);
      const lines = await findLines(guest, collectors);
      return new NetGuest(guest, files.kernelRelease, cards, lines, devices, errors);
    } catch (error) {
      await guest.destroy();
      throw error;
    }
  }

  /** Has the guest do works, one directly after the other. */
  async run(works: readonly Work[]): Promise<LoopTimes[]> {
    const bytes = works.flatMap((work) => [...netParameters(work)]);
    const output = await this.#guest.check(
      `set -o pipefail; echo ${new Uint8Array(bytes).toBase64()} | base64 -d >/tmp/works; ` +
        `${PROGRAM_PATH} </tmp/works | od -An -v -t u4`,
      { timeout: 600_000 },
    );
    return loopTimes(output, works.length);
  }

  /** @throws {Error} If a device of ours failed meanwhile, or dropped a frame. */
  checkDevices(): void {
    if (this.#errors.length > 0) throw this.#errors[0]!;
    for (const device of this.#devices) {
      const { dropped } = device.stats;
      if (dropped > 0) throw new Error(`A card of ours dropped ${dropped} frames`);
    }
  }

  /** What cards of ours did, for who wants to know why. */
  get devices(): readonly NetDevice[] {
    return this.#devices;
  }

  /** Ends the guest. */
  async [Symbol.asyncDispose](): Promise<void> {
    await this.#guest.destroy();
  }
}

/** Waits for the cards, and gives each its address. */
async function findCards(
  guest: Guest,
  macs: ReadonlyMap<string, string>,
  other: string,
): Promise<void> {
  const found = await guest.check(
    `for i in $(seq 100); do [ $(ls -d /sys/class/net/eth* | wc -l) = ${
      macs.size + 1
    } ] && break; ` +
      "usleep 100000; done; cd /sys/class/net; for n in eth*; do echo $n $(cat $n/address); done",
  );
  const lines = found.split("\n").map((line) => line.split(" "));
  if (lines.length !== macs.size + 1) throw new Error(`The guest found not all cards: ${found}`);
  const commands = lines.map(([name, mac]) => {
    const ip = macs.get(mac!) ?? other;
    return `ip addr add ${ip.replace(/2$/, "1")}/24 dev ${name} && ip link set ${name} up`;
  });
  await guest.check(["ip link set lo up", ...commands].join(" && "));
}

/** Finds out which console of the guest is whose: by what arrives here. */
async function findLines(guest: Guest, collectors: readonly Collector[]): Promise<Line[]> {
  await guest.check(
    "for i in 0 1 2 3 4 5; do n=/dev/hvc$i; stty raw -echo <$n 2>/dev/null && echo -n token$i >$n; done; " +
      `n=/dev/$(grep -lx ${PORT_NAME} /sys/class/virtio-ports/*/name | cut -d/ -f5); ` +
      "ln -s $n /dev/bench; echo -n token >/dev/bench",
  );
  const [own, ours, port] = collectors;
  const node = (collector: Collector): string => {
    const index = /token(\d)/.exec(collector.text)?.[1];
    if (index === undefined) throw new Error("The guest did not find all consoles");
    return `/dev/hvc${index}`;
  };
  const line = (name: string, label: string, path: string, collector: Collector): Line => ({
    kind: "console",
    name,
    label,
    path,
    bytes: () => collector.count,
  });
  if (!port!.text.includes("token")) throw new Error("The guest did not find its port");
  return [
    line("v86", "v86's own console", node(own!), own!),
    line("console", "ours, console", node(ours!), ours!),
    line("port", "ours, named port", "/dev/bench", port!),
  ];
}

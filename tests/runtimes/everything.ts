/** A request through each package, in whatever runs this: Deno, Node, a browser. Prints nothing; gives what it saw. */
import { BlkDevice } from "@virtio/blk";
import { BlkDriver } from "@virtio/blk/driver";
import { MemoryBackend } from "@virtio/blk/memory";
import { OverlayBackend } from "@virtio/blk/overlay";
import { ConsoleDevice } from "@virtio/console";
import { ConsoleDriver } from "@virtio/console/driver";
import { MemoryConsole } from "@virtio/console/memory";
import { CORE_FEATURES, DEFAULT_FEATURES, type Device } from "@virtio/device";
import type { DriverTransport } from "@virtio/device/driver";
import { DirtyBitmap, GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { PciTransport } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import { V86Machine } from "@virtio/v86";
import { Virbr } from "@virtio/virbr";
import { DmaPool } from "@virtio/vring/driver";
import { TestGuest } from "../../packages/virbr/ip/guest_testing.ts";
import { Program, PROGRAM_ADDRESS } from "../../packages/v86/testing/program.ts";

const SIZE = 1 << 20;

function place(device: Device, how: "mmio" | "pci"): { transport: DriverTransport; dma: DmaPool } {
  const memory = GuestMemory.allocate(4 * SIZE);
  memory.tracker = new DirtyBitmap(4 * SIZE);
  const options = { memory, features: how === "mmio" ? DEFAULT_FEATURES : CORE_FEATURES };
  const { driver } = how === "mmio"
    ? connectMmio((host) => new MmioTransport(device, { host, ...options }))
    : connectPci((host) => new PciTransport(device, { host, ...options }));
  return { transport: driver, dma: new DmaPool(memory, 0x1000, 4 * SIZE - 0x1000) };
}

async function disk(how: "mmio" | "pci"): Promise<string> {
  const backend = new OverlayBackend(new MemoryBackend(SIZE));
  const { transport, dma } = place(new BlkDevice({ backend, id: "everywhere" }), how);
  const driver = await BlkDriver.open(transport, { dma });
  const bytes = Uint8Array.from({ length: 8192 }, (_, i) => i * 7);
  await driver.write(16, bytes);
  await driver.flush();
  const into = new Uint8Array(8192);
  await driver.read(16, into);
  const id = await driver.getId();
  await driver.close();
  return into.every((byte, i) => byte === bytes[i]) ? id : "other bytes";
}

async function terminal(how: "mmio" | "pci"): Promise<string> {
  const agent = new MemoryConsole();
  const ports = [{ backend: new MemoryConsole() }, { backend: agent, name: "agent" }];
  const { transport, dma } = place(new ConsoleDevice({ ports }), how);
  const driver = await ConsoleDriver.open(transport, { dma });
  const port = await driver.waitForPort("agent");
  port.open();
  await port.write(new TextEncoder().encode("a line"));
  const text = agent.takeText();
  await driver.close();
  return text;
}

/** A guest asks a network for the name of its gateway. */
async function network(): Promise<string> {
  const net = new Virbr();
  const guest = new TestGuest(net.port(), "52:54:00:00:00:01", net.mac, "192.168.122.9");
  const question = [1, 2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 7, ...new TextEncoder().encode("gateway")];
  const message = Uint8Array.from([...question, 0, 0, 1, 0, 1]);
  guest.send(guest.ipv4(17, net.gateway, guest.udp(3000, 53, net.gateway, message)));
  const [answer] = guest.packets();
  await net.close();
  return [...answer!.payload.subarray(-4)].join(".");
}

/** A program of a few instructions in v86. @param wasm v86's module. */
async function machine(wasm: Uint8Array): Promise<string> {
  const bytes: number[] = [];
  let stop: (reason: string) => void = () => {};
  const stopped = new Promise<string>((resolve) => stop = resolve);
  const made = await V86Machine.create({
    memorySize: 32 << 20,
    wasm,
    onSerial: (byte) => bytes.push(byte),
    onStopped: (reason, error) => stop(`${reason}${error === undefined ? "" : error}`),
  });
  const program = new Program();
  program.load(PROGRAM_ADDRESS, 4).report().powerOff();
  await made.bootLinux({ kernel: program.kernel(), commandLine: "" });
  made.run();
  const reason = await stopped;
  await made.destroy();
  return `${reason}, ${bytes.length} bytes`;
}

/** What each package did: a line each. */
export async function everything(wasm: Uint8Array): Promise<Record<string, string>> {
  const report: Record<string, string> = {};
  for (const how of ["mmio", "pci"] as const) {
    report[`disk, ${how}`] = await disk(how);
    report[`console, ${how}`] = await terminal(how);
  }
  report.virbr = await network();
  report.v86 = await machine(wasm);
  return report;
}

/**
 * Register maps. Run by `deno bench bench/transport_bench.ts`.
 *
 * - kick: one request at a time, from the driver's publish over the register write, the device's work and its interrupt to
 *   what the driver takes back; behind MMIO, behind PCI with messages, and behind PCI with a line, each with its own driver
 *   half. Guards the way of a kick and of an interrupt.
 * - configuration: 8 bytes of it, read consistently (generation before and after).
 *
 * Each iteration is 1000 requests or reads.
 */
import { ConfigSpace, DeviceId, QueueDevice } from "@virtio/device";
import { DriverSession, type DriverTransport } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { PciTransport } from "@virtio/transport/pci";
import { connectPci } from "@virtio/transport/pci/driver";
import type { Chain } from "@virtio/vring";
import { BufferList, DmaPool } from "@virtio/vring/driver";

const TIMES = 1000;
const BUFFERS = 0x80000;

class StatusDevice extends QueueDevice {
  constructor() {
    super({ type: DeviceId.entropy, queueSizes: [256], config: new ConfigSpace(16) });
  }
  protected override handle(chain: Chain): void {
    chain.reader.struct(16);
    chain.writer.u8(0);
  }
}

/** A device and a driver that run, and how many requests came back. */
async function open(
  memory: GuestMemory,
  transport: DriverTransport,
): Promise<{ session: DriverSession; taken: () => number }> {
  let taken = 0;
  const session = await DriverSession.open(transport, {
    dma: new DmaPool(memory, 0x1000, BUFFERS - 0x1000),
    type: DeviceId.entropy,
    wanted: 0n,
    queues: () => [{ index: 0, size: 256 }],
  });
  session.handlers = {
    used: (index) => {
      const queue = session.queue(index);
      do {
        while (queue.take() >= 0) taken++;
      } while (queue.enableInterrupts());
    },
    config: () => {},
    needsReset: () => {
      throw new Error("The device asks for a reset");
    },
  };
  session.queue(0).enableInterrupts();
  return { session, taken: () => taken };
}

const buses: Record<string, (memory: GuestMemory) => DriverTransport> = {
  "MMIO": (memory) =>
    connectMmio((host) => new MmioTransport(new StatusDevice(), { memory, host }), {
      delivery: "sync",
    }).driver,
  "PCI, messages": (memory) =>
    connectPci((host) => new PciTransport(new StatusDevice(), { memory, host }), {
      delivery: "sync",
    }).driver,
  "PCI, line": (memory) =>
    connectPci((host) => new PciTransport(new StatusDevice(), { memory, host }), {
      delivery: "sync",
      messages: false,
    }).driver,
};

for (const [name, connect] of Object.entries(buses)) {
  const memory = GuestMemory.allocate(0x100000);
  const { session, taken } = await open(memory, connect(memory));
  const list = new BufferList().readable(BUFFERS, 16).writable(BUFFERS + 64, 1);
  Deno.bench(`a request, a kick, an interrupt: ${name}`, {
    group: "kick",
    baseline: name === "MMIO",
  }, () => {
    const queue = session.queue(0);
    const before = taken();
    for (let i = 0; i < TIMES; i++) {
      queue.add(list, 0);
      session.publish(0);
    }
    if (taken() - before !== TIMES) throw new Error("A request did not come back");
  });
  let sum = 0;
  Deno.bench(`8 bytes of configuration: ${name}`, {
    group: "configuration",
    baseline: name === "MMIO",
  }, () => {
    for (let i = 0; i < TIMES; i++) {
      sum += session.readConfig((transport) =>
        transport.readConfig(0, 4) + transport.readConfig(4, 4)
      );
    }
  });
}

/**
 * The console device. Run by `deno bench bench/console_bench.ts`.
 *
 * - output: chains of a driver that runs over MMIO, to a back end that counts, and to one in memory; a line of 80 bytes, and
 *   4 KiB. Guards the way of a chain through `ConsoleDevice` and the copy of the back end in memory.
 * - input: writes of the host into buffers that the driver has posted.
 *
 * Each iteration is 256 chains; bytes a second are 256 times the length over the time.
 */
import { type ConsoleBackend, ConsoleDevice, receiveQueue, transmitQueue } from "@virtio/console";
import { MemoryConsole } from "@virtio/console/memory";
import { DeviceId } from "@virtio/device";
import { DriverSession } from "@virtio/device/driver";
import { GuestMemory } from "@virtio/memory";
import { MmioTransport } from "@virtio/transport/mmio";
import { connectMmio } from "@virtio/transport/mmio/driver";
import { BufferList, DmaPool } from "@virtio/vring/driver";

const CHAINS = 256;
const BATCH = 64;
const BUFFERS = 0x80000;

/** A back end that looks at nothing. */
class CountingConsole implements ConsoleBackend {
  bytes = 0;
  write(_bytes: Uint8Array, _offset: number, length: number): number {
    this.bytes += length;
    return length;
  }
}

/** A driver without MULTIPORT, so that the port is open at once. */
async function open(backend: ConsoleBackend): Promise<
  { device: ConsoleDevice; session: DriverSession; take: (queue: number) => number }
> {
  const memory = GuestMemory.allocate(0x200000);
  const device = new ConsoleDevice({ ports: [{ backend, inputBuffer: 2 ** 20 }] });
  const { driver } = connectMmio((host) => new MmioTransport(device, { memory, host }), {
    delivery: "sync",
  });
  const session = await DriverSession.open(driver, {
    dma: new DmaPool(memory, 0x1000, BUFFERS - 0x1000),
    type: DeviceId.console,
    wanted: 0n,
    queues: () => [{ index: 0, size: 128 }, { index: 1, size: 128 }],
  });
  session.handlers = { used: () => {}, config: () => {}, needsReset: () => {} };
  const take = (index: number): number => {
    const queue = session.queue(index);
    let taken = 0;
    while (queue.take() >= 0) taken++;
    queue.enableInterrupts();
    return taken;
  };
  return { device, session, take };
}

for (const length of [80, 4096]) {
  const backends: [string, ConsoleBackend, () => void][] = [];
  const counting = new CountingConsole();
  backends.push(["counted", counting, () => {}]);
  const inMemory = new MemoryConsole({ outputBuffer: BATCH * 4096 });
  backends.push(["kept in memory", inMemory, () => void inMemory.takeBytes()]);
  for (const [what, backend, empty] of backends) {
    const { session, take } = await open(backend);
    const list = new BufferList();
    const queue = transmitQueue(0);
    Deno.bench(`output, ${length} bytes, ${what}`, { group: `output ${length}` }, () => {
      for (let done = 0; done < CHAINS; done += BATCH) {
        for (let i = 0; i < BATCH; i++) {
          list.clear().readable(BUFFERS + 4096 * i, length);
          session.queue(queue).add(list, i);
        }
        session.publish(queue);
        if (take(queue) !== BATCH) throw new Error("output did not come back");
        empty();
      }
    });
  }

  const { device, session, take } = await open(new CountingConsole());
  const bytes = new Uint8Array(length * BATCH);
  const list = new BufferList();
  const queue = receiveQueue(0);
  Deno.bench(`input, ${length} bytes`, { group: `input ${length}` }, async () => {
    const port = device.port(0)!;
    for (let done = 0; done < CHAINS; done += BATCH) {
      for (let i = 0; i < BATCH; i++) {
        list.clear().writable(BUFFERS + 4096 * i, length);
        session.queue(queue).add(list, i);
      }
      session.publish(queue);
      port.write(bytes);
      // The device publishes what it used in a microtask.
      await undefined;
      if (take(queue) !== BATCH) throw new Error("input did not come");
    }
  });
}

/** Guest memory at an address: an anonymous mapping of the host's, as a file of another process would be. */
import { assertEquals } from "@std/assert";
import { GuestMemory } from "@virtio/memory";
import { openQueue } from "@virtio/vring";
import { BufferList, openDriverQueue } from "@virtio/vring/driver";

const SIZE = 0x10000;
const PROT_READ_WRITE = 3;
const MAP_SHARED_ANONYMOUS = 0x21;

function openLibc() {
  return Deno.dlopen("libc.so.6", {
    mmap: { parameters: ["pointer", "usize", "i32", "i32", "i32", "i64"], result: "pointer" },
    munmap: { parameters: ["pointer", "usize"], result: "i32" },
  });
}

async function withMapping(
  work: (memory: GuestMemory) => Promise<void> | void,
): Promise<void> {
  using libc = openDisposable();
  const pointer = libc.symbols.mmap(
    null,
    BigInt(SIZE),
    PROT_READ_WRITE,
    MAP_SHARED_ANONYMOUS,
    -1,
    0n,
  );
  if (pointer === null) throw new Error("mmap failed");
  try {
    await work(
      new GuestMemory([{
        base: 0x1_0000_0000,
        buffer: Deno.UnsafePointerView.getArrayBuffer(pointer, SIZE),
        address: BigInt(Deno.UnsafePointer.value(pointer)),
      }]),
    );
  } finally {
    libc.symbols.munmap(pointer, BigInt(SIZE));
  }
}

function openDisposable() {
  const libc = openLibc();
  return { symbols: libc.symbols, [Symbol.dispose]: () => libc.close() };
}

const ignore = Deno.build.os !== "linux";

Deno.test({
  name: "guest memory at an address is shared with a worker by its address",
  ignore,
  fn: () =>
    withMapping(async (memory) => {
      memory.writeU32(0x1_0000_1000, 41);
      const worker = new Worker(new URL("./mapped_worker.ts", import.meta.url), { type: "module" });
      try {
        const seen = await new Promise<number>((resolve, reject) => {
          worker.onmessage = ({ data }) => resolve(data);
          worker.onerror = (event) => reject(new Error(event.message));
          worker.postMessage(memory.share());
        });
        assertEquals(seen, 41);
        assertEquals(memory.readU32(0x1_0000_1004), 42);
      } finally {
        worker.terminate();
      }
    }),
});

for (const [format, features] of [["split", 0n], ["packed", 1n << 34n]] as const) {
  Deno.test({
    name: `a ${format} queue works in guest memory at an address, above 4 GiB`,
    ignore,
    fn: () =>
      withMapping((memory) => {
        const base = 0x1_0000_0000;
        const config = {
          size: 8,
          descriptorArea: base,
          driverArea: base + 0x1000,
          deviceArea: base + 0x2000,
        };
        const driver = openDriverQueue(memory, config, features);
        const device = openQueue(memory, config, features);
        for (let round = 0; round < 20; round++) {
          memory.writeU32(base + 0x4000, round);
          driver.add(
            new BufferList().readable(base + 0x4000, 4).writable(base + 0x5000, 4),
            round,
          );
          assertEquals(driver.publish(), true);
          const chain = device.pop()!;
          chain.writer.u32(chain.reader.u32() * 3);
          device.push(chain);
          assertEquals(device.flush(), true);
          assertEquals(driver.take(), round);
          assertEquals(memory.readU32(base + 0x5000), round * 3);
        }
      }),
  });
}

/** Opens guest memory that the main thread has at an address, and writes into it. */
import { GuestMemory, type SharedMemory } from "@virtio/memory";

self.onmessage = ({ data }: MessageEvent<SharedMemory>) => {
  const memory = GuestMemory.from(data, (address, size) => {
    const pointer = Deno.UnsafePointer.create(address);
    if (pointer === null) throw new Error("no address");
    return Deno.UnsafePointerView.getArrayBuffer(pointer, size);
  });
  const seen = memory.readU32(0x1_0000_1000);
  memory.writeU32(0x1_0000_1004, seen + 1);
  self.postMessage(seen);
};

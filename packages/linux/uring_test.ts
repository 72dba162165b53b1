import { assert, assertEquals, assertThrows } from "@std/assert";
import { addressOf } from "./libc.ts";
import { closeDescriptor, openDescriptor, OpenFlag } from "./descriptor.ts";
import { Errno, SystemError } from "./errno.ts";
import { IoVectors } from "./file_io.ts";
import { PollSet } from "./poll_set.ts";
import { Uring } from "./uring.ts";
import { UringFlag, UringOp } from "./uring_layout.ts";

/** Whether this system lets us make rings: containers often forbid it. */
function available(): boolean {
  try {
    new Uring(1).close();
    return true;
  } catch (error) {
    if (error instanceof SystemError) return false;
    throw error;
  }
}
const ignore = Deno.build.os !== "linux" || !available();

function withFile(action: (descriptor: number, path: string) => void): void {
  const path = Deno.makeTempFileSync();
  const descriptor = openDescriptor(path, OpenFlag.readWrite);
  try {
    action(descriptor, path);
  } finally {
    closeDescriptor(descriptor);
    Deno.removeSync(path);
  }
}

/** Memory, and the halves of its address. */
function place(length: number): { bytes: Uint8Array; low: number; high: number } {
  const memory = new WebAssembly.Memory({
    initial: Math.ceil(length / 65536),
    maximum: Math.ceil(length / 65536),
    shared: true,
  });
  const bytes = new Uint8Array(memory.buffer, 0, length);
  const address = addressOf(bytes);
  return { bytes, low: Number(address & 0xffff_ffffn), high: Number(address >> 32n) };
}

Deno.test({
  name: "uring: what is prepared is done by one submission, each completion with its token",
  ignore,
  fn: () =>
    withFile((file, path) => {
      const content = new Uint8Array(64 * 512);
      for (let i = 0; i < content.length; i++) content[i] = i >> 9;
      Deno.writeFileSync(path, content);
      const { bytes, low, high } = place(65536);
      const ring = new Uring(64);
      assertEquals(ring.next(), false);
      for (let round = 0; round < 5; round++) {
        bytes.fill(0);
        for (let i = 0; i < 64; i++) {
          ring.prepare(UringOp.read, 0, file, i * 512, low + (63 - i) * 512, high, 512, 0, i);
        }
        assertEquals(ring.room, 0);
        assertThrows(() => ring.prepare(UringOp.nop, 0, 0, 0, 0, 0, 0, 0, 0), RangeError, "full");
        assertEquals(ring.submit(64), true);
        assertEquals(ring.ready, 64);
        const tokens = new Set<number>();
        while (ring.next()) {
          assertEquals(ring.result, 512);
          tokens.add(ring.token);
        }
        assertEquals(tokens.size, 64);
        for (let i = 0; i < 64; i++) assertEquals(bytes[(63 - i) * 512 + 511], i);
      }
      ring.close();
      ring.close();
    }),
});

Deno.test({
  name: "uring: several places at once, registered files, beyond 4 GiB, errors as numbers",
  ignore,
  fn: () =>
    withFile((file) => {
      const far = 5 * 2 ** 32 + 512;
      const { bytes, low, high } = place(65536);
      const ring = new Uring(8);
      ring.registerFiles([file]);
      bytes.set([1, 2, 3, 4], 100);
      bytes.set([5, 6], 3000);
      const vectors = new IoVectors(2);
      vectors.set(0, low + 100, high, 4);
      vectors.set(1, low + 3000, high, 2);
      const at = addressOf(vectors.bytes);
      const atLow = Number(at & 0xffff_ffffn);
      const atHigh = Number(at >> 32n);
      const known = UringFlag.fixedFile;
      ring.prepare(UringOp.writev, known, 0, far, atLow, atHigh, 2, 0, 7);
      ring.submit(1);
      assert(ring.next());
      assertEquals([ring.token, ring.result], [7, 6]);
      ring.prepare(UringOp.read, known, 0, far, low, high, 100, 0, 8);
      ring.prepare(UringOp.fsync, known, 0, 0, 0, 0, 0, 1, 9);
      ring.prepare(UringOp.read, 0, 999_999, 0, low, high, 1, 0, 10);
      ring.prepare(UringOp.read, known, 0, far + 6, low, high, 1, 0, 11);
      ring.submit();
      const results = new Map<number, number>();
      for (let call = 0; results.size < 4 && call < 100; call++) {
        while (ring.next()) results.set(ring.token, ring.result);
        if (results.size < 4) ring.submit(1);
      }
      assertEquals(results, new Map([[8, 6], [9, 0], [10, -Errno.EBADF], [11, 0]]));
      assertEquals(bytes.slice(0, 6), new Uint8Array([1, 2, 3, 4, 5, 6]));
      ring.close();
    }),
});

Deno.test({
  name: "uring: the descriptor is readable when there are completions",
  ignore,
  fn: () => {
    const ring = new Uring(4);
    const poll = new PollSet();
    poll.add(ring.descriptor);
    assertEquals(poll.wait(0), 0);
    ring.prepare(UringOp.nop, 0, -1, 0, 0, 0, 0, 0, 3);
    ring.submit();
    assertEquals(poll.wait(1000), 1);
    assert(ring.next());
    assertEquals(ring.token, 3);
    assertEquals(ring.next(), false);
    assertEquals(poll.wait(0), 0);
    ring.close();
  },
});

Deno.test("uring: a number of entries that cannot be is refused", () => {
  assertThrows(() => new Uring(0), RangeError, "entries");
  assertThrows(() => new Uring(5000), RangeError, "entries");
});

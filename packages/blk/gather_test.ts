import { assertEquals } from "@std/assert";
import type { BlkBackend } from "./backend.ts";
import { assertSame, pattern } from "./backends/backend_testing.ts";
import { MemoryBackend } from "./backends/memory.ts";
import * as blk from "./constants.ts";
import { BlkDevice } from "./device.ts";
import { RawDriver } from "./testing.ts";

const SIZE = 1024 * 1024;
const { VIRTIO_BLK_T_IN: IN, VIRTIO_BLK_T_OUT: OUT } = blk;

/** A disk each call of which is dear. It fails the call after `failAfter` others. */
class Dear implements BlkBackend {
  readonly capacity = SIZE;
  readonly readonly = false;
  readonly asynchronous = false;
  readonly gather = true;
  onChange: (() => void) | null = null;
  readonly bytes = pattern(SIZE, 1);
  /** Position and length of each call. */
  readonly calls: [number, number][] = [];
  failAfter = Infinity;
  readonly #memory = new MemoryBackend(this.bytes);

  read(position: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#call(position, length);
    this.#memory.read(position, bytes, offset, length);
  }

  write(position: number, bytes: Uint8Array, offset: number, length: number): void {
    this.#call(position, length);
    this.#memory.write(position, bytes, offset, length);
  }

  flush(): void {}

  #call(position: number, length: number): void {
    if (this.calls.length === this.failAfter) throw new Error("bad sector");
    this.calls.push([position, length]);
  }
}

/** Pages, as a driver cuts a buffer whose pages lie apart. */
function pages(count: number): number[] {
  return new Array<number>(count).fill(4096);
}

Deno.test("gathering: a request in many pieces is one call, one in two pieces or in large ones a call each", async () => {
  const disk = new Dear();
  const driver = await RawDriver.open(new BlkDevice({ backend: disk }));
  const out = pattern(16 * 4096, 2);
  await driver.request({ type: OUT, out, cuts: { readable: [16, ...pages(16)], writable: [] } });
  assertEquals(disk.calls.splice(0), [[0, out.length]]);
  assertSame(disk.bytes.subarray(0, out.length), out);
  const read = await driver.request({
    type: IN,
    sector: 8n,
    in: 16 * 4096,
    cuts: { readable: [], writable: pages(16) },
  });
  assertEquals(disk.calls.splice(0), [[4096, 16 * 4096]]);
  assertSame(read.data, disk.bytes.subarray(4096, 17 * 4096));
  await driver.request({ type: IN, in: 4096, cuts: { readable: [], writable: [4096] } });
  assertEquals(disk.calls.splice(0), [[0, 4096]]);
  const large = [65536, 65536, 65536, 65536];
  await driver.request({ type: IN, in: 4 * 65536, cuts: { readable: [], writable: large } });
  assertEquals(disk.calls.splice(0).map(([, length]) => length), large);
});

Deno.test("gathering: a request larger than the buffer goes part by part, each to its place", async () => {
  const disk = new Dear();
  const driver = await RawDriver.open(new BlkDevice({ backend: disk }));
  const out = pattern(150 * 4096, 3);
  const answer = await driver.request({
    type: OUT,
    sector: 8n,
    out,
    cuts: { readable: [16, ...pages(150)], writable: [] },
  });
  assertEquals(answer.status, blk.VIRTIO_BLK_S_OK);
  assertEquals(disk.calls.splice(0), [
    [4096, 1 << 18],
    [4096 + (1 << 18), 1 << 18],
    [4096 + (1 << 19), out.length - (1 << 19)],
  ]);
  const expected = pattern(SIZE, 1);
  expected.set(out, 4096);
  assertSame(disk.bytes, expected);
  const read = await driver.request({
    type: IN,
    sector: 8n,
    in: out.length,
    cuts: { readable: [], writable: pages(150) },
  });
  assertEquals([read.status, read.used], [blk.VIRTIO_BLK_S_OK, out.length + 1]);
  assertSame(read.data, out);
});

Deno.test("gathering: where a part fails, what came before is there, what follows is zeroes", async () => {
  const disk = new Dear();
  const device = new BlkDevice({ backend: disk });
  const driver = await RawDriver.open(device);
  disk.failAfter = 1;
  const read = await driver.request({
    type: IN,
    in: 100 * 4096,
    cuts: { readable: [], writable: pages(100) },
  });
  assertEquals([read.status, read.used], [blk.VIRTIO_BLK_S_IOERR, 100 * 4096 + 1]);
  assertSame(read.data.subarray(0, 1 << 18), disk.bytes.subarray(0, 1 << 18));
  assertSame(read.data.subarray(1 << 18), new Uint8Array(100 * 4096 - (1 << 18)));
  assertEquals([device.stats.reads, device.stats.errors], [0, 1]);
});

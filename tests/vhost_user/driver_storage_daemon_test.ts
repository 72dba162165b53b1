/**
 * The same requests to qemu-storage-daemon's vhost-user disk and to our own device behind our own server: the same answers, and
 * the same disk in the end. Where the two differ, the table says how.
 */
import { assert, assertEquals, assertRejects } from "@std/assert";
import { BlkDevice } from "@virtio/blk";
import {
  BlkDriver,
  type BlkDriverOptions,
  VIRTIO_BLK_F_DISCARD,
  VIRTIO_BLK_F_MQ,
  VIRTIO_BLK_F_SIZE_MAX,
  VIRTIO_BLK_F_TOPOLOGY,
  VIRTIO_BLK_F_WRITE_ZEROES,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_FLUSH,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_SECURE_ERASE,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from "@virtio/blk/driver";
import { FileBackend } from "@virtio/blk/file";
import { DeviceId, VIRTIO_F_RING_PACKED } from "@virtio/device";
import { FrontEndMemory, VhostUserTransport } from "@virtio/vhost-user/driver";
import { VhostUserServer } from "@virtio/vhost-user";
import { DmaPool } from "@virtio/vring/driver";
import { startStorageDaemon, storageDaemon } from "./storage_daemon.ts";

const MIB = 2 ** 20;
const SIZE = 8 * MIB;
const SECTORS = SIZE / 512;
const OK = 0, IOERR = 1, UNSUPP = 2;

const ignore = Deno.build.os !== "linux" || !await storageDaemon();

/** Opens whatever is behind a socket. */
async function open(
  socket: string,
  options: Partial<BlkDriverOptions> = {},
): Promise<{ driver: BlkDriver; memory: FrontEndMemory; close(): Promise<void> }> {
  const memory = FrontEndMemory.allocate(8 * MIB);
  const transport = await VhostUserTransport.connect(socket, {
    deviceType: DeviceId.block,
    memory,
    // It does one request after the other here, and keeps no notes of them.
    reconnect: { inOrder: true },
  });
  const dma = new DmaPool(memory.guest, 0, 4 * MIB);
  const driver = await BlkDriver.open(transport, { dma, ...options });
  return {
    driver,
    memory,
    async close(): Promise<void> {
      await driver.close();
      await transport.close();
      memory.close();
    },
  };
}

interface Case {
  readonly name: string;
  readonly type: number;
  readonly sector: number;
  /** Bytes of data; what a range names is made from `range`. */
  readonly length: number;
  readonly writes?: boolean;
  readonly range?: { readonly sector: number; readonly count: number; readonly flags: number };
  /** Status of both, or of ours and of theirs where they differ. */
  readonly status: number | readonly [ours: number, theirs: number];
}

const range = (sector: number, count: number, flags = 0) => ({ sector, count, flags });
const IN = VIRTIO_BLK_T_IN, OUT = VIRTIO_BLK_T_OUT;

const CASES: readonly Case[] = [
  { name: "write", type: OUT, sector: 100, length: 4096, status: OK },
  { name: "write of 300 KiB", type: OUT, sector: 1000, length: 300 * 1024, status: OK },
  { name: "write at the end", type: OUT, sector: SECTORS - 1, length: 512, status: OK },
  { name: "write across the end", type: OUT, sector: SECTORS - 1, length: 1024, status: IOERR },
  { name: "write beyond the end", type: OUT, sector: SECTORS, length: 512, status: IOERR },
  { name: "write far beyond", type: OUT, sector: 2 ** 40, length: 512, status: IOERR },
  { name: "write of half a sector", type: OUT, sector: 5, length: 256, status: IOERR },
  { name: "write of nothing", type: OUT, sector: 5, length: 0, status: OK },
  { name: "read", type: IN, sector: 100, length: 4096, status: OK },
  { name: "read across the end", type: IN, sector: SECTORS - 1, length: 1024, status: IOERR },
  { name: "read of half a sector", type: IN, sector: 100, length: 256, status: IOERR },
  { name: "flush", type: VIRTIO_BLK_T_FLUSH, sector: 0, length: 0, status: OK },
  { name: "flush of a sector", type: VIRTIO_BLK_T_FLUSH, sector: 7, length: 0, status: OK },
  { name: "id", type: VIRTIO_BLK_T_GET_ID, sector: 0, length: 20, writes: true, status: OK },
  { name: "unknown type", type: 99, sector: 0, length: 0, status: UNSUPP },
  {
    name: "secure erase, not offered",
    type: VIRTIO_BLK_T_SECURE_ERASE,
    sector: 0,
    length: 16,
    range: range(100, 8),
    status: UNSUPP,
  },
  {
    name: "write zeroes",
    type: VIRTIO_BLK_T_WRITE_ZEROES,
    sector: 0,
    length: 16,
    range: range(1010, 20),
    status: OK,
  },
  {
    name: "write zeroes that may unmap",
    type: VIRTIO_BLK_T_WRITE_ZEROES,
    sector: 0,
    length: 16,
    range: range(1100, 64, 1),
    status: OK,
  },
  {
    name: "write zeroes, reserved flag",
    type: VIRTIO_BLK_T_WRITE_ZEROES,
    sector: 0,
    length: 16,
    range: range(1200, 8, 2),
    status: UNSUPP,
  },
  {
    name: "write zeroes across the end",
    type: VIRTIO_BLK_T_WRITE_ZEROES,
    sector: 0,
    length: 16,
    range: range(SECTORS - 4, 8),
    status: IOERR,
  },
  {
    name: "discard",
    type: VIRTIO_BLK_T_DISCARD,
    sector: 0,
    length: 16,
    range: range(1400, 64),
    status: OK,
  },
  {
    name: "discard with a flag",
    type: VIRTIO_BLK_T_DISCARD,
    sector: 0,
    length: 16,
    range: range(1500, 8, 1),
    status: UNSUPP,
  },
  {
    name: "discard beyond the end",
    type: VIRTIO_BLK_T_DISCARD,
    sector: 0,
    length: 16,
    range: range(SECTORS + 8, 8),
    status: IOERR,
  },
  { name: "read of nothing", type: IN, sector: 5, length: 0, status: OK },
  {
    name: "id in 8 bytes",
    type: VIRTIO_BLK_T_GET_ID,
    sector: 0,
    length: 8,
    writes: true,
    status: [IOERR, OK],
  },
  { name: "flush with data", type: VIRTIO_BLK_T_FLUSH, sector: 0, length: 512, status: OK },
  {
    name: "discard of no sectors",
    type: VIRTIO_BLK_T_DISCARD,
    sector: 0,
    length: 16,
    range: range(1700, 0),
    status: OK,
  },
  {
    name: "write zeroes, more than there may be",
    type: VIRTIO_BLK_T_WRITE_ZEROES,
    sector: 0,
    length: 16,
    range: range(0, 0xffff_ffff),
    status: IOERR,
  },
  {
    name: "discard of half a range",
    type: VIRTIO_BLK_T_DISCARD,
    sector: 0,
    length: 8,
    range: range(1600, 8),
    status: IOERR,
  },
];

/** Feature bits in which the two may differ. */
const NAMES: readonly (readonly [string, bigint])[] = [
  ["SIZE_MAX", VIRTIO_BLK_F_SIZE_MAX],
  ["TOPOLOGY", VIRTIO_BLK_F_TOPOLOGY],
  ["MQ", VIRTIO_BLK_F_MQ],
  // Of the time before virtio 1.0.
  ["NOTIFY_ON_EMPTY", 1n << 24n],
  ["RING_PACKED", VIRTIO_F_RING_PACKED],
];

function names(features: bigint): string[] {
  const known = NAMES.filter(([, bit]) => (features & bit) !== 0n);
  const rest = known.reduce((left, [, bit]) => left & ~bit, features);
  return [...known.map(([name]) => name), ...(rest === 0n ? [] : [`0x${rest.toString(16)}`])];
}

/** Sends every request by itself. @returns Each status, and what was read. */
async function answers(
  { driver, memory }: { driver: BlkDriver; memory: FrontEndMemory },
): Promise<{ name: string; status: number; data: string }[]> {
  const queue = driver.queues[0]!;
  const address = 4 * MIB;
  const result = [];
  for (const { name, type, sector, length, writes, range } of CASES) {
    const bytes = Uint8Array.from({ length }, (_, i) => (i * 7 + name.length) & 255);
    if (range !== undefined) {
      const words = new DataView(new ArrayBuffer(16));
      words.setUint32(0, range.sector, true);
      words.setUint32(8, range.count, true);
      words.setUint32(12, range.flags, true);
      bytes.set(new Uint8Array(words.buffer, 0, length));
    }
    const reads = writes ?? type === IN;
    memory.guest.write(address, reads ? new Uint8Array(length) : bytes);
    assert(queue.submit(type, sector, address, length, reads) >= 0);
    queue.publish();
    while (queue.poll() < 0) await new Promise((resolve) => setTimeout(resolve, 1));
    memory.guest.read(address, bytes);
    const data = reads && queue.status === OK && type === IN
      ? new Uint8Array(await crypto.subtle.digest("SHA-256", bytes)).toHex()
      : "";
    result.push({ name, status: queue.status, data });
  }
  return result;
}

Deno.test({
  name: "The same requests get the same answers, and leave the same disk, as qemu-storage-daemon's",
  ignore,
  fn: async () => {
    await using daemon = await startStorageDaemon(SIZE);
    const folder = await Deno.makeTempDir();
    const image = `${folder}/image`;
    await Deno.writeFile(image, new Uint8Array(SIZE));
    const backend = FileBackend.open(image);
    const server = new VhostUserServer({
      socket: `${folder}/socket`,
      device: new BlkDevice({ backend }),
    });
    try {
      const [ours, theirs] = [await open(`${folder}/socket`), await open(daemon.socket)];
      const [mine, other] = [await answers(ours), await answers(theirs)];
      CASES.forEach(({ name, status }, i) => {
        const [expected, expectedOther] = typeof status === "number" ? [status, status] : status;
        assertEquals([name, mine[i]!.status], [name, expected]);
        assertEquals([name, "theirs", other[i]!.status], [name, "theirs", expectedOther]);
        assertEquals(mine[i]!.data, other[i]!.data, name);
      });
      assertEquals(await theirs.driver.getId(), "vhost_user_blk");
      const offered = ({ driver }: typeof ours): bigint =>
        driver.session.transport.readDeviceFeatures();
      // Theirs also has what it does not need: a limit for segments that is 0, and many queues though there is one.
      assertEquals(names(offered(theirs) & ~offered(ours)), [
        "SIZE_MAX",
        "TOPOLOGY",
        "MQ",
        "NOTIFY_ON_EMPTY",
      ]);
      assertEquals(names(offered(ours) & ~offered(theirs)), ["RING_PACKED"]);
      for (const { driver } of [ours, theirs]) {
        assertEquals(driver.sectors, SECTORS);
        assert(driver.info.discard !== null && driver.info.writeZeroes !== null);
        await driver.flush();
      }
      await ours.close();
      await theirs.close();
    } finally {
      await server.close();
      backend.close();
    }
    const [a, b] = [await Deno.readFile(image), await Deno.readFile(daemon.image)];
    assertEquals(a.findIndex((byte, i) => byte !== b[i]), -1);
    await Deno.remove(folder, { recursive: true });
  },
});

Deno.test({
  name: "Features of qemu-storage-daemon's disk, as they differ from ours",
  ignore,
  fn: async () => {
    await using daemon = await startStorageDaemon(SIZE, { queues: 3, writable: false });
    const { driver, close } = await open(daemon.socket);
    // It offers a limit for segments, and then gives none.
    assert(driver.session.has(VIRTIO_BLK_F_SIZE_MAX));
    assertEquals(driver.info.sizeMax, 0xffff_ffff);
    assert(driver.session.has(VIRTIO_BLK_F_DISCARD | VIRTIO_BLK_F_WRITE_ZEROES));
    assertEquals(driver.queues.length, 3);
    assertEquals(driver.info.readonly, true);
    await assertRejects(() => driver.write(0, new Uint8Array(512)), Error);
    await close();
  },
});

Deno.test({
  name: "A driver goes on when qemu-storage-daemon was killed and is there again",
  ignore,
  fn: async () => {
    await using daemon = await startStorageDaemon(SIZE);
    const { driver, close } = await open(daemon.socket, { timeout: 60_000 });
    const block = (round: number, at: number): Uint8Array =>
      new Uint8Array(4096).fill(round * 31 + at);
    let killed: Promise<void> | null = null;
    for (let round = 0; round < 4; round++) {
      for (let at = 0; at < 50; at++) {
        // It is gone in the middle of something, and comes back while the driver waits.
        if (at === 20) killed = daemon.kill().then(() => daemon.start());
        await driver.write(8 * at, block(round, at));
      }
      await killed;
      const back = new Uint8Array(4096);
      for (let at = 0; at < 50; at++) {
        await driver.read(8 * at, back);
        assertEquals(back, block(round, at));
      }
    }
    assertEquals(driver.broken, null);
    await close();
  },
});

Deno.test({
  name:
    "Requests that nobody wrote down are not guessed at: the device asks for a reset, and works after it",
  ignore,
  fn: async () => {
    await using daemon = await startStorageDaemon(SIZE);
    const memory = FrontEndMemory.allocate(8 * MIB);
    const errors: Error[] = [];
    const transport = await VhostUserTransport.connect(daemon.socket, {
      deviceType: DeviceId.block,
      memory,
      reconnect: true,
      onError: (error) => errors.push(error),
    });
    const dma = () => new DmaPool(memory.guest, 0, 4 * MIB);
    const driver = await BlkDriver.open(transport, { dma: dma() });
    const block = new Uint8Array(4096).fill(5);
    await driver.write(0, block);
    let failed = 0;
    const load = Array.from({ length: 16 }, async (_, i) => {
      try {
        for (;;) await driver.write(8 * i, block);
      } catch {
        failed++;
      }
    });
    // It dies with requests under way: they were published, and it takes no more.
    await daemon.kill();
    await daemon.start();
    await Promise.all(load);
    assertEquals(failed, 16);
    assert(driver.broken !== null && errors.length > 0);
    await driver.close();
    const again = await BlkDriver.open(transport, { dma: dma() });
    const back = new Uint8Array(4096);
    await again.read(0, back);
    assertEquals(back, block);
    await again.close();
    await transport.close();
    memory.close();
  },
});

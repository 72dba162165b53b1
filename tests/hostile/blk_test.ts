/**
 * A block device in the hands of a hostile driver: requests of the wrong shape, numbers that overflow, resets at any moment
 * (bug classes 5, 7, 9, 20 and 21).
 */
import { assert, assertEquals } from "@std/assert";
import {
  VIRTIO_BLK_S_IOERR,
  VIRTIO_BLK_S_OK,
  VIRTIO_BLK_S_UNSUPP,
  VIRTIO_BLK_T_DISCARD,
  VIRTIO_BLK_T_GET_ID,
  VIRTIO_BLK_T_IN,
  VIRTIO_BLK_T_OUT,
  VIRTIO_BLK_T_WRITE_ZEROES,
} from "@virtio/blk";
import { VIRTIO_F_RING_RESET } from "@virtio/device";
import type { LaterBackend } from "../../packages/blk/backends/later_testing.ts";
import { FORMATS } from "../../packages/vring/testing/raw_driver.ts";
import {
  BLK_FEATURES,
  DATA,
  data,
  HEADER,
  header,
  putHeader,
  send,
  setup,
  STATUS,
  status,
  UNTOUCHED,
  works,
} from "./blk_rig.ts";
import { BUSES, turns } from "./machine.ts";

for (const bus of BUSES) {
  for (const [format, feature] of FORMATS) {
    const features = feature | BLK_FEATURES;
    const on = `${format} over ${bus}`;

    for (
      const [what, chain] of [
        ["nothing at all but an empty descriptor", [{ address: 0, length: 0 }]],
        ["a header and no writable byte", [header]],
        ["data to write and no writable byte", [header, data(512, false)]],
        ["a status byte that the device may only read", [header, { ...status, write: false }]],
        ["an empty descriptor for the status", [header, { ...status, length: 0 }]],
      ] as const
    ) {
      Deno.test(`class 5, ${on}: a request with ${what} makes the device ask for a reset; no memory changes, others go on, a reset heals it`, async () => {
        const rig = setup(bus);
        rig.machine.start(features, 64);
        putHeader(rig, VIRTIO_BLK_T_OUT, 0n);
        rig.machine.rings[0]!.send(chain);
        const unchanged = rig.machine.watch();
        rig.machine.kick();
        assertEquals(rig.bytes[0], 1, "the disk is unchanged");
        await rig.machine.checkBroken(unchanged, { works: () => works(rig) });
      });
    }

    Deno.test(`class 5, ${on}: a header that is short or missing is answered with an error, and nothing but the status is written`, async () => {
      for (const length of [0, 1, 8, 15]) {
        const rig = setup(bus);
        rig.machine.start(features, 64);
        putHeader(rig, VIRTIO_BLK_T_IN, 0n);
        const unchanged = rig.machine.watch();
        const answer = await send(rig, [{ address: HEADER, length }, data(512, true), status]);
        assertEquals(answer.status, VIRTIO_BLK_S_IOERR);
        // The used length may not count bytes that were not written, unless all before the status were (2.7.8.2).
        assert(answer.used[0] === 0 || answer.used[0] === 513);
        const { config } = rig.machine.rings[0]!;
        unchanged(
          ...rig.machine.ringRanges(),
          [STATUS, 1],
          [config.driverArea, 64 * 2 + 6],
          [config.descriptorArea, 64 * 16],
          ...(answer.used[0] === 513 ? [[DATA, 512] as const] : []),
        );
        await works(rig);
      }
    });

    Deno.test(`class 5 and 21, ${on}: header, data and status are found wherever the descriptors are cut`, async () => {
      const rig = setup(bus);
      rig.machine.start(features, 64);
      const { memory } = rig.machine;
      putHeader(rig, VIRTIO_BLK_T_IN, 5n);
      const bytewise = Array.from({ length: 16 }, (_, i) => ({ address: HEADER + i, length: 1 }));
      const empty = { address: 2 ** 40, length: 0 };
      for (
        const [chain, at] of [
          [[...bytewise, data(512, true), status], STATUS],
          [[header, data(513, true)], DATA + 512],
          [[header, data(512, true), { ...status, length: 1 }, { ...empty, write: true }], STATUS],
          [[empty, header, empty, { ...empty, write: true }, data(512, true), status], STATUS],
          [[header, data(1, true), { address: DATA + 1, length: 512, write: true }], DATA + 512],
          [[
            { address: HEADER, length: 8 },
            { address: HEADER + 8, length: 8 },
            data(300, true),
            { address: DATA + 300, length: 213, write: true },
          ], DATA + 512],
        ] as const
      ) {
        memory.fill(DATA, 513, UNTOUCHED);
        const answer = await send(rig, chain);
        assertEquals(answer.used, [513]);
        assertEquals(memory.readU8(at), VIRTIO_BLK_S_OK);
        for (let i = 0; i < 512; i++) assertEquals(memory.readU8(DATA + i), 6);
      }
      // A write whose data is in the same descriptor as its header.
      putHeader(rig, VIRTIO_BLK_T_OUT, 9n, DATA);
      memory.fill(DATA + 16, 512, 0x77);
      assertEquals(await send(rig, [{ address: DATA, length: 528 }, status]), {
        used: [1],
        status: VIRTIO_BLK_S_OK,
      });
      assertEquals([rig.bytes[9 * 512], rig.bytes[10 * 512 - 1]], [0x77, 0x77]);
    });

    Deno.test(`class 21, ${on}: a header that the device may only write is no header, and what it may only read is not written`, async () => {
      const rig = setup(bus);
      rig.machine.start(features, 64);
      putHeader(rig, VIRTIO_BLK_T_IN, 0n);
      rig.machine.memory.fill(DATA, 512, UNTOUCHED);
      const first = await send(rig, [{ ...header, write: true }, data(512, true), status]);
      assertEquals(first.status, VIRTIO_BLK_S_IOERR);
      // A read into a device-readable descriptor: there is no room for the data, and the descriptor stays as it is.
      putHeader(rig, VIRTIO_BLK_T_IN, 0n);
      rig.machine.memory.fill(DATA, 512, UNTOUCHED);
      await send(rig, [header, data(512, false), status]);
      for (let i = 0; i < 512; i++) assertEquals(rig.machine.memory.readU8(DATA + i), UNTOUCHED);
      // A write out of a device-writable descriptor: there is no data, and the disk stays as it is.
      putHeader(rig, VIRTIO_BLK_T_OUT, 0n);
      await send(rig, [header, data(512, true), status]);
      assertEquals(rig.bytes[0], 1);
      await works(rig);
    });

    Deno.test(`class 7, ${on}: sectors beyond the disk, up to those that overflow, are answered with an error, and neither disk nor data change`, async () => {
      const rig = setup(bus);
      rig.machine.start(features, 64);
      const before = rig.bytes.slice();
      for (
        const [sector, length] of [
          [128n, 512],
          [127n, 1024],
          [129n, 0],
          [2n ** 32n, 512],
          [2n ** 53n, 512],
          [2n ** 53n + 1n, 512],
          [2n ** 55n, 512],
          [2n ** 55n - 1n, 1024],
          [2n ** 63n, 512],
          [2n ** 64n - 1n, 512],
          [2n ** 64n - 1n, 1024],
          [2n ** 64n - 128n, 128 * 512 / 4],
          [0n, 511],
          [0n, 513],
          [127n, 1],
        ] as const
      ) {
        for (const type of [VIRTIO_BLK_T_IN, VIRTIO_BLK_T_OUT]) {
          const reads = type === VIRTIO_BLK_T_IN;
          putHeader(rig, type, sector);
          rig.machine.memory.fill(DATA, length, UNTOUCHED);
          const answer = await send(rig, [header, data(length, reads), status]);
          assertEquals(answer.status, VIRTIO_BLK_S_IOERR, `type ${type}, sector ${sector}`);
          if (reads) {
            // Nothing of the disk, nor of anything else.
            for (let i = 0; i < length; i++) {
              const byte = rig.machine.memory.readU8(DATA + i);
              assert(byte === UNTOUCHED || byte === 0);
            }
          }
        }
      }
      assertEquals(rig.bytes.every((byte, i) => byte === before[i]), true);
      await works(rig);
    });

    Deno.test(`class 7, ${on}: ranges that are too long, overflow, or are cut off, are answered with an error and act on nothing`, async () => {
      const rig = setup(bus);
      rig.machine.start(features, 64);
      const before = rig.bytes.slice();
      const { memory } = rig.machine;
      for (const type of [VIRTIO_BLK_T_DISCARD, VIRTIO_BLK_T_WRITE_ZEROES]) {
        for (
          const [sector, sectors, flags] of [
            [128n, 1, 0],
            [0n, 129, 0],
            [127n, 2, 0],
            [2n ** 64n - 1n, 1, 0],
            [2n ** 64n - 1n, 2, 0],
            [2n ** 64n - 127n, 255, 0],
            [2n ** 53n, 1, 0],
            [1n, 2 ** 32 - 1, 0],
            [0n, 8, 2],
            [0n, 8, 0xffff_fffe],
          ] as const
        ) {
          // A good range first: all or nothing.
          const ranges = type === VIRTIO_BLK_T_DISCARD ? 2 : 1;
          putHeader(rig, type, 0n);
          const last = DATA + 16 * (ranges - 1);
          memory.fill(DATA, 32);
          memory.writeU32(DATA + 8, 8);
          memory.writeU32(last, Number(sector & 0xffff_ffffn));
          memory.writeU32(last + 4, Number(sector >> 32n));
          memory.writeU32(last + 8, sectors);
          memory.writeU32(last + 12, flags);
          const answer = await send(rig, [header, data(16 * ranges, false), status]);
          const expected = flags === 0 ? VIRTIO_BLK_S_IOERR : VIRTIO_BLK_S_UNSUPP;
          assertEquals(answer, { used: [1], status: expected });
        }
        for (const length of [0, 1, 15, 17, 31, 16 * 1000]) {
          memory.fill(DATA, length);
          const answer = await send(rig, [header, data(length, false), status]);
          assertEquals(answer, { used: [1], status: VIRTIO_BLK_S_IOERR });
        }
      }
      assertEquals(rig.bytes.every((byte, i) => byte === before[i]), true);
      await works(rig);
    });

    Deno.test(`class 20, ${on}: the used length is never more than the driver can hold, nor more than was written`, async () => {
      const rig = setup(bus);
      rig.machine.start(features, 64);
      for (const type of [0, 1, 4, 8, 10, 11, 13, 14, 16, 99, 2 ** 32 - 1]) {
        for (const room of [0, 1, 19, 20, 21, 511, 512, 1024]) {
          putHeader(rig, type, 0n);
          rig.machine.memory.fill(DATA, 1024, UNTOUCHED);
          const answer = await send(rig, [header, data(room, true), status]);
          const used = answer.used[0]!;
          assert(used <= room + 1, `${used} of ${room + 1}`);
          assert(answer.status <= VIRTIO_BLK_S_UNSUPP, "there is a status");
          // Everything that counts as written was written.
          for (let i = 0; i < Math.min(used, room); i++) {
            assert(rig.machine.memory.readU8(DATA + i) !== UNTOUCHED);
          }
        }
      }
      await works(rig);
    });

    Deno.test(`class 9, ${on}: a read that ends after a reset writes nothing into memory and notifies nobody`, async () => {
      for (const how of ["device", "queue"] as const) {
        const rig = setup(bus, true);
        const backend = rig.backend as LaterBackend;
        const { machine } = rig;
        machine.start(features | VIRTIO_F_RING_RESET, 64);
        putHeader(rig, VIRTIO_BLK_T_IN, 3n);
        backend.hold();
        const started = backend.started(1);
        machine.rings[0]!.send([header, data(512, true), status]);
        machine.kick();
        await started;
        if (how === "device") {
          await machine.reset();
        } else {
          machine.victim.driver.resetQueue(0);
          await turns(2);
          assertEquals(
            machine.victim.driver.queueResetDone(0),
            false,
            "a queue is reset when nothing of it is in flight",
          );
          backend.release();
          await turns(3);
          assertEquals(machine.victim.driver.queueResetDone(0), true);
          continue;
        }
        // The memory is somebody else's now.
        machine.memory.fill(DATA, 512, 0x5a);
        machine.memory.writeU8(STATUS, 0x5a);
        const told = machine.victim.told.queue;
        const unchanged = machine.watch();
        backend.release();
        await turns(5);
        unchanged();
        assertEquals(machine.victim.told.queue, told);
        machine.start(features, 64);
        await works(rig);
        await machine.checkBystander();
      }
    });

    Deno.test(`class 9, ${on}: a write of a life before the reset does not overtake one of the life after it`, async () => {
      const rig = setup(bus, true);
      const backend = rig.backend as LaterBackend;
      const { machine } = rig;
      machine.start(features, 64);
      putHeader(rig, VIRTIO_BLK_T_OUT, 3n);
      machine.memory.fill(DATA, 512, 0xaa);
      backend.hold();
      const started = backend.started(1);
      machine.rings[0]!.send([header, data(512, false), status]);
      machine.kick();
      await started;
      await machine.reset();
      machine.start(features, 64);
      putHeader(rig, VIRTIO_BLK_T_OUT, 3n);
      machine.memory.fill(DATA, 512, 0xbb);
      machine.memory.writeU8(STATUS, UNTOUCHED);
      machine.rings[0]!.send([header, data(512, false), status]);
      machine.kick();
      await turns(3);
      assertEquals(machine.memory.readU8(STATUS), UNTOUCHED, "it waits for the old one");
      backend.release();
      await turns(5);
      assertEquals(machine.memory.readU8(STATUS), VIRTIO_BLK_S_OK);
      assertEquals([rig.bytes[3 * 512], rig.bytes[4 * 512 - 1]], [0xbb, 0xbb]);
    });

    Deno.test(`class 9, ${on}: resets at every moment of a stream of requests lose nothing that was acknowledged and touch nothing afterwards`, async () => {
      for (let moment = 0; moment < 12; moment++) {
        const rig = setup(bus, true);
        const { machine, bytes } = rig;
        const ring = machine.start(features, 64);
        for (let i = 0; i < 6; i++) {
          const at = DATA + 0x400 * i;
          putHeader(rig, i % 2 === 0 ? VIRTIO_BLK_T_OUT : VIRTIO_BLK_T_GET_ID, BigInt(i), at);
          machine.memory.fill(at + 16, 512, 0xa0 + i);
          machine.memory.writeU8(at + 1000, UNTOUCHED);
          ring.send([
            { address: at, length: 16 },
            { address: at + 16, length: i % 2 === 0 ? 512 : 20, write: i % 2 === 1 },
            { address: at + 1000, length: 1, write: true },
          ]);
          if (i === 2) machine.kick();
        }
        machine.kick();
        // Some microtasks later.
        for (let i = 0; i < moment; i++) await Promise.resolve();
        machine.victim.driver.writeStatus(0);
        for (let i = 0; i < 50 && machine.victim.driver.readStatus() !== 0; i++) await turns(1);
        assertEquals(machine.victim.driver.readStatus(), 0);
        const acknowledged = [0, 2, 4].filter((i) =>
          machine.memory.readU8(DATA + 0x400 * i + 1000) === VIRTIO_BLK_S_OK
        );
        const unchanged = machine.watch();
        await turns(5);
        unchanged();
        for (const i of acknowledged) assertEquals(bytes[i * 512], 0xa0 + i);
        machine.start(features, 64);
        if (!acknowledged.includes(2)) bytes.fill(3, 2 * 512, 3 * 512);
        await works(rig);
      }
    });
  }
}

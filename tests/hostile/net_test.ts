/**
 * A network device in the hands of a hostile driver: buffers of the wrong shape and direction, headers that lie, rings that
 * are emptied under its hands, floods (bug classes 5, 10, 20 and 21).
 */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_INDIRECT_DESC } from "@virtio/device";
import * as net from "@virtio/net";
import { concat, headerBytes, plainFrame, SpyBackend } from "../../packages/net/testing.ts";
import { buildFrame, pattern } from "../../packages/net/offload/testing.ts";
import { FORMATS, type RawDescriptor } from "../../packages/vring/testing/raw_driver.ts";
import { BUFFERS, BUSES, END, HIGH, Machine, SEAM, turns } from "./machine.ts";

const OFFLOADS = net.VIRTIO_NET_F_CSUM | net.VIRTIO_NET_F_HOST_TSO4 | net.VIRTIO_NET_F_HOST_TSO6 |
  net.VIRTIO_NET_F_HOST_ECN | net.VIRTIO_NET_F_HOST_UFO | net.VIRTIO_NET_F_HOST_USO;
const BASE = net.VIRTIO_NET_F_CTRL_VQ | OFFLOADS | VIRTIO_F_INDIRECT_DESC;
const MRG = BASE | net.VIRTIO_NET_F_MRG_RXBUF;
const HASHED = MRG | net.VIRTIO_NET_F_HASH_REPORT;
const RX = 0;
const TX = 1;
const CTRL = 2;
const AT = BUFFERS;
const ROOM = BUFFERS + 0x2_0000;
const UNTOUCHED = 0xee;

function setup(bus: typeof BUSES[number], features: bigint) {
  const backend = new SpyBackend();
  const device = new net.NetDevice({ backend, mac: "02:00:00:00:00:01", queueSize: 64 });
  const machine = new Machine(device, bus);
  machine.start(features, 64, 3);
  return { backend, device, machine };
}

type Rig = ReturnType<typeof setup>;

async function send(rig: Rig, chain: readonly RawDescriptor[], queue = TX): Promise<void> {
  rig.machine.rings[queue]!.send(chain);
  rig.machine.kick(queue);
  await turns(1);
}

/** A frame goes out, and one comes in. */
async function works(rig: Rig, headerSize: number): Promise<void> {
  const { machine, backend } = rig;
  const frame = plainFrame(100);
  backend.sent.length = 0;
  for (const ring of machine.rings) ring.takeUsed();
  machine.memory.write(AT, concat(new Uint8Array(headerSize), frame));
  await send(rig, [{ address: AT, length: headerSize + 100 }]);
  assertEquals(backend.bytes, [frame]);
  assertEquals(machine.rings[TX]!.takeUsed().map(({ length }) => length), [0]);
  machine.rings[RX]!.send([{ address: ROOM, length: 200, write: true }]);
  backend.give(frame);
  await turns(1);
  assertEquals(machine.rings[RX]!.takeUsed().map(({ length }) => length), [headerSize + 100]);
  const bytes = new Uint8Array(100);
  machine.memory.read(ROOM + headerSize, bytes);
  assertEquals(bytes, frame);
}

for (const bus of BUSES) {
  for (const [format, ring] of FORMATS) {
    const on = `${format} over ${bus}`;

    for (const [features, size] of [[MRG, 12], [HASHED, 20]] as const) {
      Deno.test(`class 5, ${on}: a frame to be sent without its header of ${size} bytes makes the device ask for a reset, and a reset heals it`, async () => {
        for (
          const chain of [
            [{ address: AT, length: size - 1 }],
            [{ address: AT, length: 1 }, { address: AT + 1, length: size - 2 }],
            [{ address: AT, length: 0 }],
            [{ address: AT, length: 2000, write: true }],
          ]
        ) {
          const rig = setup(bus, ring | features);
          rig.machine.rings[TX]!.send(chain);
          const unchanged = rig.machine.watch();
          rig.machine.kick(TX);
          assertEquals(rig.backend.sent, []);
          await rig.machine.checkBroken(unchanged, {
            clause: /5\.1\.9\.2/,
            works: () => works(rig, size),
          });
        }
      });

      Deno.test(`class 5 and 21, ${on}: a receive buffer without room for a header of ${size} bytes, or of the wrong direction, makes the device ask for a reset; nothing is written`, async () => {
        for (
          const chain of [
            [{ address: ROOM, length: size - 1, write: true }],
            [{ address: ROOM, length: 2000 }],
            [{ address: ROOM, length: 2000 }, { address: ROOM, length: 4, write: true }],
            [{ address: ROOM, length: 0, write: true }],
          ]
        ) {
          const rig = setup(bus, ring | features);
          rig.machine.rings[RX]!.send(chain);
          const unchanged = rig.machine.watch();
          rig.backend.give(plainFrame(100));
          await rig.machine.checkBroken(unchanged, {
            clause: /5\.1\.9\.3\.1/,
            works: () => works(rig, size),
          });
          assertEquals(rig.device.waiting, 0);
        }
      });
    }

    Deno.test(`class 5, ${on}: buffers that are no memory cost the driver its device, in whichever queue and wherever in a frame`, async () => {
      for (const bad of [END - 4, SEAM + END, HIGH + 0x1_0000 - 4, 2 ** 63]) {
        const rig = setup(bus, ring | MRG);
        rig.machine.rings[TX]!.send([{ address: AT, length: 12 }, { address: bad, length: 100 }]);
        let unchanged = rig.machine.watch();
        rig.machine.kick(TX);
        assertEquals(rig.backend.sent, []);
        await rig.machine.checkBroken(unchanged, { works: () => works(rig, 12) });
        // The second buffer of a frame: the first must not be written either.
        rig.machine.rings[RX]!.send([{ address: ROOM, length: 50, write: true }]);
        rig.machine.rings[RX]!.send([{ address: bad, length: 500, write: true }]);
        unchanged = rig.machine.watch();
        rig.backend.give(plainFrame(300));
        rig.machine.victim.told.config = 1;
        await rig.machine.checkBroken(unchanged, { works: () => works(rig, 12) });
      }
    });

    Deno.test(`class 5, ${on}: a control command without room for its answer costs the driver its device, one without content only the command`, async () => {
      const rig = setup(bus, ring | MRG);
      rig.machine.memory.fill(ROOM, 4, UNTOUCHED);
      await send(
        rig,
        [{ address: AT, length: 1 }, { address: ROOM, length: 1, write: true }],
        CTRL,
      );
      await send(rig, [{ address: ROOM + 1, length: 3, write: true }], CTRL);
      assertEquals(rig.machine.rings[CTRL]!.takeUsed().map(({ length }) => length), [1, 1]);
      const bytes = [0, 1, 2, 3].map((i) => rig.machine.memory.readU8(ROOM + i));
      assertEquals(bytes, [1, 1, UNTOUCHED, UNTOUCHED]);
      rig.machine.rings[CTRL]!.send([{ address: AT, length: 3 }]);
      const unchanged = rig.machine.watch();
      rig.machine.kick(CTRL);
      await rig.machine.checkBroken(unchanged, {
        clause: /5\.1\.9\.5/,
        works: () => works(rig, 12),
      });
    });

    Deno.test(`class 10, ${on}: no header makes the device look, or write, beyond its frame; what is passed on fits`, async () => {
      const values = [0, 1, 2, 13, 14, 33, 34, 54, 55, 60, 100, 1500, 0x7fff, 0xfffe, 0xffff];
      for (const finished of [false, true]) {
        const rig = setup(bus, ring | MRG);
        rig.backend.offloads = finished ? 0 : net.Offload.all;
        let passed = 0;
        rig.backend.onFrame = (frame) => {
          passed++;
          assertEquals(frame.needs & ~rig.backend.offloads, 0);
          assert(frame.length >= 14 && frame.length <= net.MAX_FRAME_SIZE);
          if (frame.needs === 0) return;
          assert(frame.csumStart + frame.csumOffset + 2 <= frame.length);
          assert(frame.headerLength <= frame.length);
        };
        const frames = [
          buildFrame({ ip: 4, payload: pattern(3000), checksum: "partial" }),
          buildFrame({ ip: 6, transport: "udp", payload: pattern(3000), checksum: "partial" }),
          buildFrame({ ip: 4, payload: pattern(6), checksum: "partial" }),
          buildFrame({ ip: "arp", payload: pattern(46) }),
          pattern(14),
          pattern(60),
        ];
        let sent = 0;
        for (const frame of frames) {
          for (const gsoType of [0, 1, 3, 4, 5, 0x81, 0x84, 2, 0x20, 0x60, 0xff]) {
            for (const value of values) {
              const other = values[(sent * 7) % values.length]!;
              const header = headerBytes({
                flags: [1, 1, 1, 3, 8, 255][sent % 6]!,
                gsoType,
                hdrLen: other,
                gsoSize: sent % 3 === 0 ? value : 1000,
                csumStart: sent % 3 === 1 ? value : 34,
                csumOffset: sent % 3 === 2 ? value : 16,
                numBuffers: other,
              });
              rig.machine.memory.write(AT, concat(header, frame));
              rig.machine.rings[TX]!.send([{ address: AT, length: 12 + frame.length }]);
              rig.machine.kick(TX);
              // More than once around the ring: a packed one does not tell used entries of two rounds ago from new ones.
              rig.machine.rings[TX]!.takeUsed();
              sent++;
            }
          }
        }
        await turns(1);
        const { frames: taken, malformed } = rig.device.stats.sent[0]!;
        assertEquals(taken + malformed, sent, "each is sent or dropped");
        assert(passed > 30 && malformed > 500, `${passed} passed, ${malformed} malformed`);
        assert(!rig.machine.needsReset);
        rig.backend.onFrame = null;
        rig.backend.offloads = net.Offload.all;
        await works(rig, 12);
        await rig.machine.checkBystander();
      }
    });

    Deno.test(`class 10, ${on}: headers of 20 bytes are taken as such, whatever is in their second part (CVE-2023-6693)`, async () => {
      const rig = setup(bus, ring | HASHED);
      const frame = plainFrame(60);
      const header = headerBytes({}, 20).fill(0xff, 10);
      for (const length of [20, 12, 11, 1]) {
        rig.backend.sent.length = 0;
        rig.machine.memory.write(AT, concat(header, frame));
        await send(rig, [{ address: AT, length }, { address: AT + length, length: 80 - length }]);
        assertEquals(rig.backend.bytes, [frame]);
      }
      await works(rig, 20);
    });

    Deno.test(`class 10, ${on}: a flood of frames that would become a thousand each is cut short by what a frame may become`, async () => {
      const rig = setup(bus, ring | MRG);
      rig.backend.offloads = 0;
      let made = 0;
      rig.backend.onFrame = () => made++;
      const frame = buildFrame({ ip: 4, payload: pattern(60000), checksum: "partial" });
      for (const gsoSize of [1, 2, 16]) {
        const header = headerBytes({
          flags: 1,
          gsoType: 1,
          gsoSize,
          csumStart: 34,
          csumOffset: 16,
        });
        rig.machine.memory.write(AT, concat(header, frame));
        await send(rig, [{ address: AT, length: 12 + frame.length }]);
      }
      assertEquals([made, rig.device.stats.sent[0]!.malformed], [0, 3]);
    });

    Deno.test(`class 20, ${on}: used lengths are what was written, for frames in any number of buffers`, async () => {
      const rig = setup(bus, ring | MRG);
      const { memory } = rig.machine;
      memory.fill(ROOM, 0x1000, UNTOUCHED);
      for (const [i, length] of [12, 13, 100, 12, 300, 200].entries()) {
        rig.machine.rings[RX]!.send([
          { address: AT, length: 64 },
          { address: ROOM + 0x200 * i, length, write: true },
        ]);
      }
      rig.backend.give(plainFrame(60));
      rig.backend.give(plainFrame(250));
      await turns(1);
      // 72 bytes take the first three, 262 the next two; the last is not used.
      const used = rig.machine.rings[RX]!.takeUsed();
      assertEquals(used.map(({ length }) => length), [12, 13, 47, 12, 250]);
      assertEquals(new Set(used.map(({ id }) => id)).size, 5);
      assertEquals(memory.readU8(ROOM + 0x400 + 47), UNTOUCHED);
      assertEquals(memory.readU8(ROOM + 0xa00), UNTOUCHED);
      assertEquals([memory.readU16(ROOM + 10), memory.readU16(ROOM + 0x600 + 10)], [3, 2]);
    });

    Deno.test(`class 20, ${on}: a device that is reset while frames wait, or in the midst of a frame, writes nothing afterwards`, async () => {
      const rig = setup(bus, ring | MRG);
      rig.backend.give(plainFrame(100));
      rig.machine.rings[RX]!.send([{ address: ROOM, length: 200, write: true }]);
      // The back end has the driver reset the device while it takes a frame.
      rig.backend.onFrame = () => {
        rig.machine.victim.driver.writeStatus(0);
        rig.backend.give(plainFrame(100));
      };
      rig.machine.memory.write(AT, concat(headerBytes(), plainFrame(60)));
      rig.machine.rings[TX]!.send([{ address: AT, length: 72 }]);
      rig.machine.kick(TX);
      const unchanged = rig.machine.watch();
      rig.backend.give(plainFrame(100));
      rig.machine.kick(RX);
      await turns(2);
      unchanged();
      assertEquals([rig.device.waiting, rig.machine.victim.errors.length], [0, 0]);
      rig.backend.onFrame = null;
      rig.machine.start(ring | MRG, 64, 3);
      await works(rig, 12);
    });

    Deno.test(`class 21, ${on}: a frame is found however it is cut, and goes into buffers however they are, of both kinds of memory`, async () => {
      const rig = setup(bus, ring | MRG);
      const { memory } = rig.machine;
      const frame = plainFrame(200);
      const all = concat(headerBytes(), frame);
      const empty = { address: 2 ** 40, length: 0 };
      for (
        const chain of [
          [...all].map((_, i) => ({ address: AT + i, length: 1 })).slice(0, 40).concat([
            { address: AT + 40, length: 172 },
          ]),
          [empty, { address: AT, length: 5 }, empty, { address: AT + 5, length: 207 }, empty],
          [{ address: AT, length: 212 }, { address: ROOM, length: 50, write: true }],
          [{ address: SEAM - 100, length: 212 }],
          [{ address: HIGH, length: 212 }],
        ]
      ) {
        memory.write(AT, all);
        memory.write(SEAM - 100, all.subarray(0, 100));
        memory.write(SEAM, all.subarray(100));
        memory.write(HIGH, all);
        memory.fill(ROOM, 50, UNTOUCHED);
        rig.backend.sent.length = 0;
        await send(rig, chain);
        assertEquals(rig.backend.bytes, [frame]);
        assertEquals(memory.readU8(ROOM), UNTOUCHED);
      }
      const readBack = (pieces: readonly (readonly [number, number])[]): number[] =>
        pieces.flatMap(([at, length]) => {
          const bytes = new Uint8Array(length);
          memory.read(at, bytes);
          return [...bytes];
        });
      for (
        const pieces of [
          [[ROOM, 3], [ROOM + 16, 9], [ROOM + 64, 300]],
          [[ROOM, 11], [ROOM + 32, 2], [ROOM + 64, 300]],
          [[SEAM - 6, 6], [SEAM, 300]],
          [[HIGH, 12], [ROOM, 300]],
        ] as const
      ) {
        rig.machine.rings[RX]!.takeUsed();
        const chain: RawDescriptor[] = pieces.map(([address, length]) => ({
          address,
          length,
          write: true,
        }));
        // Across the seam in one descriptor, elsewhere with one that is empty.
        if (pieces.length === 2 && pieces[1][0] === SEAM) {
          chain.splice(0, 2, { address: SEAM - 6, length: 306, write: true });
        } else {
          chain.splice(1, 0, { ...empty, write: true });
        }
        rig.machine.rings[RX]!.send(chain);
        rig.backend.give(frame);
        await turns(1);
        assertEquals(rig.machine.rings[RX]!.takeUsed().map(({ length }) => length), [212]);
        const bytes = readBack(pieces);
        assertEquals(bytes.slice(0, 12), [0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0]);
        assertEquals(bytes.slice(12, 212), [...frame]);
      }
    });
  }

  Deno.test(`a driver that never gives buffers costs the host a bounded amount, over ${bus}`, () => {
    const rig = setup(bus, MRG);
    for (let i = 0; i < 20_000; i++) rig.backend.give(plainFrame(1500));
    const { waited, overruns } = rig.device.stats.received[0]!;
    assertEquals([waited + overruns, waited], [20_000, 1024]);
  });
}

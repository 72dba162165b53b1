/** A back end against front ends that lie: no descriptor and no mapping is left, nothing hangs, and the next one is served. */
import { assert, assertEquals } from "@std/assert";
import { VIRTIO_F_EVENT_IDX, VIRTIO_F_VERSION_1 } from "@virtio/device";
import { EventFd, MemoryFile, Seal, UnixSocket } from "@virtio/linux";
import { VhostUserServer } from "@virtio/vhost-user";
import {
  Channel,
  encodeConfig,
  encodeInflight,
  encodeLog,
  encodeMemoryTable,
  encodeRegion,
  encodeU64,
  encodeVringDescriptor,
  encodeVringState,
  FrontEndRequest as Request,
  frontEndRequests,
  type MemoryTableRegion,
  ProtocolFeature as P,
} from "@virtio/vhost-user/protocol";
import {
  EchoDevice,
  Front,
  GUEST_BASE,
  settle,
  SIZE,
  until,
  USER_BASE,
} from "../../packages/vhost-user/backend/front_testing.ts";
import { connectMany, mappings } from "./vhost_user_many.ts";
import { openDescriptors } from "../../packages/vhost-user/driver/testing.ts";

const CORE = VIRTIO_F_VERSION_1 | VIRTIO_F_EVENT_IDX;
const ALL = P.MQ | P.LOG_SHMFD | P.REPLY_ACK | P.BACKEND_REQ | P.CONFIG | P.INFLIGHT_SHMFD |
  P.RESET_DEVICE | P.CONFIGURE_MEM_SLOTS | P.STATUS;

/** Runs something, and sees that it leaves neither descriptors nor mappings. */
async function leavingNothing(run: () => Promise<void>): Promise<void> {
  await settle();
  const descriptors = openDescriptors();
  const mapped = mappings();
  await run();
  // The wait for descriptors ends in a later turn.
  for (let i = 0; i < 100 && openDescriptors().length > descriptors.length; i++) await settle();
  assertEquals(openDescriptors().length, descriptors.length, openDescriptors().join("\n"));
  assertEquals(mappings(), mapped);
}

async function withFront(
  run: (front: Front) => Promise<void>,
  features = ALL,
  device: EchoDevice = new EchoDevice(),
): Promise<void> {
  await leavingNothing(async () => {
    const front = new Front(device);
    try {
      await front.negotiate(CORE, features);
      await run(front);
    } finally {
      await front.close();
    }
  });
}

Deno.test("Every message with a wrong size or number of descriptors ends the session, and leaves nothing", async () => {
  const event = EventFd.create();
  for (const shape of frontEndRequests.values()) {
    for (const [size, descriptors] of [[7, 0], [300, 0], [0, 8], [8, 3], [41, 1]] as const) {
      await withFront(async (front) => {
        const ended = await front.ends(
          { ...shape, needs: 0n },
          new Uint8Array(size),
          Array.from({ length: descriptors }, () => event.descriptor),
        );
        assert(ended, `${shape.name} of ${size} bytes with ${descriptors} descriptors was taken`);
      });
    }
  }
  event.close();
});

const region = (change: Partial<MemoryTableRegion> = {}): MemoryTableRegion => ({
  guestAddress: BigInt(GUEST_BASE),
  size: BigInt(SIZE),
  userAddress: BigInt(USER_BASE),
  offset: 0n,
  ...change,
});

const HUGE = 1n << 63n;
const TABLES: Record<string, readonly MemoryTableRegion[]> = {
  "no bytes": [region({ size: 0n })],
  "more than the file has": [region({ size: BigInt(SIZE) + 4096n })],
  "an offset beyond the file": [region({ offset: BigInt(SIZE) })],
  "an offset that wraps": [region({ offset: (1n << 64n) - 4096n })],
  "a guest address that wraps": [region({ guestAddress: (1n << 64n) - 4096n })],
  "a user address that wraps": [region({ userAddress: (1n << 64n) - 4096n })],
  "a size that wraps": [region({ size: (1n << 64n) - 4096n })],
  "a size that no machine has": [region({ size: HUGE })],
  "an address between pages": [region({ guestAddress: BigInt(GUEST_BASE) + 8n })],
  "an offset between pages": [region({ size: 4096n, offset: 8n })],
  "guest addresses twice": [region(), region({ userAddress: BigInt(USER_BASE) * 2n })],
  "user addresses twice": [region(), region({ guestAddress: 1n << 32n })],
  "an overlap of a page": [
    region(),
    region({
      guestAddress: BigInt(GUEST_BASE + SIZE - 4096),
      userAddress: BigInt(USER_BASE) * 2n,
    }),
  ],
};
for (const [name, regions] of Object.entries(TABLES)) {
  Deno.test(`A memory table with ${name} is refused whole, and so is such a region`, async () => {
    await withFront(async (front) => {
      const descriptors = regions.map(() => front.file.descriptor);
      assert(await front.ends(Request.SET_MEM_TABLE, encodeMemoryTable(regions), descriptors));
    });
    await withFront(async (front) => {
      for (const each of regions.slice(0, -1)) {
        assert(
          await front.done(Request.ADD_MEM_REG, encodeRegion(each), [front.file.descriptor]),
        );
      }
      const last = regions.at(-1)!;
      assert(await front.ends(Request.ADD_MEM_REG, encodeRegion(last), [front.file.descriptor]));
    });
  });
}

Deno.test("A region that is not there is not removed, and one of a pipe is not mapped", async () => {
  await withFront(async (front) => {
    front.share();
    const other = encodeRegion(region({ guestAddress: 0n }));
    assert(await front.ends(Request.REM_MEM_REG, other));
  });
  const event = EventFd.create();
  await withFront(async (front) => {
    assert(
      await front.ends(Request.SET_MEM_TABLE, encodeMemoryTable([region()]), [event.descriptor]),
    );
  });
  event.close();
});

Deno.test("A memory table with more or fewer descriptors than regions is refused", async () => {
  for (const count of [0, 2]) {
    await withFront(async (front) => {
      const descriptors = Array.from({ length: count }, () => front.file.descriptor);
      assert(await front.ends(Request.SET_MEM_TABLE, encodeMemoryTable([region()]), descriptors));
    });
  }
});

Deno.test("Memory that was shared cannot shrink any more, so that nothing ends this process", async () => {
  await withFront(async (front) => {
    assertEquals(front.file.seals & Seal.shrink, 0);
    front.share();
    await front.ask(Request.GET_FEATURES);
    assertEquals(front.file.seals & Seal.shrink, Seal.shrink);
  });
});

Deno.test("A back end that insists on seals refuses a file that cannot be sealed", async () => {
  const path = await Deno.makeTempFile();
  await Deno.truncate(path, SIZE);
  using file = await Deno.open(path, { read: true, write: true });
  // Deno tells no descriptors of files.
  const descriptor = Number(
    openDescriptors().find((each) => each.endsWith(path))!.split(" ")[0],
  );
  for (const requireSeals of [true, false]) {
    const front = new Front(new EchoDevice(), { requireSeals });
    await front.negotiate(CORE, ALL);
    const table = encodeMemoryTable([region()]);
    if (requireSeals) assert(await front.ends(Request.SET_MEM_TABLE, table, [descriptor]));
    else assert(await front.done(Request.SET_MEM_TABLE, table, [descriptor]));
    await front.close();
  }
  void file;
  await Deno.remove(path);
});

Deno.test("Rings and features that there are none of end the session", async () => {
  const state = encodeVringState({ index: 2, value: 1 });
  for (
    const [shape, payload] of [
      [Request.SET_VRING_NUM, state],
      [Request.SET_VRING_BASE, state],
      [Request.GET_VRING_BASE, state],
      [Request.SET_VRING_ENABLE, encodeVringState({ index: 0xffff_ffff, value: 1 })],
      [Request.SET_VRING_KICK, encodeVringDescriptor({ index: 255, none: true })],
      // It says that there is a descriptor.
      [Request.SET_VRING_CALL, encodeVringDescriptor({ index: 0, none: false })],
      [Request.SET_VRING_ERR, encodeU64(0x1000n)],
      [Request.SET_FEATURES, encodeU64(1n << 60n)],
      [Request.SET_PROTOCOL_FEATURES, encodeU64(1n << 63n)],
      [Request.GET_CONFIG, new Uint8Array(12).fill(255)],
      [Request.VRING_KICK, encodeVringState({ index: 0, value: 0 })],
      [{ ...Request.SET_OWNER, id: 999 }, new Uint8Array(0)],
    ] as const
  ) {
    await withFront(async (front) => {
      assert(await front.ends(shape, payload), `${shape.name} was taken`);
    });
  }
});

Deno.test("What needs a protocol feature is refused without it, by an answer where one can be asked for", async () => {
  await withFront(async (front) => {
    assertEquals(await front.done(Request.RESET_DEVICE), false);
    assertEquals(await front.done({ ...Request.SET_OWNER, id: 77 }), false);
    assert(await front.done(Request.SET_OWNER));
  }, P.REPLY_ACK);
});

Deno.test("A kick that is a file, a socket that is gone or a pipe whose reader is gone keeps nobody busy", async () => {
  const path = await Deno.makeTempFile();
  using file = await Deno.open(path, { read: true, write: true });
  const which = encodeVringDescriptor({ index: 0, none: false });
  await withFront(async (front) => {
    const descriptor = Number(
      openDescriptors().find((each) => each.endsWith(path))!.split(" ")[0],
    );
    assert(await front.ends(Request.SET_VRING_KICK, which, [descriptor]));
  });
  void file;
  await Deno.remove(path);
  const device = new EchoDevice();
  await withFront(
    async (front) => {
      front.share();
      front.setUp(0, CORE);
      front.enable(0);
      const [here, there] = UnixSocket.pair();
      assert(await front.done(Request.SET_VRING_CALL, which, [here.descriptor]));
      assert(await front.done(Request.SET_VRING_KICK, which, [here.descriptor]));
      here.close();
      there.close();
      // Readable for ever, and the interrupt is written into nothing.
      front.request(0, 1);
      assertEquals(await front.used(0, 1), [1]);
      const kicks = device.queueCounters[0]!.kicks;
      await settle(50);
      assertEquals(device.queueCounters[0]!.kicks, kicks);
    },
    ALL,
    device,
  );
});

Deno.test("Logs that are not in their file, or wrap, are refused", async () => {
  const log = MemoryFile.create(4096);
  for (
    const [size, offset] of [
      [0n, 0n],
      [8192n, 0n],
      [4096n, 4096n],
      [4096n, 8n],
      [4096n, (1n << 64n) - 4096n],
      [1n << 63n, 0n],
    ] as const
  ) {
    await withFront(async (front) => {
      assert(
        await front.ends(Request.SET_LOG_BASE, encodeLog({ size, offset }), [log.descriptor]),
        `${size} from ${offset} on`,
      );
    });
  }
  log.close();
});

Deno.test("Notes of requests in flight that are not in their file, or too small, are refused", async () => {
  const notes = MemoryFile.create(8192);
  const good = { size: 8192n, offset: 0n, queues: 2, queueSize: 64 };
  for (
    const change of [
      { size: 8193n },
      { size: 1024n },
      { size: 1n << 63n },
      { offset: 4096n },
      { offset: (1n << 64n) - 4096n },
      { offset: 8n, size: 4096n },
      { queues: 3 },
      { queues: 0 },
      { queues: 0xffff },
      { queueSize: 0 },
      { queueSize: 0xffff },
    ]
  ) {
    await withFront(async (front) => {
      assert(
        await front.ends(Request.SET_INFLIGHT_FD, encodeInflight({ ...good, ...change }), [
          notes.descriptor,
        ]),
        JSON.stringify(change, (_, value) => typeof value === "bigint" ? `${value}` : value),
      );
    });
  }
  await withFront(async (front) => {
    const answer = await front.ask(
      Request.GET_INFLIGHT_FD,
      encodeInflight({ ...good, queues: 9, size: 0n }),
    );
    assertEquals(answer.descriptorCount, 0);
  });
  notes.close();
});

/** A whole conversation, one step after another. */
const CONVERSATION: readonly ((front: Front) => void)[] = [
  (front) => front.send(Request.SET_OWNER),
  (front) => front.send(Request.GET_FEATURES),
  (front) => front.send(Request.SET_PROTOCOL_FEATURES, encodeU64(ALL)),
  (front) => front.send(Request.SET_FEATURES, encodeU64(CORE | 1n << 30n)),
  (front) => {
    const [here, there] = UnixSocket.pair();
    front.send(Request.SET_BACKEND_REQ_FD, undefined, [there.descriptor]);
    here.close();
    there.close();
  },
  (front) =>
    front.send(
      Request.GET_INFLIGHT_FD,
      encodeInflight({ size: 0n, offset: 0n, queues: 2, queueSize: 64 }),
    ),
  (front) => front.share(),
  (front) => {
    const log = MemoryFile.create(4096);
    front.send(Request.SET_LOG_BASE, encodeLog({ size: 4096n, offset: 0n }), [log.descriptor]);
    log.close();
  },
  (front) => void front.setUp(0, CORE),
  (front) => void front.setUp(1, CORE),
  (front) => front.enable(0),
  (front) => front.enable(1),
  (front) => front.request(0, 1),
  (front) => front.request(1, 2),
  (front) =>
    front.send(Request.GET_CONFIG, encodeConfig({ offset: 0, flags: 0, bytes: new Uint8Array(8) })),
  (front) => front.send(Request.GET_VRING_BASE, encodeVringState({ index: 0, value: 0 })),
  (front) => front.share(),
  (front) => front.send(Request.RESET_DEVICE),
];

Deno.test("A front end that goes away after any message, or in the middle of one, leaves nothing", async () => {
  for (let steps = 0; steps <= CONVERSATION.length; steps++) {
    for (const half of [0, 3, 12, 17]) {
      for (const wait of [0, 8]) {
        await leavingNothing(async () => {
          const front = new Front(new EchoDevice());
          for (const step of CONVERSATION.slice(0, steps)) step(front);
          if (wait > 0) await settle(wait);
          if (half > 0) {
            const event = EventFd.create();
            const bytes = new Uint8Array([12, 0, 0, 0, 1, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0, 0, 0]);
            front.channel.socket.send(bytes.subarray(0, half), [event.descriptor]);
            event.close();
          }
          await front.close();
        });
      }
    }
  }
});

Deno.test("A front end that reads no answer is not listened to, and gives the next one its turn", async () => {
  await leavingNothing(async () => {
    const folder = await Deno.makeTempDir();
    const socket = `${folder}/s`;
    const server = new VhostUserServer({ socket, device: new EchoDevice() });
    const raw = UnixSocket.connect(socket);
    const message = new Uint8Array([1, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0]);
    // Until no more is taken.
    for (let idle = 0; idle < 20;) {
      if (raw.send(message) === 0) {
        idle++;
        await settle(2);
      } else idle = 0;
    }
    raw.close();
    const next = new Channel(UnixSocket.connect(socket));
    next.request(Request.GET_FEATURES);
    let answer = next.receive();
    await until(() => (answer ??= next.receive()) !== null, "an answer");
    next.close();
    await server.close();
    await Deno.remove(folder, { recursive: true });
  });
});

Deno.test("A front end that never stops sending leaves others their turn", async () => {
  await withFront(async (front) => {
    const many = new Uint8Array(12 * 4000);
    for (let at = 0; at < many.length; at += 12) many.set([3, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0], at);
    const { receive } = UnixSocket.prototype;
    let received = 0;
    let atOnce = 0;
    let most = 0;
    UnixSocket.prototype.receive = function (...given) {
      received++;
      // What comes before the next microtask is seen to in one go.
      if (atOnce === 0) queueMicrotask(() => atOnce = 0);
      most = Math.max(most, ++atOnce);
      return receive.apply(this, given);
    };
    try {
      for (let sent = 0; sent < many.length;) {
        sent += front.channel.socket.send(many.subarray(sent));
        await settle(0);
      }
      await until(() => received > 4000, "all messages");
      assert(most > 10 && most < 100, `${most} at once`);
    } finally {
      UnixSocket.prototype.receive = receive;
    }
  });
});

Deno.test("A thousand front ends leave no descriptor and no mapping", async () => {
  await connectMany(1000);
});

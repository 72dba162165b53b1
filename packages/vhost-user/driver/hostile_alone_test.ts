/** Back ends that lie, stall and vanish: they cost their driver, and nothing else. */
import { assert, assertEquals, assertRejects } from "@std/assert";
import fc from "fast-check";
import { VIRTIO_F_VERSION_1 } from "@virtio/device";
import { DriverSession } from "@virtio/device/driver";
import { EventFd } from "@virtio/linux";
import { DmaPool } from "@virtio/vring/driver";
import { reactor } from "../backend/reactor.ts";
import {
  BackEndRequest,
  encodeU64,
  encodeVringState,
  FrontEndRequest,
  ProtocolError,
} from "../protocol/mod.ts";
import { BackEndError, FrontEndMemory, VhostUserTransport } from "./mod.ts";
import { type Answer, openDescriptors, ScriptedBackEnd } from "./testing.ts";

const CONSOLE = 3;

/** Connects, sets a device with two queues going, and resets it; with everything counted that may leak. */
async function live(
  backEnd: ScriptedBackEnd,
  during: (session: DriverSession, transport: VhostUserTransport) => Promise<void> = async () => {},
  timeout = 2000,
): Promise<Error[]> {
  const errors: Error[] = [];
  const memory = FrontEndMemory.allocate(1 << 20);
  try {
    const transport = await VhostUserTransport.connect(backEnd.socket, {
      deviceType: CONSOLE,
      memory,
      timeout,
      onError: (error) => errors.push(error),
    });
    try {
      const session = await DriverSession.open(transport, {
        dma: new DmaPool(memory.guest, 0, 1 << 20),
        type: CONSOLE,
        wanted: 0n,
        queues: () => [{ index: 0, size: 8 }, { index: 1, size: 8 }],
        patience: 5000,
      });
      let needsReset = false;
      session.handlers = {
        used: () => {},
        config: () => {},
        needsReset: () => needsReset = true,
      };
      await during(session, transport);
      await session.reset();
      assertEquals(transport.readStatus(), 0);
      if (needsReset) assert(errors.length > 0);
    } finally {
      await transport.close();
    }
  } finally {
    memory.close();
    backEnd.close();
    await reactor().idle();
  }
  return errors;
}

/** Runs it, and sees that no descriptor stays open. */
async function closed<T>(run: () => Promise<T>): Promise<T> {
  await reactor().idle();
  const before = openDescriptors();
  const result = await run();
  assertEquals(openDescriptors(), before);
  return result;
}

Deno.test("A scripted back end that does as it should is set going and reset", () =>
  closed(async () => {
    const backEnd = new ScriptedBackEnd();
    assertEquals(await live(backEnd), []);
    const names = new Map(Object.values(FrontEndRequest).map(({ id, name }) => [id, name]));
    const seen = backEnd.seen.map((id) => names.get(id));
    for (const name of ["SET_OWNER", "ADD_MEM_REG", "SET_VRING_KICK", "RESET_DEVICE"]) {
      assert(seen.includes(name), name);
    }
  }));

Deno.test("A back end that vanishes at any message leaves nothing open", async () => {
  const whole = new ScriptedBackEnd();
  await live(whole);
  const count = whole.seen.length;
  assert(count > 30);
  for (let at = 0; at < count; at++) {
    await closed(async () => {
      let left = at;
      const backEnd = new ScriptedBackEnd((_, normal): Answer => left-- === 0 ? "close" : normal());
      const result = await live(backEnd).catch((error) => error);
      // Either it could not be opened, or its driver was told.
      const told = result instanceof Error ? [result] : result as Error[];
      assert(told.length > 0, `nothing was told at message ${at}`);
    });
  }
});

Deno.test("Answers of another size, to another message, and none that were asked for, are refused", async () => {
  const whole = new ScriptedBackEnd();
  await live(whole);
  const wrong: [string, (message: { request: number }, answer: Answer) => Answer][] = [
    ["too short", (_, answer) => answer instanceof Uint8Array ? answer.subarray(1) : answer],
    [
      "too long",
      (_, answer) => answer instanceof Uint8Array ? new Uint8Array([...answer, 0]) : answer,
    ],
  ];
  for (const [name, spoil] of wrong) {
    for (const id of new Set(whole.seen)) {
      await closed(async () => {
        const backEnd = new ScriptedBackEnd((message, normal) => {
          const answer = normal();
          return message.request === id ? spoil(message, answer) : answer;
        });
        const result = await live(backEnd).catch((error) => error);
        const told = result instanceof Error ? [result] : result as Error[];
        // SET_PROTOCOL_FEATURES is not answered, as nothing was agreed on yet.
        if (id === FrontEndRequest.SET_PROTOCOL_FEATURES.id) assertEquals(told, []);
        else assert(told[0] instanceof ProtocolError, `${name} to ${id}: ${told[0]}`);
      });
    }
  }
  await closed(async () => {
    const backEnd = new ScriptedBackEnd((message, normal, self) => {
      if (message.request === 3) self.channel.reply(24, encodeU64(0n));
      return normal();
    });
    await assertRejects(() => live(backEnd), ProtocolError, "is expected");
  });
});

Deno.test("Answers with descriptors that nobody asked for are refused, and those are closed", () =>
  closed(async () => {
    const event = EventFd.create();
    const backEnd = new ScriptedBackEnd((message, normal, self) => {
      const answer = normal();
      if (message.request !== 36) return answer;
      self.channel.reply(36, answer as Uint8Array, [event.descriptor, event.descriptor]);
      return null;
    });
    await assertRejects(() => live(backEnd), ProtocolError, "descriptors");
    event.close();
  }));

Deno.test("A back end that does not answer is given up", () =>
  closed(async () => {
    const backEnd = new ScriptedBackEnd((message, normal) =>
      message.request === 17 ? null : normal()
    );
    await assertRejects(() => live(backEnd, undefined, 30), BackEndError, "GET_QUEUE_NUM");
  }));

Deno.test("A back end that refuses a message is given up, and says so to the driver", () =>
  closed(async () => {
    const backEnd = new ScriptedBackEnd((message, normal) =>
      message.request === 37 ? encodeU64(1n) : normal()
    );
    const errors = await live(backEnd, async (_, transport) => {
      while (transport.frontEnd.failure === null) await new Promise((done) => setTimeout(done, 1));
      assertEquals(transport.readStatus() & 64, 64);
    });
    assert(errors[0] instanceof BackEndError && errors[0].message.includes("ADD_MEM_REG"));
  }));

Deno.test("Bases of other queues, and ones that no ring can be at, do not hang a reset", async () => {
  await closed(async () => {
    const other = new ScriptedBackEnd((message, normal) =>
      message.request === 11 ? encodeVringState({ index: 9, value: 0 }) : normal()
    );
    const errors = await live(other);
    assert(errors[0] instanceof ProtocolError);
  });
  await closed(async () => {
    const far = new ScriptedBackEnd((message, normal) =>
      message.request === 11
        ? encodeVringState({ index: message.payload[0]!, value: 0xffff_1234 })
        : normal()
    );
    const errors = await live(far, undefined, 50);
    assert(errors[0] instanceof BackEndError && errors[0].message.includes("stopped at"));
  });
});

Deno.test("Requests over the back channel: unknown ones are answered, a flood of changes is seen to in turns, nonsense ends it", () =>
  closed(async () => {
    const backEnd = new ScriptedBackEnd();
    let changes = 0;
    const errors = await live(backEnd, async (session, transport) => {
      session.handlers!.config = () => changes++;
      const back = backEnd.back!;
      const unknown = { ...BackEndRequest.CONFIG_CHANGE_MSG, id: 99 };
      back.request(unknown, new Uint8Array(16), [], true);
      let answer = null;
      while (answer === null) {
        await new Promise((done) => setTimeout(done, 1));
        answer = back.receive();
      }
      assertEquals([answer.request, answer.payload[0]], [99, 1]);
      for (let i = 0; i < 500; i++) back.request(BackEndRequest.CONFIG_CHANGE_MSG);
      while (changes === 0) await new Promise((done) => setTimeout(done, 1));
      // Far fewer questions than changes.
      await transport.frontEnd.setMtu(1500);
      back.request(BackEndRequest.CONFIG_CHANGE_MSG, new Uint8Array(3));
      while (transport.frontEnd.failure === null) await new Promise((done) => setTimeout(done, 1));
    });
    assert(errors[0] instanceof ProtocolError);
    assert(changes >= 1 && changes < 250, `${changes} of 500`);
  }));

Deno.test("Without VERSION_1 there is no driver; without protocol features there is one", async () => {
  await closed(async () => {
    const old = new ScriptedBackEnd((message, normal) =>
      message.request === 1 ? encodeU64(0n) : normal()
    );
    await assertRejects(() => live(old), Error, "legacy");
  });
  await closed(async () => {
    const plain = new ScriptedBackEnd((message, normal) =>
      message.request === 1 ? encodeU64(VIRTIO_F_VERSION_1) : normal()
    );
    assertEquals(await live(plain), []);
    assert(plain.seen.includes(FrontEndRequest.SET_MEM_TABLE.id));
    assert(!plain.seen.includes(FrontEndRequest.SET_VRING_ENABLE.id));
  });
});

Deno.test("Options that cannot be are refused before anything is sent", async () => {
  const memory = FrontEndMemory.allocate(4096);
  for (
    const wrong of [
      { queueSize: 100 },
      { queueCount: 0 },
      { configSize: 257 },
      { timeout: 0 },
      { reconnect: { attempts: 0 } },
    ]
  ) {
    await assertRejects(
      () => VhostUserTransport.connect("nowhere", { deviceType: 2, memory, ...wrong }),
      RangeError,
    );
  }
  memory.close();
});

Deno.test("Whatever bytes and descriptors come, when they like, cost the driver alone", async () => {
  const event = EventFd.create();
  await fc.assert(
    fc.asyncProperty(
      fc.nat(45),
      fc.boolean(),
      fc.array(
        fc.oneof(
          fc.uint8Array({ maxLength: 40 }),
          // What has a header is looked at longer.
          fc.tuple(fc.nat(45), fc.constantFrom(1, 5, 9, 13), fc.uint8Array({ maxLength: 64 })).map(
            ([request, flags, payload]) => {
              const bytes = new Uint8Array(12 + payload.length);
              new Uint32Array(bytes.buffer, 0, 3).set([request, flags, payload.length]);
              bytes.set(payload, 12);
              return bytes;
            },
          ),
        ),
        { minLength: 1, maxLength: 4 },
      ),
      fc.nat(3),
      async (at, overBack, pieces, descriptors) => {
        await closed(async () => {
          let left = at;
          const backEnd = new ScriptedBackEnd((_, normal, self) => {
            if (left-- === 0) {
              const { socket } = (overBack ? self.back : null) ?? self.channel;
              for (const piece of pieces) {
                if (piece.length === 0) continue;
                socket.send(piece, Array.from({ length: descriptors }, () => event.descriptor));
              }
            }
            return normal();
          });
          await live(backEnd, undefined, 40).catch((error) => {
            assert(error instanceof Error);
          });
        });
      },
    ),
    { numRuns: 150 },
  );
  event.close();
});

Deno.test("A back end that signals an error of a ring is given up", () =>
  closed(async () => {
    const backEnd = new ScriptedBackEnd((message, normal) => {
      if (message.request === FrontEndRequest.SET_VRING_ERR.id && message.payload[0] === 1) {
        const event = new EventFd(message.take(0));
        event.signal();
        event.close();
      }
      return normal();
    });
    const errors = await live(backEnd, async (_, transport) => {
      while (transport.frontEnd.failure === null) await new Promise((done) => setTimeout(done, 1));
    });
    assert(errors[0] instanceof BackEndError && errors[0].message.includes("queue 1"));
  }));

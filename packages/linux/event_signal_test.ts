import { assert, assertEquals } from "@std/assert";
import { EventFd, EventSignal, fixedBytes, loadLibc, openDescriptor, UnixSocket } from "./mod.ts";

const { fcntl, write, pipe } = loadLibc({
  fcntl: { parameters: ["i32", "i32", "i64"], result: "i32" },
  write: { parameters: ["i32", "buffer", "usize"], result: "i32" },
  pipe: { parameters: ["buffer"], result: "i32" },
});
const F_SETFL = 4;

/** Does what a hostile process would: fills the counter, and has writes wait for room. */
function fill(event: EventFd): void {
  const most = fixedBytes(8);
  new BigUint64Array(most.buffer)[0] = 2n ** 64n - 2n;
  event.take();
  assertEquals(write(event.descriptor, most, 8n), 8);
  assertEquals(fcntl(event.descriptor, F_SETFL, 0n), 0);
}

for (const way of ["uring", "aio"] as const) {
  Deno.test(`An event file that is full, and waits for room, stops nobody who signals it: ${way}`, () => {
    const event = EventFd.create();
    const signal = new EventSignal(event.descriptor, [way]);
    assertEquals(signal.way, way);
    for (let i = 0; i < 1000; i++) assert(signal.signal());
    const count = fixedBytes(8);
    assertEquals(readCount(event, count), 1000n);
    assert(!event.take());
    fill(event);
    for (let i = 0; i < 1000; i++) signal.signal();
    assert(event.take());
    assert(signal.signal());
    assert(event.take());
    signal.close();
    event.close();
  });
}

function readCount(event: EventFd, into: Uint8Array<ArrayBuffer>): bigint {
  const { read } = loadLibc({ read: { parameters: ["i32", "buffer", "usize"], result: "i32" } });
  assertEquals(read(event.descriptor, into, 8n), 8);
  return new BigUint64Array(into.buffer)[0]!;
}

Deno.test("A pipe and a socket that are full, and wait for room, stop nobody", () => {
  const ends = fixedBytes(8);
  assertEquals(pipe(ends), 0);
  const [reader, writer] = new Int32Array(ends.buffer) as unknown as [number, number];
  const [one, two] = UnixSocket.pair();
  fcntl(one.descriptor, F_SETFL, 0n);
  for (const descriptor of [writer, one.descriptor]) {
    const signal = new EventSignal(descriptor);
    assertEquals(signal.way, "write");
    assert(signal.signal());
    let signals = 0;
    while (signal.signal()) assert(++signals < 1_000_000, "it gets full");
    assert(!signal.signal());
    signal.close();
  }
  for (const event of [reader, writer]) new EventFd(event).close();
  one.close();
  two.close();
});

Deno.test("A socket that another process made one that waits is not waited for", () => {
  const [one, two] = UnixSocket.pair();
  fcntl(one.descriptor, F_SETFL, 0n);
  assertEquals(one.receive(new Uint8Array(8)).length, -1);
  const much = new Uint8Array(1 << 16);
  while (one.send(much) > 0);
  assertEquals(one.send(much), 0);
  one.close();
  two.close();
});

Deno.test("Signals to nobody do nothing", () => {
  const none = new EventSignal(-1);
  assert(!none.signal());
  none.close();
  const file = openDescriptor("/dev/null", 0);
  const other = new EventSignal(file);
  assertEquals([other.way, other.signal()], ["write", false]);
  other.close();
  new EventFd(file).close();
});

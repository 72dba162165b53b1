import { assert, assertEquals } from "@std/assert";
import { EventFd, fixedBytes, isDescriptor, LoopReader, UnixSocket } from "./mod.ts";

function open(...args: Parameters<typeof LoopReader.open>): LoopReader {
  const reader = LoopReader.open(...args);
  if (reader === null) throw new Error("this runtime should have it");
  return reader;
}

Deno.test("the event loop reads an event file whenever it is signalled", async () => {
  const event = EventFd.create();
  const buffer = fixedBytes(8);
  const came: number[] = [];
  let wake = (): void => {};
  const reader = open(event.descriptor, buffer, (count) => {
    assertEquals(count, 8);
    came.push(buffer[0]!);
    wake();
  });
  for (let i = 1; i <= 100; i++) {
    const waked = new Promise<void>((resolve) => wake = resolve);
    for (let k = 0; k < i; k++) event.signal();
    await waked;
    assertEquals(came, [i]);
    came.length = 0;
  }
  await reader.close();
  event.signal();
  await new Promise((resolve) => setTimeout(resolve, 10));
  assertEquals(came, [], "nothing is told any more");
  assert(event.take(), "the descriptor is the caller's still");
  await reader.close();
  event.close();
});

Deno.test("what ended, or cannot be read, is told once, and gives its descriptor back", async () => {
  for (const ends of [true, false]) {
    const [here, there] = UnixSocket.pair();
    const counts: number[] = [];
    let wake = (): void => {};
    const woken = new Promise<void>((resolve) => wake = resolve);
    // An event file is not read in less than eight bytes.
    const buffer = new Uint8Array(8);
    const event = EventFd.create();
    const reader = open(
      ends ? here.descriptor : event.descriptor,
      ends ? buffer : buffer.subarray(0, 4),
      (count) => {
        counts.push(count);
        wake();
      },
    );
    if (ends) there.close();
    else event.signal();
    await woken;
    await reader.close();
    assertEquals(counts, [0]);
    assert(isDescriptor(here.descriptor));
    here.close();
    there.close();
    event.close();
  }
});

Deno.test("a worker's event loop is not used", async () => {
  const code = `import { EventFd, LoopReader } from "${new URL("./mod.ts", import.meta.url)}";
    const event = EventFd.create();
    self.postMessage(LoopReader.open(event.descriptor, new Uint8Array(8), () => {}) === null);`;
  const url = URL.createObjectURL(new Blob([code], { type: "text/javascript" }));
  const worker = new Worker(url, { type: "module" });
  try {
    const answer = await new Promise((resolve, reject) => {
      worker.onmessage = ({ data }) => resolve(data);
      worker.onerror = reject;
    });
    assertEquals(answer, true);
  } finally {
    worker.terminate();
    URL.revokeObjectURL(url);
  }
});

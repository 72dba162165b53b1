/** A link over a connection that does as little at a time as it may. */
import { assert, assertEquals } from "@std/assert";
import { envelope, letter } from "./switch_testing.ts";
import { type ByteStream, StreamLink } from "./stream_link.ts";

/** Takes few bytes at a time, each time later; gives nothing until it is closed. */
class Narrow implements ByteStream {
  readonly written: number[] = [];
  failure: Error | null = null;
  closed = 0;
  readonly #end = Promise.withResolvers<null>();

  read(): Promise<number | null> {
    return this.#end.promise;
  }

  async write(bytes: Uint8Array): Promise<number> {
    await Promise.resolve();
    if (this.failure !== null) throw this.failure;
    const some = bytes.subarray(0, 7);
    this.written.push(...some);
    return some.length;
  }

  close(): void {
    this.closed++;
    this.#end.resolve(null);
  }
}

async function settle(): Promise<void> {
  await new Promise((resolve) => setTimeout(resolve, 5));
}

Deno.test("what a write did not take is written by the next, and frames meanwhile come behind it", async () => {
  const narrow = new Narrow();
  const link = new StreamLink(narrow, "nobody", 1000, () => {});
  const expected: number[] = [];
  for (let i = 0; i < 6; i++) {
    expected.push(0, 0, 0, 60, ...envelope({ to: 2, from: 1, fill: i }));
    assert(link.send(letter({ to: 2, from: 1, fill: i })));
    if (i % 2 === 1) await Promise.resolve();
  }
  await settle();
  assertEquals(narrow.written, expected);
  // And after a pause again.
  assert(link.send(letter({ to: 2, from: 1, fill: 9 })));
  await settle();
  assertEquals(narrow.written.length, expected.length + 64);
  link.close();
  assertEquals(await link.ended, null);
  assert(!link.send(letter({ to: 2, from: 1 })));
  assertEquals(narrow.closed, 1);
});

Deno.test("frames beyond the bound are refused, and room comes back", async () => {
  const narrow = new Narrow();
  const link = new StreamLink(narrow, "nobody", 200, () => {});
  const sent = [1, 2, 3, 4].map((fill) => link.send(letter({ to: 2, from: 1, fill })));
  assertEquals(sent, [true, true, true, false]);
  await settle();
  assertEquals(narrow.written.length, 3 * 64);
  assert(link.send(letter({ to: 2, from: 1 })));
  link.close();
  await link.ended;
});

Deno.test("a write that fails ends the link, once", async () => {
  const narrow = new Narrow();
  narrow.failure = new Error("no more");
  const link = new StreamLink(narrow, "the peer", 200, () => {});
  link.send(letter({ to: 2, from: 1 }));
  const error = await link.ended;
  assertEquals([error?.problem, narrow.closed], ["lost", 1]);
  assert(error!.message.includes("the peer"));
  assertEquals(error!.cause, narrow.failure);
});
